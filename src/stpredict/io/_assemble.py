"""Image, positions and counts of one section -> SpatialData."""

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
from stpredict._log import tell
from stpredict.io._image import CHUNK_PX, open_image

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import dask.array as da
    from numpy.typing import NDArray
    from xarray import DataTree

#: The pyramid ends at the first level whose shorter side is below this many pixels.
COARSEST_PX = 1024


def assemble_section(
    section: str,
    *,
    image: str | Path | NDArray[Any] | da.Array,
    counts: NDArray[Any] | sp.spmatrix | sp.sparray,
    obs_names: Sequence[str],
    var_names: Sequence[str],
    positions: NDArray[np.floating],
    mpp: float,
    diameter_um: float | NDArray[np.floating] | None = None,
    polygons: NDArray[np.object_] | None = None,
    patient: str | None = None,
    obs: pd.DataFrame | None = None,
    var: pd.DataFrame | None = None,
    layer: str | None = None,
    what: str = "counts",
) -> SpatialData:
    """Make the SpatialData of one section.

    Parameters
    ----------
    section
        Name of the section; its shapes element, and the prefix of its image.
    image
        8-bit RGB image: file or array.
    counts
        Counts, n_obs × n_vars.
    obs_names, var_names
        Spot ids, unique within the section, and gene names.
    positions
        Centres of the spots, (n_obs, 2), x and y in pixels of the image.
    mpp
        µm per pixel of the image.
    diameter_um
        Diameter of a spot in µm, one for all or (n_obs,).
    polygons
        Instead of a diameter: outlines in pixels of the image, (n_obs,) shapely polygons.
    patient
        Name of the patient, for ``obs["patient"]``.
    obs, var
        Further columns, in the order of ``obs_names`` and ``var_names``.
    layer
        Name of a layer with a copy of the counts.
    what
        What the counts are, for messages.

    Returns
    -------
    SpatialData
        ``images[f"{section}_image"]`` (multiscale, lazy), ``shapes[section]`` (in pixels)
        and ``tables["table"]`` (CSR float32 counts), both elements with a transformation to the
        µm coordinate system ``f"{section}_um"``.

    Raises
    ------
    ValueError
        If counts are negative or NaN, spot ids are not unique, positions lie outside the image,
        or there are no spots.
    """
    pixels = open_image(image)
    _validate.positive("mpp", mpp, unit="µm per pixel")
    _validate.not_empty(section, len(obs_names))
    if polygons is None:
        least: Any = diameter_um.min() if isinstance(diameter_um, np.ndarray) else diameter_um
        _validate.positive("diameter_um", least, unit="µm")
    _validate.unique_names(obs_names, what=f"spot ids of section {section!r}")
    _validate.counts(counts, what=f"{what} of section {section!r}")
    _validate.inside_image(positions, pixels.shape[1:], section=section)
    to_um = {_keys.um(section): Scale([mpp, mpp], axes=("x", "y"))}
    table = _table(
        section, counts, obs_names, var_names, positions, patient=patient, obs=obs, var=var
    )
    if layer is not None:
        table.layers[layer] = table.X.copy()
    return SpatialData(
        images={_keys.image(section): _multiscale(pixels, to_um)},
        shapes={
            section: _shapes(
                positions if polygons is None else polygons,
                None if diameter_um is None else diameter_um / mpp / 2,
                index=pd.Index([str(name) for name in obs_names]),
                transformations=to_um,
            )
        },
        tables={_keys.TABLE: table},
    )


def _shapes(
    where: NDArray[Any], radius_px: Any, *, index: pd.Index, transformations: dict[str, Any]
) -> GeoDataFrame:
    if where.dtype == object:
        outlines = GeoDataFrame(geometry=where, index=index)
        return ShapesModel.parse(outlines, transformations=transformations)
    return ShapesModel.parse(
        np.asarray(where, dtype=float),
        geometry=0,
        radius=radius_px,
        index=index,
        transformations=transformations,
    )


def _multiscale(pixels: da.Array, transformations: dict[str, Any]) -> DataTree:
    n_levels = int(max(0, np.ceil(np.log2(min(pixels.shape[1:]) / COARSEST_PX))))
    # one entry at least, so that every image is a pyramid, whatever its size
    return Image2DModel.parse(
        pixels,
        dims=("c", "y", "x"),
        c_coords=["r", "g", "b"],
        scale_factors=[2] * max(1, n_levels),
        chunks=(3, CHUNK_PX, CHUNK_PX),
        transformations=transformations,
    )


def _table(
    section: str,
    counts: NDArray[Any] | sp.spmatrix | sp.sparray,
    obs_names: Sequence[str],
    var_names: Sequence[str],
    positions: NDArray[np.floating],
    *,
    patient: str | None,
    obs: pd.DataFrame | None,
    var: pd.DataFrame | None,
) -> ad.AnnData:
    columns = pd.DataFrame(index=[f"{section}_{name}" for name in obs_names])
    columns[_keys.REGION] = pd.Categorical([section] * len(columns))
    columns[_keys.INSTANCE] = [str(name) for name in obs_names]
    if patient is not None:
        columns[_keys.PATIENT] = pd.Categorical([patient] * len(columns))
    if obs is not None:
        kept = obs.drop(columns=[c for c in obs.columns if c in columns.columns])
        columns = columns.join(kept.set_axis(columns.index))
    names = pd.Index([str(name) for name in var_names])
    repeated = names[names.duplicated()].unique()
    if len(repeated):
        tell(
            f"{section}: {len(repeated)} of {names.nunique()} names of genes occur more than once "
            f"and are made unique, as in {repeated[0]}-1: {_validate.listing(repeated)}"
        )
        names = make_index_unique(names)
    table = ad.AnnData(
        X=sp.csr_matrix(counts, dtype=np.float32, copy=True),
        obs=columns,
        var=pd.DataFrame(index=names) if var is None else var.set_axis(names),
        obsm={_keys.SPATIAL: np.asarray(positions, dtype=np.float64)},
    )
    return TableModel.parse(
        table, region=section, region_key=_keys.REGION, instance_key=_keys.INSTANCE
    )
