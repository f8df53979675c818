"""Counts, positions and image of Space Ranger's output, with spots or with bins."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import scanpy as sc
import shapely
from anndata import AnnData
from spatialdata import SpatialData

from stpredict._log import info
from stpredict.io._shared._assemble import assemble_section, name_genes
from stpredict.io._shared._image import open_image

HIRES = "tissue_hires_image.png"
HINT = "Pass the full-resolution image as fullres_image="
#: Columns of the file of positions; in pixels x, y.
ARRAY = ["array_row", "array_col"]
PIXELS = ["pxl_col_in_fullres", "pxl_row_in_fullres"]


def read_counts(file: Path) -> AnnData:
    """Read the counts of genes, without controls; symbols are as written and may be repeated."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Variable names are not unique", UserWarning)
        if file.suffix == ".h5":
            return sc.read_10x_h5(file)
        prefix = file.name.removesuffix("matrix.mtx.gz")
        return sc.read_10x_mtx(file.parent, prefix=prefix, make_unique=False)


def select_positions(positions: pd.DataFrame, barcodes: pd.Index, *, what: str) -> pd.DataFrame:
    """Rows of the spots or bins with counts, in the order of the counts."""
    absent = barcodes[~barcodes.isin(positions.index)]
    if len(absent):
        raise ValueError(
            f"{len(absent)} of {len(barcodes)} {what} have counts but no position, such as "
            f"{absent[0]}. Check that counts and positions belong to the same section"
        )
    return positions.loc[barcodes]


def assemble_spots(
    section: str,
    table: AnnData,
    spots: pd.DataFrame,  # positions in pixels of the full resolution, and further columns of obs
    *,
    image: Path,
    hires: Path,
    scale: float,  # pixels of the hires image per pixel of the full resolution
    mpp: float,  # of the full resolution
    diameter_um: float,
    squares: bool = False,
    gene_names: str,
    patient: str | None,
) -> SpatialData:
    """Place spots or bins on the full-resolution image, or else on the hires image."""
    positions = spots[PIXELS].to_numpy(dtype=float)
    if image == hires:
        positions, mpp = positions * scale, mpp / scale
        info(f"{section}: no fullres_image=, using the hires image ({mpp:.2f} µm per pixel)")
    elif hires.is_file():  # it implies the size of the full resolution
        size = np.array(open_image(image).shape[1:])
        expected = np.array(open_image(hires).shape[1:]) / scale
        # 1 % for scale factors with few digits, 2 px of the hires image for rounding
        if np.any(np.abs(size - expected) > 0.01 * expected + 2 / scale):
            raise ValueError(
                f"fullres_image {image} has {size[1]} × {size[0]} px, but {hires.name} belongs to "
                f"an image of about {expected[1]:.0f} × {expected[0]:.0f} px. Pass the image that "
                "Space Ranger used"
            )
    low, high = (positions + sign * diameter_um / mpp / 2 for sign in (-1, 1))
    return assemble_section(
        section,
        image=image,
        counts=table.X,
        positions=positions,
        mpp=mpp,
        diameter_um=diameter_um,
        polygons=shapely.box(*low.T, *high.T) if squares else None,
        patient=patient,
        obs=table.obs.join(spots.drop(columns=PIXELS)),
        var=name_genes(table.var, table.var_names, gene_names),
    )
