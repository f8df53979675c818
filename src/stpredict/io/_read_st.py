"""Read legacy Spatial Transcriptomics."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import dask.array as da
import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.stats import theilslopes
from spatialdata import SpatialData

from stpredict import _validate
from stpredict._arguments import checked
from stpredict._log import info
from stpredict.io._shared._assemble import assemble_section, log_left_out
from stpredict.io._shared._files import (
    number_columns,
    reading,
    require_entries,
    require_file,
)

_PITCH_TOLERANCE = 0.02  # relative difference between x and y above which a message is logged
# Distance from the grid, in pitches, that nine of ten spots must keep. On HER2ST without adjusted
# array positions it is 0.22; an image that is rotated by 2° adds 0.5.
_OFF_GRID = 0.75


@checked
def read_st(
    counts: str | Path,
    image: str | Path | NDArray[Any] | da.Array,
    spots: str | Path,
    *,
    section: str,
    patient: str | None = None,
    pitch_um: float = 200.0,
    diameter_um: float = 100.0,
    outside: Literal["error", "drop"] = "error",
) -> SpatialData:
    r"""Read a section of legacy Spatial Transcriptomics.

    The µm per pixel are derived from the spot file: the pitch in pixels is the Theil-Sen slope of
    pixel positions over array positions, which is robust to a few misplaced spots.

    Parameters
    ----------
    counts
        Tab-separated table of counts, spots (``10x13``: column and row of the array) × genes,
        optionally gzipped.
    image
        H&E image: a TIFF, JPEG or PNG file, read as by `read_slide`, or an array (y, x, 3) or
        (3, y, x).
    spots
        Tab-separated spot file with the columns ``x``, ``y`` (array), ``pixel_x``,
        ``pixel_y``, and optionally ``new_x``, ``new_y`` (adjusted array positions) and
        ``selected`` (0: not on tissue, left out).
    section, patient
        Name of the section, and of the patient for ``obs["patient"]``.
    pitch_um, diameter_um
        Distance between the centres of neighbouring spots, and their diameter, in µm.
    outside
        Whether spots without a position in the image raise an error or are dropped. Names of
        dropped spots are in ``uns["stpredict"]["outside_image"]``.

    Returns
    -------
    SpatialData
        ``images[f"{section}_image"]`` (3, y, x) uint8, ``shapes[section]`` circles,
        ``tables["table"]`` n_spots × n_genes counts with ``obs["array_x"]``, ``obs["array_y"]``.

    Raises
    ------
    FileNotFoundError
        If a file does not exist.
    ValueError
        If a file is damaged, the spot file lacks a column, pixel positions do not follow the array,
        counts are negative or NaN, spot ids are not unique, a spot lies outside the image, or no
        spot has both counts and a position.
    TypeError
        If counts or positions are not numbers.

    References
    ----------
    Ståhl et al., Visualization and analysis of gene expression in tissue sections by spatial
    transcriptomics, Science 2016.

    Examples
    --------
    >>> import numpy as np, pandas as pd, stpredict as stp
    >>> from tempfile import mkdtemp
    >>> folder = mkdtemp()
    >>> spots = pd.DataFrame({"x": [2, 3, 2, 3], "y": [2, 2, 3, 3]})
    >>> spots["pixel_x"], spots["pixel_y"] = 20 * spots["x"], 20 * spots["y"]
    >>> spots.to_csv(f"{folder}/spots.tsv", sep="\t", index=False)
    >>> counts = pd.DataFrame({"ERBB2": [4, 0, 1, 2]}, index=["2x2", "3x2", "2x3", "3x3"])
    >>> counts.to_csv(f"{folder}/counts.tsv", sep="\t")
    >>> image = np.full((100, 100, 3), 255, dtype=np.uint8)
    >>> sdata = stp.io.read_st(f"{folder}/counts.tsv", image, f"{folder}/spots.tsv", section="C2")
    >>> sdata.tables["table"].to_df()["ERBB2"].tolist()
    [4.0, 0.0, 1.0, 2.0]
    """
    _validate.positive("pitch_um", pitch_um, unit="µm")
    table = _read_tsv(counts, index_col=0)
    number_columns(counts, table, list(table))
    positions = _read_tsv(spots)
    array_columns = [f"new_{axis}" if f"new_{axis}" in positions else axis for axis in "xy"]
    require_entries(spots, positions, ["x", "y"])
    array = number_columns(spots, positions, array_columns)
    pixels = number_columns(spots, positions, ["pixel_x", "pixel_y"])
    positions.index = pd.Index(positions["x"].astype(str) + "x" + positions["y"].astype(str))
    _validate.unique_names(positions.index, what=f"spot ids in {spots}")
    mpp = _mpp(array, pixels, pitch_um, section)
    if "selected" in positions:
        positions = positions[positions["selected"] == 1]
    has_position = table.index.isin(positions.index)
    if not has_position.any():
        ids = (_validate.listing(index, most=2) for index in (table.index, positions.index))
        raise ValueError(
            f"section {section!r}: no spot of {counts} has a selected position in {spots}. Spot "
            f"ids are {' and '.join(ids)}"
        )
    log_left_out(section, ~has_position, "spots have no selected position")
    table = table[has_position]
    positions = positions.loc[table.index]
    return assemble_section(
        section,
        image=image,
        counts=sp.csr_matrix(table.to_numpy(dtype=np.float32)),
        var_names=table.columns,
        positions=positions[["pixel_x", "pixel_y"]].to_numpy(dtype=float),
        mpp=mpp,
        diameter_um=diameter_um,
        patient=patient,
        outside=outside,
        obs=positions[["x", "y"]].set_axis(["array_x", "array_y"], axis=1),
    )


def _read_tsv(file: str | Path, **options: Any) -> pd.DataFrame:
    with reading(require_file(file)):
        return pd.read_csv(file, sep="\t", low_memory=False, **options)


def _mpp(
    array: NDArray[np.float64], pixels: NDArray[np.float64], pitch_um: float, section: str
) -> float:
    """Derive µm per pixel from the positions of spots on the array and in the image, (n, 2)."""
    pitches = []
    for axis, array_axis, pixel_axis in zip("xy", array.T, pixels.T, strict=True):
        usable = np.isfinite(array_axis) & np.isfinite(pixel_axis)
        if len(np.unique(array_axis[usable])) < 2:
            few = f"the spot file has fewer than two array positions in {axis}"
            raise ValueError(f"section {section!r}: {few}, µm per pixel need at least two")
        line = theilslopes(pixel_axis[usable], array_axis[usable])
        off_line = pixel_axis - line.intercept - line.slope * array_axis
        deviation, pitch = np.quantile(np.abs(off_line[usable]), 0.9), abs(line.slope)
        if not deviation < _OFF_GRID * pitch:
            raise ValueError(
                f"section {section!r}: pixel_{axis} does not follow {axis} of the array, one spot "
                f"in ten is at least {deviation:.0f} px off a grid with a pitch of {pitch:.1f} px. "
                "Are pixel_x and pixel_y swapped?"
            )
        pitches.append(pitch)
    pitch_x, pitch_y = pitches
    if abs(pitch_x - pitch_y) > _PITCH_TOLERANCE * max(pitch_x, pitch_y):
        info(
            f"{section}: the spot pitch is {pitch_x:.1f} px in x and {pitch_y:.1f} px in y. Check "
            "that the spot file belongs to this image"
        )
    return float(pitch_um / np.sqrt(pitch_x * pitch_y))
