"""What lazy images are read from, so that equal images are recognised without decoding them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask.array as da
import zarr

#: Names of dask's layers that hold an array, whose name has a hash of its values.
_ARRAYS = ("array-", "original-array-")
#: Layers that read a file: zarr, this package's readers of TIFF and HDF5, and of JPEG and PNG, and
#: wsidata's readers of slides.
_FILES = ("original-from-zarr-", "original-image-", "_decode_once-", "_read_block-")
#: Formats of slides that consist of one file.
_SINGLE_FILES = {".svs", ".ndpi", ".scn", ".bif", ".svslide", ".tif", ".tiff", ".czi", ".isyntax"}
#: Layers that read, cut, join and downsample. The results of others may depend on code that dask
#: knows by its name only.
_DERIVED = (
    "from-zarr-",
    "image-",
    "from-value-",
    "rechunk-merge-",
    "rechunk-split-",
    "transpose-",
    "getitem-",
    "reshape-",
    "mean_chunk-",
    "mean_agg-aggregate-",
    "astype-",
)


def content_of(level: da.Array, digests: dict[Path, str] | None = None) -> str | None:
    """Fingerprint of a lazy image and of the files it is read from.

    None for images that are computed by anything but reading and downsampling, and for files of an
    unknown kind: only their pixels show whether they are equal. ``digests`` of files are used
    again, and new ones added.
    """
    digests = {} if digests is None else digests
    graph: Any = level.__dask_graph__()
    names = [level.name]  # it describes the layers and their parameters
    for name, layer in sorted(graph.layers.items()):
        if name.startswith(_FILES):
            # tasks of a layer read the same file
            paths = sorted(set(_paths(next(iter(layer.values())))))
            if not paths:
                return None
            for path in paths:
                if path not in digests:
                    # a file may change without its name, so that its bytes decide
                    digests[path] = _hash_files(path)
                names.append(digests[path])
        elif not name.startswith(_ARRAYS + _DERIVED):
            return None
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


def _paths(task: Any) -> Iterator[Path]:
    """Files and folders that a task of dask reads."""
    if isinstance(task, Path):
        yield task
    elif isinstance(task, zarr.Array):
        root = getattr(task.store, "root", None)  # of a folder on this machine
        if root is not None and Path(root).is_dir():
            yield Path(root) / task.path
    elif any(base.__name__ == "ReaderBase" for base in type(task).__mro__):
        # of wsidata, by name: importing it takes seconds
        if Path(task.file).suffix.lower() in _SINGLE_FILES:
            yield Path(task.file)
    elif isinstance(path := getattr(task, "path", None), Path):
        yield path
    elif isinstance(task, tuple | list):
        for part in task:
            yield from _paths(part)
    else:
        for name in ("args", "value"):
            if (part := getattr(task, name, None)) is not None and not callable(part):
                yield from _paths(part)


def _hash_files(path: Path) -> str:
    """Hash the bytes of a file, or of all files of a folder with their names."""
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            with file.open("rb") as opened:
                content = hashlib.file_digest(opened, "sha256").hexdigest()
            digest.update(f"{file.relative_to(path).as_posix()} {content}\n".encode())
    return digest.hexdigest()
