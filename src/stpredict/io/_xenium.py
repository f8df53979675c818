"""10x Xenium, through spatialdata-io, on its H&E image."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from stpredict import _validate
from stpredict._log import tell
from stpredict.io._assemble import assemble_section
from stpredict.io._genes import GeneNames, check_gene_names, named_genes
from stpredict.io._image import open_image

if TYPE_CHECKING:
    from geopandas import GeoDataFrame
    from numpy.typing import NDArray
    from spatialdata import SpatialData

_SPECS = "experiment.xenium"
_BOUNDARIES = "cell_boundaries.parquet"
_FILES = (_SPECS, "cells.parquet", "cells.zarr.zip", "cell_feature_matrix.h5")
_HE = "he_image.ome.tif"
#: An alignment that stretches one axis beyond this share more than the other is none of a slide.
_STRETCH = 0.02
#: Cells beyond the image are left out, unless they are more than this share of all.
_OUTSIDE = 0.5


def read_xenium(
    path: str | Path,
    *,
    section: str,
    image: str | Path | None = None,
    alignment: str | Path | NDArray[np.floating] | None = None,
    shapes: Literal["boundaries", "circles"] = "boundaries",
    gene_names: GeneNames = "symbols",
    patient: str | None = None,
) -> SpatialData:
    """Read the cells of a Xenium section and the H&E image that was made of it afterwards.

    Cells come to lie in pixels of the H&E image, by the inverse of its alignment matrix. Control
    probes and codewords are left out of the genes. Cells beyond the image, as where it covers
    less than the Xenium scan, are left out and told.

    Parameters
    ----------
    path
        Xenium's output folder, with ``experiment.xenium``, ``cells.parquet``, ``cells.zarr.zip``,
        ``cell_feature_matrix.h5`` and ``cell_boundaries.parquet``.
    section
        Name of the section.
    image
        H&E image; by default the one in the folder whose name ends with ``he_image.ome.tif``.
    alignment
        Matrix, 3 × 3, that takes pixels of the H&E image to pixels of the Xenium morphology image
        (0.2125 µm each), as a CSV file from Xenium Explorer or Xenium Ranger, or as an array; by
        default the file beside the image whose name ends with ``he_imagealignment.csv``. Where the
        image lies on the morphology image pixel by pixel: ``numpy.eye(3)``.
    shapes
        Cells as the polygons of their boundaries, or as circles of their area.
    gene_names
        What the genes are indexed by; ``var["gene_symbols"]`` and ``var["gene_ids"]`` (Ensembl)
        keep both. Names that repeat are made unique.
    patient
        Name of the patient, for ``obs["patient"]``.

    Returns
    -------
    SpatialData
        ``images[f"{section}_image"]`` (3, y, x) uint8, lazy, ``shapes[section]`` polygons or
        circles, ``tables["table"]`` n_cells × n_genes counts with the columns of
        ``cells.parquet``, among them ``obs["x_centroid"]`` and ``obs["y_centroid"]`` in µm of the
        Xenium scan; µm per pixel from the alignment.

    Raises
    ------
    FileNotFoundError
        If the folder, a file of it, the image or its alignment does not exist.
    ValueError
        If the alignment is no 3 × 3 matrix, not invertible, or stretches the axes differently,
        most cells lie outside the image, or the image is not 8-bit RGB.

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
    path = Path(path)
    _validate.one_of("shapes", shapes, ["boundaries", "circles"])
    check_gene_names(gene_names)
    _require_files(path, boundaries=shapes == "boundaries")
    image = _he_image(path, image)
    to_xenium = _alignment(image, alignment)
    pixel_size = json.loads((path / _SPECS).read_text(encoding="utf-8")).get("pixel_size")
    _validate.positive(f"pixel_size in {path / _SPECS}", pixel_size, unit="µm")
    pixels = open_image(image)

    cells = _cells(path, boundaries=shapes == "boundaries")
    table = cells.tables["table"]
    names, var = named_genes(table.var, table.var_names, gene_names=gene_names)
    # µm -> pixels of the morphology image -> pixels of the H&E image
    from_um: Any = np.linalg.inv(to_xenium) @ np.diag([1 / pixel_size, 1 / pixel_size, 1])
    um = np.asarray(table.obsm["spatial"], dtype=float)
    positions = um @ from_um[:2, :2].T + from_um[:2, 2]
    inside = _inside(positions, pixels.shape[1:], section=section)
    outlines = None
    if shapes == "boundaries":
        outlines = _outlines(cells.shapes["cell_boundaries"], table.obs_names, from_um)
        bounded = outlines.notna().to_numpy()
        if not bounded.all():
            tell(
                f"{section}: {int((~bounded).sum())} of {len(um)} cells have no boundary, left out"
            )
        inside &= bounded
    radius_um = np.sqrt(table.obs["cell_area"].to_numpy(dtype=float) / np.pi)
    obs = table.obs.assign(x_centroid=um[:, 0], y_centroid=um[:, 1])
    return assemble_section(
        section,
        image=pixels,
        counts=table.X[inside],
        obs_names=list(table.obs_names[inside]),
        var_names=names,
        positions=positions[inside],
        mpp=float(pixel_size * np.sqrt(abs(np.linalg.det(to_xenium)))),
        diameter_um=2 * radius_um[inside] if outlines is None else None,
        polygons=None if outlines is None else outlines.to_numpy()[inside],
        patient=patient,
        obs=obs.drop(columns=["region", "cell_id"])[inside],
        var=var,
    )


