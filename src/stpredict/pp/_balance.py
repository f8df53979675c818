"""Weights by which training draws kinds of tissue alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scanpy as sc
from anndata import AnnData

from stpredict import _keys, _validate
from stpredict._log import tell
from stpredict._sdata import _provenance, _sections
from stpredict.pp._expression._pca import section_pca

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from spatialdata import SpatialData

#: Neighbours in the graph that is clustered, as scanpy's default.
_N_NEIGHBORS = 15


def balance(
    sdata: SpatialData,
    *,
    by: str | Sequence[str] | None = None,
    resolution: float = 1.0,
    seed: int = 0,
    copy: bool = False,
) -> SpatialData | None:
    """Weigh spots so that rare kinds of tissue are seen in training as often as common ones.

    No spot is removed or repeated: the weights go to ``stp.tl.fit_*(sample_weight=…)``, which
    draws training rows by them. By default, the spots of each section are clustered by expression
    (Leiden on the 50 first principal components of ``layers["log1p"]``, through scanpy) and its
    clusters weigh alike, while a section weighs as much as it has spots.

    Parameters
    ----------
    sdata
        Training sections.
    by
        Instead of clusters: a column of ``obs`` whose groups weigh alike, such as ``"region"`` for
        sections, or several columns, whose combinations that occur do.
    resolution
        Of Leiden: higher gives more clusters.
    seed
        Of the components, the graph and the clustering. Same seed, same weights.
    copy
        Return a changed copy instead of changing ``sdata``.

    Returns
    -------
    SpatialData | None
        Writes ``obs["sampling_weight"]`` (float64, mean 1) of ``tables["table"]`` and
        ``uns["stpredict"]["balance"]``.

    Raises
    ------
    KeyError
        If ``layers["log1p"]``, or a column, is not there.
    ValueError
        If there is a single cluster in a section, or a single group; spots have no group; or the
        layer has NaN.

    References
    ----------
    Traag et al., From Louvain to Leiden: guaranteeing well-connected communities, Scientific
    Reports 2019.

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom()
    >>> stp.pp.balance(sdata, by="region_truth")
    balance: 4 groups of region_truth, weights from ... to ...
    >>> weight = sdata.tables["table"].obs["sampling_weight"]
    >>> by_region = weight.groupby(sdata.tables["table"].obs["region_truth"], observed=True).sum()
    >>> bool(by_region.std() < 1e-6)
    True
    """
    _validate.positive("resolution", resolution)
    sdata = _sections.copy_of(sdata) if copy else sdata
    table = _sections.table_of(sdata)
    if by is None:
        weight, n_groups = _by_cluster(table, resolution=resolution, seed=seed)
        how: dict[str, Any] = {"resolution": float(resolution), "seed": seed}
        what = "clusters of expression"
    else:
        columns = [by] if isinstance(by, str) else list(by)
        labels = _labels(table, columns)
        weight, n_groups = _alike(labels), [int(labels.max()) + 1]
        how = {"by": columns}
        what = f"groups of {' × '.join(columns)}"
    table.obs[_keys.SAMPLING_WEIGHT] = weight
    _provenance.record(table, "balance", **how, n_groups=n_groups)
    tell(
        f"balance: {_validate.listing(n_groups)} {what}, weights from {weight.min():.2g} to "
        f"{weight.max():.2g}"
    )
    return sdata if copy else None


def _alike(labels: NDArray[np.intp]) -> NDArray[np.float64]:
    """Weights of mean 1 by which every label weighs alike; labels count from 0."""
    size = np.bincount(labels)
    weight: NDArray[np.float64] = len(labels) / (len(size) * size[labels])
    return weight


def _by_cluster(
    table: AnnData, *, resolution: float, seed: int
) -> tuple[NDArray[np.float64], list[int]]:
    values = _sections.layer_of(table, _keys.LOG1P)
    region = _sections.region_of(table)
    weight, n_groups = np.empty(table.n_obs), []
    for section in _sections.section_names(table):
        rows = np.flatnonzero(region == section)
        components = section_pca(values, rows, section=section, seed=seed)
        labels = _cluster(components, resolution=resolution, seed=seed)
        if labels.max() == 0:
            raise ValueError(
                f"the {len(rows)} spots of section {section!r} form a single cluster at "
                f"resolution={resolution:g}: there is nothing to balance. Give a higher "
                'resolution=, or a column of obs, for instance by="region" for sections'
            )
        weight[rows] = _alike(labels)
        n_groups.append(int(labels.max()) + 1)
    return weight, n_groups


def _cluster(components: NDArray[np.float32], *, resolution: float, seed: int) -> NDArray[np.intp]:
    """Leiden clusters, counted from 0."""
    bare = AnnData(obs=pd.DataFrame(index=np.arange(len(components)).astype(str)))
    bare.obsm["X_pca"] = components
    sc.pp.neighbors(
        bare,
        n_neighbors=min(_N_NEIGHBORS, len(components) - 1),
        use_rep="X_pca",
        random_state=seed,
    )
    sc.tl.leiden(
        bare,
        resolution=resolution,
        flavor="igraph",
        n_iterations=2,
        directed=False,
        random_state=seed,
    )
    return np.asarray(bare.obs["leiden"].cat.codes, dtype=np.intp)


def _labels(table: AnnData, columns: list[str]) -> NDArray[np.intp]:
    """Group of every row by some columns, counted from 0."""
    if not columns:
        raise ValueError("by= is empty")
    absent = [column for column in columns if column not in table.obs]
    if absent:
        raise KeyError(
            f"by= names {_validate.listing(map(repr, absent))}, no column of obs: "
            f"{_validate.listing(table.obs.columns)}"
        )
    for column in columns:
        n_missing = int(table.obs[column].isna().sum())
        if n_missing:
            raise ValueError(f"{n_missing} rows have no group in obs[{column!r}]")
    grouped = table.obs.groupby(columns, observed=True, sort=False)
    labels = grouped.ngroup().to_numpy().astype(np.intp)
    if labels.max() == 0:
        raise ValueError(
            f"there is a single group by {_validate.listing(map(repr, columns))}: there is nothing "
            "to balance"
        )
    return labels
