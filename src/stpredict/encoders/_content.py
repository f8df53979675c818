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
#: Layers that read a file: zarr, this package's readers of TIFF and HDF5, and of JPEG and PNG.
_FILES = ("original-from-zarr-", "original-image-", "_decode_once-")
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


def content_of(level: da.Array) -> str | None:
    """Fingerprint of a lazy image and of the files it is read from.

    None for images that are computed by anything but reading and downsampling, and for files of an
    unknown kind: only their pixels show whether they are equal.
    """
    graph: Any = level.__dask_graph__()
    digest = hashlib.sha256(level.name.encode())  # describes the layers and their parameters
    for name, layer in sorted(graph.layers.items()):
        if name.startswith(_FILES):
            # a file may change without its name, so that its bytes decide
            paths = [path for task in layer.values() for path in _paths(task)]
            if not paths:
                return None
            for path in sorted(set(paths)):
                _add_bytes(digest, path)
        elif not name.startswith(_ARRAYS + _DERIVED):
            return None
    return digest.hexdigest()


def _paths(task: Any) -> Iterator[Path]:
    """Files and folders that a task of dask reads."""
    if isinstance(task, Path):
        yield task
    elif isinstance(task, zarr.Array):
        root = getattr(task.store, "root", None)  # of a folder on this machine
        if root is not None and Path(root).is_dir():
            yield Path(root) / task.path
    elif isinstance(path := getattr(task, "path", None), Path):
        yield path
    elif isinstance(task, tuple | list):
        for part in task:
            yield from _paths(part)
    else:
        for name in ("args", "value"):
            if (part := getattr(task, name, None)) is not None and not callable(part):
                yield from _paths(part)


def _add_bytes(digest: Any, path: Path) -> None:
    """Add the bytes of a file, or of all files of a folder with their names."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    for file in files:
        if file.is_file():
            name = file.relative_to(path).as_posix() if file != path else ""
            with file.open("rb") as opened:
                content = hashlib.file_digest(opened, "sha256").hexdigest()
            digest.update(f"{name} {content}\n".encode())