def _require_files(path: Path, *, boundaries: bool) -> None:
    if not path.is_dir():
        raise FileNotFoundError(f"there is no folder {path}")
    for name in (*_FILES, *([_BOUNDARIES] if boundaries else [])):
        if not (path / name).is_file():
            raise FileNotFoundError(
                f"{path} has no {name}"
                + ('; for circles none is needed: shapes="circles"' if name == _BOUNDARIES else "")
            )


def _he_image(path: Path, image: str | Path | None) -> Path:
    if image is not None:
        if not Path(image).is_file():
            raise FileNotFoundError(f"image {image} does not exist")
        return Path(image)
    found = sorted(path.glob(f"*{_HE}"))
    if len(found) != 1:
        raise FileNotFoundError(
            f"{path} has {len(found)} H&E images *{_HE}: give image= (the morphology image is no "
            "H&E)"
        )
    return found[0]


def _alignment(image: Path, alignment: Any) -> NDArray[np.float64]:
    if alignment is None:
        alignment = image.with_name(image.name.removesuffix(".ome.tif") + "alignment.csv")
        if not alignment.is_file():
            raise FileNotFoundError(
                f"there is no {alignment.name} beside {image}: give alignment=, a CSV file or an "
                "array; numpy.eye(3) if the image has the pixels of the morphology image"
            )
    source = "alignment" if isinstance(alignment, np.ndarray) else str(alignment)
    if not isinstance(alignment, np.ndarray):
        if not Path(alignment).is_file():
            raise FileNotFoundError(f"alignment {alignment} does not exist")
        alignment = pd.read_csv(alignment, header=None).to_numpy()
    try:
        matrix = np.asarray(alignment, dtype=float)
    except ValueError:
        raise ValueError(
            f"{source} is no matrix of numbers; it begins with "
            f"{_validate.listing(alignment[0])}: export the matrix, not the keypoints"
        ) from None
    affine = matrix.shape == (3, 3) and np.isfinite(matrix).all()
    if not affine or not np.allclose(matrix[2], [0, 0, 1]):
        raise ValueError(
            f"{source} must be an affine 3 × 3 matrix with the last row 0, 0, 1; it is "
            f"{' × '.join(map(str, matrix.shape))}: {matrix.tolist()}"
        )
    stretch = np.linalg.svd(matrix[:2, :2], compute_uv=False)
    if stretch[1] <= 1e-9 * stretch[0] or stretch[0] / stretch[1] > 1 + _STRETCH:
        raise ValueError(
            f"{source} stretches the axes by {stretch[0]:.4g} and {stretch[1]:.4g}: it cannot be "
            "inverted, or is no alignment of a slide: it must scale both alike"
        )
    return matrix


def _cells(path: Path, *, boundaries: bool) -> SpatialData:
    import spatialdata_io

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Variable names are not unique", UserWarning)
        return spatialdata_io.xenium(
            path,
            cells_boundaries=boundaries,
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
    positions: NDArray[np.float64], shape_yx: tuple[int, ...], *, section: str
) -> NDArray[np.bool_]:
    height, width = shape_yx
    inside = np.all((positions >= 0) & (positions <= (width, height)), axis=1)
    n_outside = int((~inside).sum())
    if n_outside > _OUTSIDE * len(positions):
        low, high = positions.min(axis=0), positions.max(axis=0)
        raise ValueError(
            f"{n_outside} of {len(positions)} cells of section {section!r} lie outside the H&E "
            f"image of {width} × {height} px: x from {low[0]:.0f} to {high[0]:.0f}, y from "
            f"{low[1]:.0f} to {high[1]:.0f}. Is the alignment the inverse, or that of another "
            "image?"
        )
    if n_outside:
        tell(f"{section}: {n_outside} of {len(positions)} cells lie outside the image, left out")
    return np.asarray(inside)


def _outlines(shapes: GeoDataFrame, cells: pd.Index, affine: NDArray[np.float64]) -> Any:
    """Boundaries in pixels of the image, by cell; None where there is none."""
    a, b, x, d, e, y = affine[:2].ravel()
    moved = shapes.geometry.affine_transform([a, b, d, e, x, y])
    return moved.set_axis(moved.index.astype(str)).reindex(cells)
