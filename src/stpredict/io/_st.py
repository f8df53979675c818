"""Legacy Spatial Transcriptomics (Ståhl et al., Science 2016)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.sparse as sp
from scipy.stats import theilslopes

from stpredict._log import tell
from stpredict._validate import positive
from stpredict.io._assemble import assemble_section

if TYPE_CHECKING:
    from spatialdata import SpatialData

#: Pitches in x and y that differ by more than this share are told.
_PITCH_TOLERANCE = 0.02


def read_st(
    counts: str | Path,
    image: str | Path,
    spots: str | Path,
    *,
    section: str,
    patient: str | None = None,
    pitch_um: float = 200.0,
    diameter_um: float = 100.0,
) -> SpatialData:
    """Read a section of legacy Spatial Transcriptomics.

    The µm per pixel follow from the spot file: the slope of the pixel positions over the array
    positions, by Theil and Sen, so that a few misplaced spots do not matter, is the pitch in
    pixels.

    Parameters
    ----------
    counts
        Table of counts, tab-separated, spots (``10x13``: column and row of the array) × genes;
        may be gzipped.
    image
        H&E image, TIFF, JPEG or PNG.
    spots
        Spot file, tab-separated, with the columns ``x``, ``y`` (array), ``pixel_x``,
        ``pixel_y``, and if present ``new_x``, ``new_y`` (adjusted array positions) and
        ``selected`` (0: not on tissue, left out).
    section
        Name of the section.
    patient
        Name of the patient, for ``obs["patient"]``.
    pitch_um
        Distance between the centres of neighbouring spots in µm.
    diameter_um
        Diameter of a spot in µm.

    Returns
    -------
    SpatialData
        ``images[f"{section}_image"]`` (3, y, x) uint8, ``shapes[section]`` circles,
        ``tables["table"]`` n_spots × n_genes counts with ``obs["array_x"]``, ``obs["array_y"]``;
        µm per pixel as transformations to ``f"{section}_um"``.

    Raises
    ------
    ValueError
        If the spot file lacks a column, counts are negative or NaN, spot ids repeat, a spot lies
        outside the image, or no spot has both counts and a position.

    References
    ----------
    Ståhl et al., Visualization and analysis of gene expression in tissue sections by spatial
    transcriptomics, Science 2016.

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.io.read_st(
    ...     "ST-cnts/C2.tsv.gz",
    ...     "ST-imgs/C/C2/5714_HE_BT_C2.jpg",
    ...     "ST-spotfiles/C2_selection.tsv",
    ...     section="C2",
    ... )  # doctest: +SKIP
    """
    positive("pitch_um", pitch_um, unit="µm")
    table = pd.read_csv(counts, sep="\t", index_col=0, low_memory=False)
    positions = _read_spots(spots)
    mpp = _mpp(positions, pitch_um=pitch_um, section=section)
    if "selected" in positions:
        positions = positions[positions["selected"] == 1]
    common = [name for name in table.index if name in positions.index]
    if not common:
        raise ValueError(
            f"section {section!r}: no spot of {counts} ({len(table)}, such as "
            f"{str(table.index[0]) if len(table) else 'none'!r}) is in {spots} "
            f"({len(positions)} selected spots)"
        )
    dropped = len(table) - len(common)
    if dropped:
        tell(f"{section}: {dropped} of {len(table)} spots have no selected position, left out")
    placed = positions.loc[common]
    return assemble_section(
        section,
        image=image,
        counts=sp.csr_matrix(table.loc[common].to_numpy(dtype=np.float32)),
        obs_names=common,
        var_names=list(table.columns),
        positions=placed[["pixel_x", "pixel_y"]].to_numpy(dtype=float),
        mpp=mpp,
        diameter_um=diameter_um,
        patient=patient,
        obs=placed[["x", "y"]].set_axis(["array_x", "array_y"], axis=1),
    )


def _read_spots(path: str | Path) -> pd.DataFrame:
    spots = pd.read_csv(path, sep="\t")
    missing = [name for name in ("x", "y", "pixel_x", "pixel_y") if name not in spots]
    if missing:
        raise ValueError(f"{path} has no column {missing}; columns: {list(spots.columns)}")
    spots.index = pd.Index(spots["x"].astype(str) + "x" + spots["y"].astype(str))
    if not spots.index.is_unique:
        repeated = spots.index[spots.index.duplicated()].tolist()
        raise ValueError(f"{path} names spots more than once: {repeated[:8]}")
    return spots


def _mpp(spots: pd.DataFrame, *, pitch_um: float, section: str) -> float:
    pitches = []
    for axis in ("x", "y"):
        array = spots[f"new_{axis}" if f"new_{axis}" in spots else axis]
        usable = array.notna() & spots[f"pixel_{axis}"].notna()
        if array[usable].nunique() < 2:
            raise ValueError(
                f"section {section!r}: the spot file has fewer than two array positions in "
                f"{axis}, so the µm per pixel cannot be derived"
            )
        pitches.append(theilslopes(spots[f"pixel_{axis}"][usable], array[usable]).slope)
    pitch_x, pitch_y = np.abs(pitches)
    if abs(pitch_x - pitch_y) > _PITCH_TOLERANCE * max(pitch_x, pitch_y):
        tell(
            f"{section}: the spot pitch is {pitch_x:.1f} px in x and {pitch_y:.1f} px in y; "
            "is the image stretched, or the spot file of another image?"
        )
    return float(pitch_um / np.sqrt(pitch_x * pitch_y))
