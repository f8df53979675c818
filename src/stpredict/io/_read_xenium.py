"""Read 10x Xenium, through spatialdata-io, on its H&E image."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from geopandas import GeoSeries
from numpy.typing import NDArray
from spatialdata import SpatialData

from stpredict import _validate
from stpredict._arguments import checked
from stpredict._sdata._elements import scale_of
from stpredict.io._shared._assemble import assemble_section, log_left_out, name_genes
from stpredict.io._shared._files import (
    check_10x,
    number_columns,
    read_json,
    reading,
    require_file,
    require_folder,
)
from stpredict.io._shared._image import open_image
from stpredict.io._shared._plausible import require_plausible_mpp

_SPECS = "experiment.xenium"
_CELLS = "cells.parquet"
_COUNTS = "cell_feature_matrix.h5"
_MOST_INVALID = 0.1  # share of boundaries apart from their cells above which all must be wrong
_HE = "he_image.ome.tif"
_OTHER_ALIGNMENT = "Is the alignment the inverse, or of another image?"
# Elements that spatialdata-io would also read.
_OTHERS = "nucleus_boundaries cells_labels nucleus_labels transcripts morphology_mip"
_NOT_READ = dict.fromkeys([*_OTHERS.split(), "morphology_focus", "aligned_images"], False)


@checked
def read_xenium(
    path: str | Path,
    *,
    section: str,
    patient: str | None = None,
    image: str | Path | None = None,
    alignment: str | Path | NDArray[np.floating] | None = None,
    shapes: Literal["boundaries", "circles"] = "boundaries",
    gene_names: Literal["symbols", "ids"] = "symbols",
) -> SpatialData:
    """Read the cells of a Xenium section on the H&E image that was taken afterwards.

    Control probes and codewords are not kept as genes. Cells outside the image, for example where
    it covers less than the Xenium scan, are left out, and their number is logged.

    Parameters
    ----------
    path
        Xenium's output folder, with ``experiment.xenium``, ``cells.parquet``, ``cells.zarr.zip``,
        ``cell_feature_matrix.h5`` and ``cell_boundaries.parquet``.
    section, patient
        Name of the section, and of the patient for ``obs["patient"]``.
    image
        H&E image. By default the file in the folder whose name ends with ``he_image.ome.tif``.
    alignment
        Matrix, 3 × 3, from pixels of the H&E image to pixels of the Xenium morphology image
        (0.2125 µm each): an array, or a CSV file from Xenium Explorer or Xenium Ranger, by default
        next to the image with a name that ends with ``he_imagealignment.csv``.
    shapes
        Cells as the polygons of their boundaries, or as circles of the same area.
    gene_names
        Index of the genes, made unique; ``var`` has both ``"gene_symbols"`` and ``"gene_ids"``.

    Returns
    -------
    SpatialData
        ``images[f"{section}_image"]`` (3, y, x) uint8, lazy, ``shapes[section]`` polygons or
        circles, ``tables["table"]`` n_cells × n_genes counts with the columns of
        ``cells.parquet`` (``obs["x_centroid"]`` and ``obs["y_centroid"]`` in µm of the scan). Names
        of cells outside the image are in ``uns["stpredict"]["outside_image"]``.

    Raises
    ------
    FileNotFoundError
        If the folder, one of its files, the image or its alignment does not exist.
    ValueError
        If a file is damaged or lists other cells, the alignment is no invertible 3 × 3 matrix or
        stretches the axes differently, µm per pixel are not plausible (0.05 to 20), most cells lie
        outside the image, or it is not 8-bit RGB.

    References
    ----------
    https://www.10xgenomics.com/support/software/xenium-onboard-analysis/latest/analysis/xoa-output-at-a-glance

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.io.read_xenium("outs", section="X1")  # doctest: +SKIP
    """
    # check everything before reading anything
    path = require_folder(path)
    for name in (_SPECS, _CELLS, "cells.zarr.zip", _COUNTS):
        require_file(path / name)
    if shapes == "boundaries":
        require_file(path / "cell_boundaries.parquet", hint='shapes="circles" does not need it')
    images = sorted(path.glob(f"*{_HE}")) if image is None else [image]
    if len(images) != 1:
        raise FileNotFoundError(f"{path} has {len(images)} H&E images *{_HE}. Set image=")
    image = require_file(images[0])
    to_morphology = _alignment(image, alignment)
    pixel_size = read_json(path / _SPECS, ["pixel_size"])["pixel_size"]
    # pixels of the H&E image -> pixels of the morphology image -> µm
    to_um = np.diag([pixel_size, pixel_size, 1]) @ to_morphology
    mpp = scale_of(to_um, what="the H&E image")
    require_plausible_mpp(mpp, hint=_OTHER_ALIGNMENT)
    pixels = open_image(image)

    cells = _read_cells(path, boundaries=shapes == "boundaries")
    table = cells.tables["table"]
    var = name_genes(table.var, table.var_names, gene_names)
    centroids_um = np.asarray(table.obsm["spatial"], dtype=float)
    from_um = np.linalg.inv(to_um)
    positions = centroids_um @ from_um[:2, :2].T + from_um[:2, 2]
    keep = np.ones(len(positions), dtype=bool)
    diameter_um = polygons = None
    if shapes == "boundaries":
        a, b, x, d, e, y = from_um[:2].ravel()  # shapely has another order
        outlines = cells.shapes["cell_boundaries"].geometry.affine_transform([a, b, d, e, x, y])
        outlines = outlines.set_axis(outlines.index.astype(str)).reindex(table.obs_names)
        keep = _has_boundary(outlines, positions, section)
        polygons = outlines.to_numpy()[keep]
    else:
        diameter_um = 2 * np.sqrt(table.obs["cell_area"].to_numpy(dtype=float)[keep] / np.pi)
    obs = table.obs.assign(x_centroid=centroids_um[:, 0], y_centroid=centroids_um[:, 1])
    return assemble_section(
        section,
        image=pixels,
        counts=table.X[keep],
        positions=positions[keep],
        mpp=mpp,
        diameter_um=diameter_um,
        polygons=polygons,
        patient=patient,
        outside="drop",
        outside_hint=_OTHER_ALIGNMENT,
        obs=obs.drop(columns=["region", "cell_id"])[keep],
        var=var,
    )


def _read_cells(path: Path, *, boundaries: bool) -> SpatialData:
    """Read the counts and metadata of all cells, and their boundaries."""
    import spatialdata_io

    check_10x(path / _COUNTS)
    with reading(path / _CELLS):
        metadata = pd.read_parquet(path / _CELLS)
    number_columns(path / _CELLS, metadata, ["x_centroid", "y_centroid", "cell_area"])
    with warnings.catch_warnings(), reading(path):
        warnings.filterwarnings("ignore", "Variable names are not unique", UserWarning)
        warnings.filterwarnings("error", ".*cell_id.* does not match", UserWarning)
        cells = spatialdata_io.xenium(
            path, cells_boundaries=boundaries, cells_as_circles=True, **_NOT_READ
        )
    # spatialdata-io compares only a sample of the ids
    table = cells.tables["table"]
    if not np.array_equal(table.obs["cell_id"].astype(str), table.obs_names):
        raise ValueError(f"{path}: {_CELLS} and {_COUNTS} list different cells")
    return cells


def _has_boundary(
    outlines: GeoSeries, positions: NDArray[np.float64], section: str
) -> NDArray[np.bool_]:
    """Whether cells have a boundary around their position, as nearly all with a boundary must."""
    exists = outlines.notna().to_numpy()
    with np.errstate(invalid="ignore"):  # NaN vertices
        centroids, radius = outlines.centroid, np.sqrt(outlines.area / np.pi)
    # NaN and an area of zero are invalid
    distance = np.hypot(centroids.x - positions[:, 0], centroids.y - positions[:, 1])
    valid = np.asarray((distance < 2 * radius) & np.isfinite(radius))
    n_invalid = int((exists & ~valid & np.isfinite(positions).all(axis=1)).sum())
    if n_invalid > _MOST_INVALID * exists.sum() or not exists.any():
        raise ValueError(
            f"{n_invalid} of {exists.sum()} boundaries in section {section!r} are not around the "
            "centroid of their cell. Check that cell_boundaries.parquet belongs to cells.parquet"
        )
    log_left_out(section, ~valid, "cells have no boundary around their centroid")
    return valid


def _alignment(
    image: Path, alignment: str | Path | NDArray[np.floating] | None
) -> NDArray[np.floating]:
    """Matrix (3, 3) from pixels of the H&E image to pixels of the morphology image."""
    if alignment is not None and not isinstance(alignment, str | Path):
        source, matrix = "alignment", np.asarray(alignment)
    else:
        if alignment is None:
            alignment = image.with_name(image.name.removesuffix(".ome.tif") + "alignment.csv")
        source = str(require_file(alignment, hint="Set alignment= to another file or an array"))
        with reading(Path(source)):
            matrix = pd.read_csv(source, header=None).to_numpy()
    if matrix.dtype.kind not in "biuf":
        raise ValueError(
            f"{source} is not a matrix of numbers, it begins with "
            f"{_validate.listing(matrix.ravel(), most=4)}. Export the matrix, not the keypoints"
        )
    matrix = np.asarray(matrix, dtype=float)
    shape, last_row = matrix.shape, matrix[-1:]
    if shape != (3, 3) or not np.isfinite(matrix).all() or not np.allclose(last_row, [0, 0, 1]):
        raise ValueError(
            f"{source} must be a finite 3 × 3 matrix with the last row 0, 0, 1: {matrix.tolist()}"
        )
    return matrix
