"""HER2-positive breast tumours: 36 sections of eight patients."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path

from spatialdata import SpatialData

from stpredict import _validate
from stpredict._arguments import checked
from stpredict._download import attempt
from stpredict._settings import cache_folder
from stpredict.io import concat, read_st
from stpredict.io._shared._files import require_file

_COMMIT = "85df7411b987a7dec3feff9718b869a7a82091ec"
URL = f"https://raw.githubusercontent.com/almaan/her2st/{_COMMIT}/data/"


@checked
def her2st(sections: Sequence[str] | str, *, directory: str | Path | None = None) -> SpatialData:
    """Sections of HER2-positive breast tumours, measured with legacy Spatial Transcriptomics.

    Files are downloaded once into ``stp.settings.cache_dir``, by default the folder in the
    environment variable ``STPREDICT_CACHE``, else the user's cache folder. Every file is checked
    against its git blob id. The images are JPEG files: each is decoded at its first use, into
    temporary files of about 370 MB (see :func:`stpredict.io.read_slide`).

    Parameters
    ----------
    sections
        Names of sections: ``"A1"`` … ``"H3"``. The letter is the patient; A–D have six sections
        each, E–H three.
    directory
        Local copy of the ``data`` folder of the original repository. By default the folder in the
        environment variable ``STPREDICT_HER2ST``; if it is not set, files are downloaded.

    Returns
    -------
    SpatialData
        Per section ``images["C2_image"]`` (3, y, x) uint8, lazy, and ``shapes["C2"]``; one
        ``tables["table"]`` with counts of all genes that any of the sections lists, and
        ``obs["patient"]``.

    Raises
    ------
    ValueError
        If a section is unknown or named twice, or a file differs from the original.
    FileNotFoundError, ConnectionError
        If the directory lacks a file, or a file cannot be downloaded.

    References
    ----------
    Andersson et al., Spatial deconvolution of HER2-positive breast cancer delineates
    tumor-associated cell type interactions, Nature Communications 2021 (CC-BY 4.0).

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.datasets.her2st(["C2", "C3"])  # doctest: +SKIP
    """
    names = [sections] if isinstance(sections, str) else list(sections)
    unknown = [name for name in names if name not in section_files()]
    if unknown or not names:
        absent, available = _validate.listing(unknown), ", ".join(section_files())
        raise ValueError(f"unknown sections: {absent}. Available are {available}")
    _validate.unique_names(names, what="sections")
    directory = directory or os.environ.get("STPREDICT_HER2ST")
    # all files are checked before the first is read
    paths = {
        name: [_local(directory, f) if directory else _download(f) for f in section_files()[name]]
        for name in names
    }
    return concat(
        [read_st(*paths[name], section=name, patient=name[0]) for name in names],
        join="outer",  # the files omit genes without counts
    )


@cache
def _blob_ids() -> dict[str, str]:
    """Git blob id of every file, by its path in ``data``."""
    lines = files("stpredict.datasets").joinpath("her2st_blobs.tsv").read_text().splitlines()
    return {path: blob_id for blob_id, path in (line.split("\t") for line in lines)}


@cache
def section_files() -> dict[str, tuple[str, str, str]]:
    """Paths in ``data`` of the counts, the image and the spot file of every section."""
    images = {path.split("/")[2]: path for path in _blob_ids() if path.startswith("ST-imgs/")}
    return {
        name: (f"ST-cnts/{name}.tsv.gz", image, f"ST-spotfiles/{name}_selection.tsv")
        for name, image in sorted(images.items())
    }


def _blob_id(path: Path) -> str:
    content = path.read_bytes()
    # git's blob id: SHA-1 of a header with the size, then the content
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _check(path: Path, name: str) -> None:
    blob_id = _blob_id(path)
    if blob_id != _blob_ids()[name]:
        raise ValueError(f"{path} differs from the original file: its git blob id is {blob_id}")


def _local(directory: str | Path, name: str) -> Path:
    hint = "directory= must be a copy of the folder data of github.com/almaan/her2st"
    path = require_file(Path(directory) / name, hint=hint)
    _check(path, name)
    return path


def _download(name: str) -> Path:
    import pooch

    path = cache_folder() / "her2st" / name
    if path.is_file() and _blob_id(path) == _blob_ids()[name]:
        return path
    path.unlink(missing_ok=True)  # damaged; pooch would keep it
    attempt(
        lambda: pooch.retrieve(URL + name, known_hash=None, fname=path.name, path=path.parent),
        what=URL + name,
        remedy="Set directory= or STPREDICT_HER2ST to a copy, or retry with a network",
    )
    try:
        _check(path, name)
    except ValueError:
        path.unlink()  # so that the next call downloads it again
        raise
    return path
