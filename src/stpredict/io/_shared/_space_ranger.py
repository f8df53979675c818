"""Counts, positions and image of Space Ranger's output, with spots or with bins."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import shapely
from anndata import AnnData
from spatialdata import SpatialData

from stpredict._log import info
from stpredict._sdata._elements import scale_of
from stpredict._validate import listing
from stpredict.io._shared._assemble import assemble_section, name_genes
from stpredict.io._shared._files import check_10x, number_columns, reading
from stpredict.io._shared._image import open_image

HIRES = "tissue_hires_image.png"
HINT = "Pass the full-resolution image as fullres_image="
_OFF_ARRAY_UM = 50.0  # largest distance of a spot from its place on the array
#: Columns of the file of positions; in pixels x, y.
ARRAY = ["array_row", "array_col"]
PIXELS = ["pxl_col_in_fullres", "pxl_row_in_fullres"]


def read_counts(file: Path) -> AnnData:
    """Read the counts of genes, without controls; symbols are as written and may be repeated."""
    import scanpy as sc

    if file.suffix == ".h5":
        check_10x(file)
    with warnings.catch_warnings(), reading(file):
        warnings.filterwarnings("ignore", "Variable names are not unique", UserWarning)
        if file.suffix == ".h5":
            return sc.read_10x_h5(file)
        prefix = file.name.removesuffix("matrix.mtx.gz")
        return sc.read_10x_mtx(file.parent, prefix=prefix, make_unique=False)


def select_positions(positions: pd.DataFrame, barcodes: pd.Index, *, what: str) -> pd.DataFrame:
    """Rows of the spots or bins with counts, in the order of the counts."""
    repeated = positions.index[positions.index.duplicated()].unique()
    if len(repeated):
        raise ValueError(f"{what} have more than one position: {listing(repeated)}")
    absent = barcodes[~barcodes.isin(positions.index)]
    if len(absent):
        raise ValueError(
            f"{len(absent)} of {len(barcodes)} {what} have counts but no position, such as "
            f"{absent[0]}. Check that counts and positions belong to the same section"
        )
    return positions.loc[barcodes]


def fit_array(spots: pd.DataFrame, *, steps_um: tuple[float, float]) -> float:
    """µm per pixel, from an affine fit of pixel positions to rows and columns of the array."""
    usable = spots[[*ARRAY, *PIXELS]].dropna()
    positions = number_columns("the file of positions", usable, PIXELS)
    array_um = number_columns("the file of positions", usable, ARRAY) * steps_um
    design = np.column_stack([array_um[:, ::-1], np.ones(len(usable))])
    affine, _, rank, _ = np.linalg.lstsq(design, positions, rcond=None)
    if rank < 3:
        raise ValueError(f"no µm per pixel can be derived: {len(usable)} spots lie in one line")
    off_grid = np.linalg.norm(design @ affine - positions, axis=1)
    px_per_um = float(np.sqrt(abs(np.linalg.det(affine[:2]))))
    if not off_grid.max() < _OFF_ARRAY_UM * px_per_um + 1:  # a pixel for rounding
        raise ValueError(
            f"pixel positions do not follow the array: {usable.index[off_grid.argmax()]} is "
            f"{off_grid.max():.0f} px off the array at {px_per_um:.3g} px per µm. Check the "
            "columns of the file of positions"
        )
    # refuses rows and columns that are swapped, too
    return 1 / scale_of(affine[:2].T.astype(float), what="the array")


def assemble_spots(
    section: str,
    table: AnnData,
    spots: pd.DataFrame,  # positions in pixels of the full resolution, and further columns of obs
    *,
    fullres_image: str | Path | None,
    hires: Path,
    scale: float,  # pixels of the hires image per pixel of the full resolution
    mpp: float,  # of the full resolution
    diameter_um: float,
    squares: bool = False,
    gene_names: str,
    patient: str | None,
    outside: Literal["error", "drop"],
) -> SpatialData:
    """Place spots or bins on the full-resolution image, or else on the hires image."""
    positions = number_columns("the file of positions", spots, PIXELS)
    image = Path(fullres_image or hires)
    if hires.is_file() and image.samefile(hires):
        positions, mpp = positions * scale, mpp / scale
        reason = "fullres_image= is" if fullres_image else "no fullres_image=, using"
        info(f"{section}: {reason} the hires image ({mpp:.2f} µm per pixel)")
    elif hires.is_file():  # it implies the size of the full resolution
        size = np.array(open_image(image).shape_yx)
        expected = np.array(open_image(hires).shape_yx) / scale
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
        outside=outside,
        obs=table.obs.join(spots.drop(columns=PIXELS)),
        var=name_genes(table.var, table.var_names, gene_names),
    )
