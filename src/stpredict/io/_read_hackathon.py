"""Read the HDF5 file of the EL Hackathon 2025: slides with cell-type abundances."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from spatialdata import SpatialData

from stpredict import _keys, _validate
from stpredict._arguments import checked
from stpredict._log import info
from stpredict._validate import listing
from stpredict.io._concat import concat
from stpredict.io._shared._assemble import assemble_section
from stpredict.io._shared._files import number_columns, reading, require_entries, require_file
from stpredict.io._shared._image import open_hdf5

# Relative standard deviation of the distance between neighbours above which spots are not a grid;
# rounding to whole pixels gives 0.03 at a pitch of 14 px.
_SCATTER = 0.1
_FAR_PX = 1e6  # beyond any image


@checked
def read_hackathon(
    path: str | Path,
    *,
    split: Literal["train", "test"] = "train",
    slides: Sequence[str] | None = None,
    mpp: float | None = None,
    pitch_um: float = 100.0,
    diameter_um: float = 55.0,
    patients: dict[str, str] | None = None,
    outside: Literal["error", "drop"] = "error",
) -> SpatialData:
    r"""Read slides of the EL Hackathon's HDF5 file: H&E images and cell-type abundances.

    Test slides have no measurements: their table has no columns, which is enough for
    :func:`stpredict.tl.predict`. Abundances are not counts. Train on ``layer="abundance"``, and
    filter spots with ``min_counts=0``.

    Parameters
    ----------
    path
        HDF5 file with ``images/Train/S_1``, … (y, x, 3), uint8 or floats in [0, 1], and
        ``spots/Train/S_1``, … structured arrays with the fields ``x``, ``y`` (pixels along width
        and height) and ``C1``, ``C2``, …; the same under ``Test``, with ``Test_Set`` in place of
        abundances.
    split
        Training or test slides.
    slides
        Names of slides, such as ``["S_1", "S_3"]``. By default all of the split.
    mpp
        µm per pixel. By default it is derived for each slide from the spots' grid.
    pitch_um, diameter_um
        Distance between the centres of neighbouring spots, and their diameter, in µm.
    patients
        Patient of each slide, for ``obs["patient"]``. Other slides are their own patient.
    outside
        Whether spots without a position in the image raise an error or are dropped. Names of
        dropped spots are in ``uns["stpredict"]["outside_image"]``, by slide.

    Returns
    -------
    SpatialData
        For each slide ``images["S_1_image"]`` (3, y, x) uint8, lazy, and ``shapes["S_1"]``
        circles; one ``tables["table"]`` n_spots × n_cell_types float32, and the same as
        ``layers["abundance"]``. Further fields are columns of ``obs``.

    Raises
    ------
    FileNotFoundError, KeyError
        If the file does not exist, or has no such slide.
    ValueError
        If the file is not HDF5, is damaged, lacks a group or a field, an image is not RGB in 8 bits
        or in [0, 1], spots lie outside it or not on a grid, ``mpp`` is not plausible (0.05 to 20),
        or abundances are negative, NaN or of different cell types.
    TypeError
        If positions or abundances are not numbers.

    References
    ----------
    https://www.kaggle.com/competitions/el-hackathon-2025

    Examples
    --------
    >>> import h5py, numpy as np, stpredict as stp
    >>> from tempfile import mkdtemp
    >>> path = f"{mkdtemp()}/slides.h5"
    >>> y, x = np.mgrid[20:180:14, 20:180:14].reshape(2, -1)
    >>> with h5py.File(path, "w") as file:
    ...     file["images/Train/S_1"] = np.full((200, 200, 3), 255, dtype=np.uint8)
    ...     file["spots/Train/S_1"] = np.rec.fromarrays([x, y, x / 200], names="x,y,C1")
    >>> sdata = stp.io.read_hackathon(path)
    >>> sdata.tables["table"].shape
    (144, 1)
    """
    _validate.positive("pitch_um", pitch_um, unit="µm")
    path = require_file(path)
    if not h5py.is_hdf5(path):
        raise ValueError(f"{path} is not an HDF5 file")
    group = split.capitalize()
    with _open(path) as file:
        names = _slides(file, group, slides)
        spots = {slide: _read_spots(file, f"spots/{group}/{slide}") for slide in names}
    require_entries("slides (for patients=)", names, patients or (), error=KeyError)
    sections = []
    for slide, fields in spots.items():
        cell_types = _cell_types(fields)
        if split == "train" and not cell_types:
            raise ValueError(f"slide {slide!r} has no abundances C1, C2, …")
        # slides are combined on the cell types that all have, so none may be missing
        different = sorted(set(cell_types) ^ set(_cell_types(spots[names[0]])))
        if different:
            both = f"slides {names[0]!r} and {slide!r}"
            raise ValueError(f"{both} differ in their cell types: {listing(different)}")
        positions = number_columns(f"spots/{group}/{slide}", fields, ["x", "y"])
        sections.append(
            assemble_section(
                slide,
                image=open_hdf5(path, f"images/{group}/{slide}"),
                counts=number_columns(f"spots/{group}/{slide}", fields, cell_types),
                var_names=cell_types,
                positions=positions,
                mpp=_mpp(positions, pitch_um, slide) if mpp is None else mpp,
                diameter_um=diameter_um,
                outside=outside,
                patient=None if patients is None else patients.get(slide, slide),
                obs=fields.drop(columns=["x", "y", *cell_types]),
            )
        )
    sdata = concat(sections)
    table = sdata.tables["table"]
    table.layers[_keys.ABUNDANCE] = table.X.copy()
    return sdata


def _open(path: Path) -> h5py.File:
    with reading(path):
        return h5py.File(path, "r")


def _slides(file: h5py.File, group: str, slides: Sequence[str] | None) -> Sequence[str]:
    """Names of the slides to read, which must have spots and an image."""
    for folder in (f"spots/{group}", f"images/{group}"):
        with reading(Path(file.filename)):
            content = file.get(folder)
            names = list(content) if isinstance(content, h5py.Group) else None
        if names is None:
            raise ValueError(f"{file.filename} has no group {folder!r}")
        # shorter names first, so that S_2 is before S_10
        available = sorted(names, key=lambda name: (len(name), name))
        slides = available if slides is None else slides
        require_entries(folder, available, slides, error=KeyError)
    if not slides:
        raise ValueError(f"no slides to read from {file.filename}")
    _validate.unique_names(slides, what="slides")
    return slides


def _read_spots(file: h5py.File, name: str) -> pd.DataFrame:
    with reading(Path(file.filename)):
        dataset = file[name]
    if not isinstance(dataset, h5py.Dataset) or dataset.ndim != 1:
        raise ValueError(f"{name} of {file.filename} is not a table of spots, but {dataset}")
    with reading(Path(file.filename)):
        values = dataset[()]
    columns = {field: values[field] for field in values.dtype.names or ()}
    require_entries(name, columns, ["x", "y"])
    nested = [field for field, x in columns.items() if x.ndim > 1]
    if nested:
        raise ValueError(f"fields of {name} have several values per spot: {listing(nested)}")
    text = {field: x.astype(str) for field, x in columns.items() if x.dtype.kind == "S"}  # bytes
    return pd.DataFrame({**columns, **text})


def _cell_types(fields: pd.DataFrame) -> list[str]:
    return [name for name in fields if re.fullmatch(r"C\d+", name)]


def _mpp(positions: NDArray[np.float64], pitch_um: float, slide: str) -> float:
    """Derive the µm per pixel from the mean distance between neighbours on the grid."""
    _validate.not_empty(slide, len(positions))
    usable = (np.abs(positions) < _FAR_PX).all(axis=1)  # not NaN
    tree = cKDTree(np.unique(positions[usable], axis=0))
    if tree.n < 3:
        raise ValueError(f"slide {slide!r} has {tree.n} spots, too few to derive mpp. Set mpp=")
    nearest = np.median(tree.query(tree.data, k=2)[0][:, 1])
    # the second-nearest distance is 1.73 pitches on a hexagonal grid, 1.41 on a square one
    first, second = tree.query_pairs(1.25 * nearest, output_type="ndarray").T
    distances = np.linalg.norm(tree.data[first] - tree.data[second], axis=1)
    mean, deviation = distances.mean(), distances.std()
    if deviation > _SCATTER * mean:
        apart = f"neighbours are {mean:.1f} ± {deviation:.1f} px apart"
        raise ValueError(f"spots of slide {slide!r} are not on a grid: {apart}. Set mpp=")
    mpp = float(pitch_um / mean)
    apart = f"neighbouring spots are {mean:.1f} px apart; at {pitch_um:g} µm"
    info(f"{slide}: {apart} that is {mpp:.3g} µm per pixel")
    return mpp
