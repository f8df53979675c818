"""The HDF5 file of the EL Hackathon 2025: slides with cell-type abundances."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp
from scipy.spatial import cKDTree

from stpredict import _keys, _validate
from stpredict._log import tell
from stpredict.io._assemble import assemble_section
from stpredict.io._concat import concat
from stpredict.io._image import open_hdf5

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from spatialdata import SpatialData

_GROUPS = {"train": "Train", "test": "Test"}
_ABUNDANCE = re.compile(r"C\d+")
#: Standard deviation of the distance between neighbours, as a share of it, above which the spots
#: are no grid; rounding to whole pixels gives 0.03 at a pitch of 14 px.
_SCATTER = 0.1


def read_hackathon(
    path: str | Path,
    *,
    split: Literal["train", "test"] = "train",
    slides: Sequence[str] | None = None,
    mpp: float | None = None,
    pitch_um: float = 100.0,
    diameter_um: float = 55.0,
    patients: dict[str, str] | None = None,
) -> SpatialData:
    """Read slides of the EL Hackathon's HDF5 file: H&E images and cell-type abundances.

    Training and test slides are read apart: nothing is measured on the test slides, and an
    abundance that nobody measured is neither 0 nor NaN in a table. The table of the test slides
    has no columns; :func:`stpredict.tl.predict` needs none.

    Abundances are no counts. Train on ``layer="abundance"``, without
    :func:`stpredict.pp.normalize`, and filter spots with ``min_counts=0``.

    Parameters
    ----------
    path
        HDF5 file with ``images/Train/S_1``, … (y, x, 3) uint8, and ``spots/Train/S_1``, …
        structured arrays with the fields ``x``, ``y`` (pixels along the width and the height) and
        ``C1``, ``C2``, …; the same under ``Test``, with ``Test_Set`` in place of the abundances.
    split
        Which slides.
    slides
        Their names, such as ``["S_1", "S_3"]``; by default all of the split.
    mpp
        µm per pixel of the images. The file does not tell; by default it follows from the
        distance between neighbouring spots, slide by slide.
    pitch_um
        Distance between the centres of neighbouring spots in µm, used where ``mpp`` is not given.
    diameter_um
        Diameter of a spot in µm.
    patients
        Patient of each slide, where known, for ``obs["patient"]``.

    Returns
    -------
    SpatialData
        For each slide ``images["S_1_image"]`` (3, y, x) uint8, lazy, and ``shapes["S_1"]``
        circles; one ``tables["table"]`` n_spots × n_cell_types float32, and the same as
        ``layers["abundance"]``, rows in the order of the file; further fields, such as
        ``Test_Set``, in ``obs``.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    KeyError
        If the file has no such slide.
    ValueError
        If the file is not HDF5, lacks a group or a field, an image is not 8-bit RGB, spots lie
        outside it or on no grid, or abundances are negative or NaN, or of other cell types than
        those of another slide.

    References
    ----------
    https://www.kaggle.com/competitions/el-hackathon-2025

    Examples
    --------
    >>> import stpredict as stp
    >>> path = "elucidata_ai_challenge_data.h5"
    >>> train = stp.io.read_hackathon(path)  # doctest: +SKIP
    >>> test = stp.io.read_hackathon(path, split="test")  # doctest: +SKIP
    """
    path = Path(path)
    _validate.one_of("split", split, _GROUPS)
    if mpp is not None:
        _validate.positive("mpp", mpp, unit="µm per pixel")
    _validate.positive("pitch_um", pitch_um, unit="µm")
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    if not h5py.is_hdf5(path):
        raise ValueError(f"{path} is not an HDF5 file")
    with h5py.File(path, "r") as file:
        chosen = _slides(file, _GROUPS[split], slides)
        spots = {slide: _spots(file, _GROUPS[split], slide) for slide in chosen}
    images = {slide: open_hdf5(path, f"images/{_GROUPS[split]}/{slide}") for slide in chosen}
    unknown = sorted(set(patients or {}) - set(chosen))
    if unknown:
        raise KeyError(
            f"patients= names {_validate.listing(unknown)}; slides: {_validate.listing(chosen)}"
        )
    columns = {slide: _cell_types(table, slide, split) for slide, table in spots.items()}
    _require_alike(columns)
    sections = []
    for slide, table in spots.items():
        positions = table[["x", "y"]].to_numpy(dtype=float)
        _validate.not_empty(slide, len(positions))
        _validate.inside_image(positions, images[slide].shape[1:], section=slide)
        sections.append(
            assemble_section(
                slide,
                image=images[slide],
                counts=sp.csr_matrix(table[columns[slide]].to_numpy(dtype=np.float32)),
                obs_names=[str(i) for i in range(len(table))],
                var_names=columns[slide],
                positions=positions,
                mpp=_mpp(positions, pitch_um, slide=slide) if mpp is None else mpp,
                diameter_um=diameter_um,
                patient=None if patients is None else patients.get(slide, slide),
                obs=table.drop(columns=["x", "y", *columns[slide]]),
                layer=_keys.ABUNDANCE,
                what="abundances",
            )
        )
    return concat(sections)


def _slides(file: h5py.File, group: str, slides: Sequence[str] | None) -> list[str]:
    found: list[str] = []
    file.visit(found.append)
    for name in (f"images/{group}", f"spots/{group}"):
        if not isinstance(file.get(name), h5py.Group):
            raise ValueError(
                f"{file.filename} has no group {name!r}; it has {_validate.listing(found, most=12)}"
            )
    available = sorted(file[f"spots/{group}"], key=_natural)
    if isinstance(slides, str):
        raise ValueError(f"slides={slides!r} is one name; give a list: [{slides!r}]")
    chosen = available if slides is None else list(slides)
    if not chosen:
        raise ValueError(
            f"there are no slides to read; spots/{group} has {_validate.listing(available)}"
        )
    _validate.unique_names(chosen, what="slides")
    for kind in ("spots", "images"):
        absent = [slide for slide in chosen if slide not in file[f"{kind}/{group}"]]
        if absent:
            raise KeyError(
                f"{kind}/{group} has no {_validate.listing(absent)}; it has "
                f"{_validate.listing(sorted(file[f'{kind}/{group}'], key=_natural))}"
            )
    return chosen


def _natural(slide: str) -> list[tuple[int, str]]:
    """S_2 before S_10."""
    return [
        (int(part or 0), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", slide)
    ]


def _spots(file: h5py.File, group: str, slide: str) -> pd.DataFrame:
    fields = file[f"spots/{group}/{slide}"]
    names = (fields.dtype.names or ()) if isinstance(fields, h5py.Dataset) else ()
    missing = [name for name in ("x", "y") if name not in names]
    if missing:
        raise ValueError(
            f"spots/{group}/{slide} must be a structured array with the fields x and y; it has "
            + (f"the fields {_validate.listing(names)}" if names else "no fields")
        )
    values = fields[:]
    columns = {name: values[name] for name in names}
    return pd.DataFrame(
        {name: v.astype(str) if v.dtype.kind == "S" else v for name, v in columns.items()}
    )


def _cell_types(spots: pd.DataFrame, slide: str, split: str) -> list[str]:
    found = [name for name in spots if _ABUNDANCE.fullmatch(name)]
    if split == "train" and not found:
        raise ValueError(
            f"slide {slide!r} has no abundances C1, C2, …; fields: "
            f"{_validate.listing(spots.columns)}"
        )
    return found


def _require_alike(columns: dict[str, list[str]]) -> None:
    first, *others = columns
    for slide in others:
        if set(columns[slide]) != set(columns[first]):
            raise ValueError(
                f"slides {first!r} and {slide!r} have other cell types: "
                f"{_validate.listing(set(columns[first]) ^ set(columns[slide]))} in one of them"
            )


def _mpp(positions: NDArray[np.float64], pitch_um: float, *, slide: str) -> float:
    """Derive the µm per pixel from the mean distance between neighbours on the grid."""
    tree = cKDTree(np.unique(positions, axis=0))
    if tree.n < 3:
        raise ValueError(
            f"slide {slide!r} has {tree.n} spots, too few to derive the µm per pixel: give mpp="
        )
    nearest = np.median(tree.query(tree.data, k=2)[0][:, 1])
    # on a hexagonal grid the next distance is 1.73 pitches, on a square one 1.41
    first, second = tree.query_pairs(1.25 * nearest, output_type="ndarray").T
    apart = np.linalg.norm(tree.data[first] - tree.data[second], axis=1)
    if apart.std() > _SCATTER * apart.mean():
        raise ValueError(
            f"the spots of slide {slide!r} lie on no grid: neighbours are {apart.mean():.1f} ± "
            f"{apart.std():.1f} px apart, so the µm per pixel cannot be derived: give mpp="
        )
    mpp = float(pitch_um / apart.mean())
    tell(
        f"{slide}: neighbouring spots are {apart.mean():.1f} px apart; at {pitch_um:g} µm that is "
        f"{mpp:.3g} µm per pixel"
    )
    return mpp
