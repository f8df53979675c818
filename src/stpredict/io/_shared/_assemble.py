"""Assemble the image, positions and counts of one section into a SpatialData."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata.utils import make_index_unique
from geopandas import GeoDataFrame
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, ShapesModel, TableModel
from spatialdata.transformations import Scale

from stpredict import _keys, _validate
from stpredict._log import info
from stpredict.io._shared._image import CHUNK_PX, open_image

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import dask.array as da
    from numpy.typing import NDArray
    from xarray import DataTree

#: The pyramid ends at the first level whose shorter side is below this number of pixels.
COARSEST_PX = 1024


def assemble_section(
    section: str,
    *,
    image: str | Path | NDArray[Any] | da.Array,
    counts: NDArray[Any] | sp.spmatrix | sp.sparray,
    obs_names: Iterable[object],
    var_names: Iterable[object],
    positions: NDArray[np.floating],
    mpp: float,
    diameter_um: float | NDArray[np.floating] | None = None,
    polygons: NDArray[np.object_] | None = None,
    patient: str | None = None,
    obs: pd.DataFrame | None = None,
    var: pd.DataFrame | None = None,
) -> SpatialData:
    """Check the image, positions and values of one section, and assemble its SpatialData.

    Positions (n_obs, 2) are x and y in pixels of the image. Spots are circles of ``diameter_um``,
    a number or (n_obs,), or else ``polygons``, (n_obs,) in pixels. ``counts``, n_obs × n_vars, may
    be any non-negative values. ``obs`` and ``var`` hold further columns, in the order of
    ``obs_names`` (unique within the section) and ``var_names``.

    Returns
    -------
    SpatialData
        ``images[f"{section}_image"]`` (multiscale, lazy), ``shapes[section]`` (in pixels)
        and ``tables["table"]`` (CSR float32 counts). Both elements have a transformation to the
        µm coordinate system ``f"{section}_um"``.

    Raises
    ------
    ValueError
        If counts are negative or NaN, spot ids are not unique, positions lie outside the image,
        or the section has no spots.
    """
    pixels = open_image(image)
    spot_ids = pd.Index([str(name) for name in obs_names])
    _validate.positive("mpp", mpp, unit="µm per pixel")
    _validate.not_empty(section, len(spot_ids))
    if polygons is None:
        smallest: Any = diameter_um.min() if isinstance(diameter_um, np.ndarray) else diameter_um
        _validate.positive("diameter_um", smallest, unit="µm")
    _validate.unique_names(spot_ids, what=f"spot ids of section {section!r}")
    _validate.counts(counts, what=f"values of section {section!r}")
    _validate.inside_image(positions, pixels.shape[1:], section=section)
    to_um = {_keys.um(section): Scale([mpp, mpp], axes=("x", "y"))}
    if polygons is not None:
        outlines = GeoDataFrame(geometry=polygons, index=spot_ids)
        shapes = ShapesModel.parse(outlines, transformations=to_um)
    else:
        shapes = ShapesModel.parse(
            np.asarray(positions, dtype=float),
            geometry=0,  # circles
            radius=np.asarray(diameter_um) / mpp / 2,
            index=spot_ids,
            transformations=to_um,
        )
    genes = _unique_genes(section, pd.Index([str(name) for name in var_names]))
    table = ad.AnnData(
        X=sp.csr_matrix(counts, dtype=np.float32, copy=True),
        obs=_obs(section, spot_ids, patient, obs),
        var=pd.DataFrame(index=genes) if var is None else var.set_axis(genes),
        obsm={_keys.SPATIAL: np.asarray(positions, dtype=np.float64)},
    )
    table = TableModel.parse(
        table, region=section, region_key=_keys.REGION, instance_key=_keys.INSTANCE
    )
    return SpatialData(
        images={_keys.image(section): _multiscale(pixels, to_um)},
        shapes={section: shapes},
        tables={"table": table},
    )


def _multiscale(pixels: da.Array, transformations: dict[str, Scale]) -> DataTree:
    n_levels = int(np.ceil(np.log2(min(pixels.shape[1:]) / COARSEST_PX)))
    return Image2DModel.parse(
        pixels,
        dims=("c", "y", "x"),
        c_coords=["r", "g", "b"],
        scale_factors=[2] * max(1, n_levels),  # at least one, so that every image is a pyramid
        chunks=(3, CHUNK_PX, CHUNK_PX),
        transformations=transformations,
    )


def _obs(
    section: str, spot_ids: pd.Index, patient: str | None, obs: pd.DataFrame | None
) -> pd.DataFrame:
    columns = pd.DataFrame(index=f"{section}_" + spot_ids)  # unique over sections
    columns[_keys.REGION] = pd.Categorical([section] * len(columns))
    columns[_keys.INSTANCE] = list(spot_ids)
    if patient is not None:
        columns[_keys.PATIENT] = pd.Categorical([patient] * len(columns))
    if obs is None:
        return columns
    return columns.join(obs.drop(columns=columns.columns, errors="ignore").set_axis(columns.index))


def _unique_genes(section: str, names: pd.Index) -> pd.Index:
    repeated = names[names.duplicated()].unique()
    if repeated.empty:
        return names
    info(
        f"{section}: {len(repeated)} of {names.nunique()} gene names occur more than once and are "
        f"made unique, as in {repeated[0]}-1: {_validate.listing(repeated)}"
    )
    return make_index_unique(names)
