"""HER2-positive breast tumours: 36 sections of eight patients."""

from __future__ import annotations

import contextlib
import hashlib
import os
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from stpredict import _validate
from stpredict.io import concat, read_st

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spatialdata import SpatialData

COMMIT = "85df7411b987a7dec3feff9718b869a7a82091ec"
URL = f"https://raw.githubusercontent.com/almaan/her2st/{COMMIT}/data/"
DIRECTORY_VARIABLE = "STPREDICT_HER2ST"


def her2st(sections: Sequence[str] | str, *, directory: str | Path | None = None) -> SpatialData:
    """Sections of HER2-positive breast tumours, measured with legacy Spatial Transcriptomics.

    Files are downloaded once into a cache (the folder ``STPREDICT_CACHE`` names, else the user's
    cache folder) and every file, downloaded or local, is checked against upstream's git blob id.

    Parameters
    ----------
    sections
        Names of sections: ``"A1"`` … ``"H3"``. Patients A–D have six sections each, E–H three;
        the letter is the patient.
    directory
        A local copy of the upstream repository's ``data`` folder; by default the environment
        variable ``STPREDICT_HER2ST``, and without it the download.

    Returns
    -------
    SpatialData
        Per section ``images["C2_image"]`` (3, y, x) uint8, lazy, and ``shapes["C2"]``; one
        ``tables["table"]`` with counts of all genes any of the sections lists, and
        ``obs["patient"]``.

    Raises
    ------
    ValueError
        If a section is unknown or named twice, or a file is not upstream's.
    FileNotFoundError
        If the directory lacks a file.
    ConnectionError
        If a file cannot be downloaded.

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
        raise ValueError(
            f"no such sections: {_validate.listing(unknown)}; available: "
            f"{_validate.listing(section_files(), most=36)}"
        )
    _validate.unique_names(names, what="sections")
    directory = directory or os.environ.get(DIRECTORY_VARIABLE)
    paths = [
        [_local(directory, name) if directory else _download(name) for name in section_files()[s]]
        for s in names
    ]
    return concat(
        [
            read_st(counts, image, spots, section=name, patient=name[0])
            for name, (counts, image, spots) in zip(names, paths, strict=True)
        ],
        join="outer",  # the files leave out genes without a count
    )


@cache
def _blobs() -> dict[str, str]:
    """Git blob id of every file, by its path below ``data``."""
    listed = files("stpredict.datasets").joinpath("her2st_blobs.tsv").read_text()
    return {path: blob for blob, path in (line.split("\t") for line in listed.splitlines())}


@cache
def section_files() -> dict[str, tuple[str, str, str]]:
    """Counts, image and spot file of every section."""
    images = {path.split("/")[2]: path for path in _blobs() if path.startswith("ST-imgs/")}
    return {
        name: (f"ST-cnts/{name}.tsv.gz", image, f"ST-spotfiles/{name}_selection.tsv")
        for name, image in sorted(images.items())
    }


def _local(directory: str | Path, name: str) -> Path:
    path = Path(directory) / name
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist; directory= must be a copy of the folder data of "
            "github.com/almaan/her2st"
        )
    _check(path, name)
    return path


def _download(name: str) -> Path:
    import pooch

    cache_folder = Path(os.environ.get("STPREDICT_CACHE", pooch.os_cache("stpredict"))) / "her2st"
    path = cache_folder / name
    if path.is_file():
        with contextlib.suppress(ValueError):  # damaged since: downloaded again
            _check(path, name)
            return path
    partial = path.with_name(path.name + ".part")
    try:
        pooch.retrieve(URL + name, known_hash=None, fname=partial.name, path=partial.parent)
    except OSError as error:  # requests' errors are OSErrors
        raise ConnectionError(
            f"{URL + name} could not be downloaded ({error}). Offline? Give directory= or set "
            f"{DIRECTORY_VARIABLE} to a copy of upstream's data folder"
        ) from error
    try:
        _check(partial, name)
    except ValueError:
        partial.unlink()  # so that the next call downloads it again
        raise
    partial.replace(path)
    return path


def _check(path: Path, name: str) -> None:
    content = path.read_bytes()
    # git's blob id, as listed upstream: SHA-1 over a header with the size, then the content
    found = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    if found != _blobs()[name]:
        raise ValueError(
            f"{path} is not upstream's file: its git blob id is {found}, expected "
            f"{_blobs()[name]}; was it cut off or changed?"
        )
