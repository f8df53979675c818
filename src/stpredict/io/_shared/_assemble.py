"""Assemble the image, positions and counts of one section into a SpatialData."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import anndata as ad
import dask.array as da
import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata.utils import make_index_unique
from geopandas import GeoDataFrame, points_from_xy
from numpy.typing import NDArray
from spatialdata import SpatialData
from spatialdata.models import ShapesModel, TableModel
from spatialdata.transformations import Scale

from stpredict import _keys, _validate
from stpredict._log import info
from stpredict._sdata._provenance import record
from stpredict._sdata._pyramid import multiscale_image
from stpredict.io._shared._image import open_image
from stpredict.io._shared._plausible import require_plausible_mpp, warn_implausible_mpp
from stpredict.io._shared._windows import Pyramid

_MOST_OUTSIDE = 0.5  # share of spots outside the image above which the positions must be wrong


def assemble_section(
    section: str,
    *,
    image: str | Path | NDArray[Any] | da.Array | Pyramid,
    counts: NDArray[Any] | sp.spmatrix | sp.sparray,  # (n_obs, n_vars), not negative
    positions: NDArray[np.floating],  # (n_obs, 2): x, y in pixels of the image
    mpp: float,
    diameter_um: float | NDArray[np.floating] | None = None,  # of circles: one, or (n_obs,)
    polygons: NDArray[np.object_] | None = None,  # (n_obs,) in pixels, instead of circles
    patient: str | None = None,
    obs: pd.DataFrame | None = None,  # index: unique within the section
    var: pd.DataFrame | None = None,  # index: made unique
    obs_names: Iterable[object] = (),  # index without further columns, if obs is None
    var_names: Iterable[object] = (),
    outside: Literal["error", "drop"] = "error",  # for spots without a position in the image
    outside_hint: str = "Are x and y swapped?",
    check_mpp: bool = True,
) -> SpatialData:
    """Check the image, positions and values of one section, and assemble its SpatialData."""
    _validate.slot_name("section", section)
    opened = open_image(image)
    pixels = opened.levels[0]
    obs = pd.DataFrame(index=[*obs_names]) if obs is None else obs
    var = pd.DataFrame(index=[*var_names]) if var is None else var
    spot_ids = pd.Index(map(str, obs.index))
    genes = _unique_genes(section, pd.Index(map(str, var.index)))
    if check_mpp:
        require_plausible_mpp(mpp)
    _validate.not_empty(section, len(spot_ids))
    if polygons is None:
        smallest: Any = diameter_um.min() if isinstance(diameter_um, np.ndarray) else diameter_um
        _validate.positive("diameter_um", smallest, unit="µm")
    _validate.unique_names(spot_ids, what=f"spot ids of section {section!r}")
    _validate.counts(counts, what=f"values of section {section!r}")
    inside = _validate.is_inside(positions, pixels.shape[1:])
    if outside == "error" or np.mean(~inside) > _MOST_OUTSIDE:
        remedy = ' To drop such spots: outside="drop"' if outside == "error" else ""
        hint = outside_hint + remedy
        _validate.inside_image(positions, pixels.shape[1:], section=section, hint=hint)
    if check_mpp:
        diameter = None if diameter_um is None else float(np.median(diameter_um))
        warn_implausible_mpp(section, mpp, pixels, centers=positions[inside], diameter_um=diameter)
    to_um = {_keys.um(section): Scale([mpp, mpp], axes=("x", "y"))}
    if polygons is not None:
        outlines = GeoDataFrame(geometry=polygons, index=spot_ids)
    else:
        outlines = GeoDataFrame(geometry=points_from_xy(*np.transpose(positions)), index=spot_ids)
        outlines["radius"] = np.asarray(diameter_um) / mpp / 2
    shapes = ShapesModel.parse(outlines[inside], transformations=to_um)
    table = ad.AnnData(
        X=_float_counts(counts),
        obs=_obs(section, spot_ids, patient, obs),
        var=var.set_axis(genes),
        obsm={_keys.SPATIAL: np.asarray(positions, dtype=np.float64)},
    )
    if not inside.all():
        log_left_out(section, ~inside, "spots or cells have no position in the image")
        table = table[inside].copy()
        record(table, _keys.OUTSIDE, **{section: spot_ids[~inside].to_numpy(dtype=str)})
    table = TableModel.parse(
        table, region=section, region_key=_keys.REGION, instance_key=_keys.INSTANCE
    )
    pyramid = multiscale_image(opened.levels, to_um)
    return SpatialData(
        images={_keys.image(section): pyramid}, shapes={section: shapes}, tables={"table": table}
    )


def _float_counts(counts: Any) -> sp.csr_matrix:
    """Copy counts as float32, in which each entry is stored once."""
    matrix = sp.csr_matrix(counts, dtype=np.float32, copy=True)
    matrix.sum_duplicates()  # else logarithms are taken of parts of a count
    return matrix


def _obs(section: str, spot_ids: pd.Index, patient: str | None, obs: pd.DataFrame) -> pd.DataFrame:
    columns = pd.DataFrame(index=f"{section}_" + spot_ids)  # unique over sections
    columns[_keys.REGION] = pd.Categorical([section] * len(columns))
    columns[_keys.INSTANCE] = list(spot_ids)
    if patient is not None:
        columns[_keys.PATIENT] = pd.Categorical([patient] * len(columns))
    return columns.join(obs.drop(columns=columns.columns, errors="ignore").set_axis(columns.index))


def log_left_out(section: str, rows: NDArray[np.bool_], what: str) -> None:
    """Log the number of spots or cells that are not read, if any."""
    if rows.any():
        info(f"{section}: {rows.sum()} of {len(rows)} {what} and are left out")


def _unique_genes(section: str, names: pd.Index) -> pd.Index:
    repeated = names[names.duplicated()].unique()
    if repeated.empty:
        return names
    info(
        f"{section}: {len(repeated)} of {names.nunique()} gene names occur more than once and are "
        f"made unique, as in {repeated[0]}-1: {_validate.listing(repeated)}"
    )
    return make_index_unique(names)


def name_genes(var: pd.DataFrame, symbols: Iterable[str], gene_names: str) -> pd.DataFrame:
    """Keep the symbols as a column, and index genes by symbol or id; names may be repeated."""
    if var.empty:
        raise ValueError("the counts have no features of the type Gene Expression")
    var = var.assign(**{_keys.GENE_SYMBOLS: list(symbols)})
    if gene_names == "ids" and _keys.GENE_IDS not in var:
        raise KeyError('the file has no Ensembl ids. Use gene_names="symbols"')
    names = var[_keys.GENE_SYMBOLS if gene_names == "symbols" else _keys.GENE_IDS]
    return var.set_axis(names.astype(str).to_numpy())
