"""Read 10x Xenium, through spatialdata-io, on its H&E image."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from stpredict import _validate
from stpredict._log import info
from stpredict._sdata._elements import scale_of
from stpredict.io._shared._assemble import assemble_section
from stpredict.io._shared._files import require_file, require_folder
from stpredict.io._shared._genes import name_genes
from stpredict.io._shared._image import open_image

if TYPE_CHECKING:
    from geopandas import GeoDataFrame, GeoSeries
    from numpy.typing import NDArray
    from spatialdata import SpatialData

_SPECS = "experiment.xenium"
_BOUNDARIES = "cell_boundaries.parquet"
_HE = "he_image.ome.tif"
#: Share of cells outside the image above which the alignment is assumed to be wrong.
_MAX_OUTSIDE = 0.5


def read_xenium(
    path: str | Path,
    *,
    section: str,
    image: str | Path | None = None,
    alignment: str | Path | NDArray[np.floating] | None = None,
    shapes: Literal["boundaries", "circles"] = "boundaries",
    gene_names: Literal["symbols", "ids"] = "symbols",
    patient: str | None = None,
) -> SpatialData:
    """Read the cells of a Xenium section on the H&E image that was taken afterwards.

    Cells are transformed to pixels of the H&E image by the inverse of its alignment matrix.
    Control probes and codewords are not kept as genes. Cells outside the image, for example where
    it covers less than the Xenium scan, are left out, and their number is logged.

    Parameters
    ----------
    path
        Xenium's output folder, with ``experiment.xenium``, ``cells.parquet``, ``cells.zarr.zip``,
        ``cell_feature_matrix.h5`` and ``cell_boundaries.parquet``.
    section
        Name of the section.
    image
        H&E image. By default the file in the folder whose name ends with ``he_image.ome.tif``.
    alignment
        Matrix, 3 × 3, from pixels of the H&E image to pixels of the Xenium morphology image
        (0.2125 µm each), as a CSV file from Xenium Explorer or Xenium Ranger, or as an array. By
        default the file in the image's folder whose name ends with ``he_imagealignment.csv``. Use
        ``numpy.eye(3)`` if the image has the pixels of the morphology image.
    shapes
        Cells as the polygons of their boundaries, or as circles of the same area.
    gene_names
        Index of the genes. ``var["gene_symbols"]`` and ``var["gene_ids"]`` (Ensembl) keep both.
        Repeated symbols are made unique.
    patient
        Name of the patient, for ``obs["patient"]``.

    Returns
    -------
    SpatialData
        ``images[f"{section}_image"]`` (3, y, x) uint8, lazy, ``shapes[section]`` polygons or
        circles, ``tables["table"]`` n_cells × n_genes counts with the columns of
        ``cells.parquet``, among them ``obs["x_centroid"]`` and ``obs["y_centroid"]`` in µm of the
        Xenium scan. The µm per pixel are derived from the alignment.

    Raises
    ------
    FileNotFoundError
        If the folder, one of its files, the image or its alignment does not exist.
    ValueError
        If the alignment is not an invertible 3 × 3 matrix or stretches the axes differently, most
        cells lie outside the image, or the image is not 8-bit RGB.

    References
    ----------
    https://www.10xgenomics.com/support/software/xenium-onboard-analysis/latest/analysis/xoa-output-at-a-glance

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.io.read_xenium(
    ...     "outs", section="X1", image="X1_he_image.ome.tif", alignment="X1_alignment.csv"
    ... )  # doctest: +SKIP
    """
    # check everything before reading anything
    _validate.one_of("shapes", shapes, ["boundaries", "circles"])
    _validate.one_of("gene_names", gene_names, ["symbols", "ids"])
    path = require_folder(path)
    with_boundaries = shapes == "boundaries"
    for name in (_SPECS, "cells.parquet", "cells.zarr.zip", "cell_feature_matrix.h5"):
        require_file(path / name)
    if with_boundaries:
        require_file(path / _BOUNDARIES, hint='shapes="circles" does not need it')
    image = _he_image(path) if image is None else require_file(image)
    to_morphology = _alignment(image, alignment)
    pixel_size = json.loads((path / _SPECS).read_bytes()).get("pixel_size")
    _validate.positive(f"pixel_size in {path / _SPECS}", pixel_size, unit="µm")
    # pixels of the H&E image -> pixels of the morphology image -> µm
    to_um = np.diag([pixel_size, pixel_size, 1]) @ to_morphology
    mpp = scale_of(to_um, what="the H&E image")
    pixels = open_image(image)

    cells = _read_cells(path, with_boundaries=with_boundaries)
    table = cells.tables["table"]
    var = name_genes(table.var, table.var_names, gene_names)
    centroids_um = np.asarray(table.obsm["spatial"], dtype=float)
    from_um = np.linalg.inv(to_um)
    positions = centroids_um @ from_um[:2, :2].T + from_um[:2, 2]
    keep = _inside(positions, pixels.shape[1:], section)
    diameter_um = polygons = None
    if with_boundaries:
        outlines = _outlines(cells.shapes["cell_boundaries"], table.obs_names, from_um)
        has_outline = outlines.notna().to_numpy()
        if not has_outline.all():
            info(
                f"{section}: {(~has_outline).sum()} of {len(table)} cells have no boundary and are "
                "left out"
            )
        keep &= has_outline
        polygons = outlines.to_numpy()[keep]
    else:
        diameter_um = 2 * np.sqrt(table.obs["cell_area"].to_numpy(dtype=float)[keep] / np.pi)
    obs = table.obs.assign(x_centroid=centroids_um[:, 0], y_centroid=centroids_um[:, 1])
    return assemble_section(
        section,
        image=pixels,
        counts=table.X[keep],
        obs_names=table.obs_names[keep],
        var_names=var.index,
        positions=positions[keep],
        mpp=mpp,
        diameter_um=diameter_um,
        polygons=polygons,
        patient=patient,
        obs=obs.drop(columns=["region", "cell_id"])[keep],
        var=var,
    )


def _he_image(path: Path) -> Path:
    images = sorted(path.glob(f"*{_HE}"))
    if len(images) != 1:
        raise FileNotFoundError(f"{path} has {len(images)} H&E images *{_HE}. Set image=")
    return images[0]


def _alignment(
    image: Path, alignment: str | Path | NDArray[np.floating] | None
) -> NDArray[np.floating]:
    """Matrix (3, 3) from pixels of the H&E image to pixels of the morphology image."""
    if isinstance(alignment, np.ndarray):
        source, matrix = "alignment", alignment
    else:
        if alignment is None:
            alignment = image.with_name(image.name.removesuffix(".ome.tif") + "alignment.csv")
        source = str(require_file(alignment, hint="Set alignment= to another file or an array"))
        matrix = pd.read_csv(source, header=None).to_numpy()
    try:
        matrix = np.asarray(matrix, dtype=float)
    except ValueError:
        raise ValueError(
            f"{source} is not a matrix of numbers, it begins with {_validate.listing(matrix[0])}. "
            "Export the matrix, not the keypoints"
        ) from None
    if (
        matrix.shape != (3, 3)
        or not np.isfinite(matrix).all()
        or not np.allclose(matrix[2], [0, 0, 1])
    ):
        raise ValueError(
            f"{source} must be a finite 3 × 3 matrix with the last row 0, 0, 1: {matrix.tolist()}"
        )
    return matrix


def _read_cells(path: Path, *, with_boundaries: bool) -> SpatialData:
    import spatialdata_io

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Variable names are not unique", UserWarning)
        return spatialdata_io.xenium(
            path,
            cells_boundaries=with_boundaries,
            nucleus_boundaries=False,
            cells_as_circles=True,
            cells_labels=False,
            nucleus_labels=False,
            transcripts=False,
            morphology_mip=False,
            morphology_focus=False,
            aligned_images=False,
        )


def _inside(
    positions: NDArray[np.float64], shape_yx: tuple[int, ...], section: str
) -> NDArray[np.bool_]:
    height, width = shape_yx
    inside = np.all((positions >= 0) & (positions <= (width, height)), axis=1)
    n_outside = int((~inside).sum())
    if n_outside > _MAX_OUTSIDE * len(positions):
        low, high = positions.min(axis=0), positions.max(axis=0)
        raise ValueError(
            f"{n_outside} of {len(positions)} cells of section {section!r} lie outside the H&E "
            f"image of {width} × {height} px: x from {low[0]:.0f} to {high[0]:.0f}, y from "
            f"{low[1]:.0f} to {high[1]:.0f}. Check that the alignment is not the inverse, or of "
            "another image"
        )
    if n_outside:
        info(
            f"{section}: {n_outside} of {len(positions)} cells lie outside the image and are left "
            "out"
        )
    return np.asarray(inside)


def _outlines(shapes: GeoDataFrame, cells: pd.Index, affine: NDArray[np.floating]) -> GeoSeries:
    """Boundaries in pixels of the image, by cell; None for a cell without a boundary."""
    a, b, x, d, e, y = affine[:2].ravel()
    outlines = shapes.geometry.affine_transform([a, b, d, e, x, y])  # shapely's order
    return outlines.set_axis(outlines.index.astype(str)).reindex(cells)
