"""Weight training spots so that kinds of tissue count equally."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scanpy as sc
from anndata import AnnData

from stpredict import _keys, _validate
from stpredict._log import info
from stpredict._sdata._provenance import record_step
from stpredict._sdata._spot_table import open_table
from stpredict._sdata._steps import BalanceStep
from stpredict.pp._expression._pca import section_pca

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from spatialdata import SpatialData

    from stpredict._sdata._spot_table import SpotTable

#: Neighbours in the graph that is clustered, as scanpy's default.
_N_NEIGHBORS = 15


def balance(
    sdata: SpatialData,
    *,
    by: str | Sequence[str] | None = None,
    resolution: float = 1.0,
    seed: int = 0,
    table_name: str = "table",
    key_added: str = "sampling_weight",
    copy: bool = False,
) -> SpatialData | None:
    """Weight spots so that training samples rare kinds of tissue as often as common ones.

    No spot is removed or repeated: the weights go to ``stp.tl.fit_*(sample_weight=…)``, which
    samples training rows by them. By default, the spots of each section are clustered by expression
    (Leiden on the first 50 principal components of ``layers["log1p"]``, with scanpy). Clusters of a
    section get equal weight, and the weight of a section is proportional to its number of spots.

    Parameters
    ----------
    sdata
        Training sections.
    by
        Column of ``obs`` whose groups get equal weight, such as ``"region"`` for sections, instead
        of clusters; or several columns, whose combinations are the groups.
    resolution
        Resolution of Leiden clustering; higher gives more clusters.
    seed
        Random seed of the components, the graph and the clustering. Same seed, same weights.
    table_name
        Name of the table.
    key_added
        Column of ``obs`` to write. Only the default is recorded as a step that cross-validation
        repeats.
    copy
        Return a changed copy instead of changing ``sdata``.

    Returns
    -------
    SpatialData | None
        Writes ``obs[key_added]`` (float64, mean 1) of ``tables[table_name]`` and
        ``uns["stpredict"]["balance"]``.

    Raises
    ------
    KeyError
        If ``layers["log1p"]`` or a column is missing.
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
    columns = None
    if by is not None:
        columns = tuple(_validate.name_list("by", [by] if isinstance(by, str) else by))
    spots = open_table(sdata, table_name, copy=copy)
    step = (
        BalanceStep(resolution=float(resolution), seed=seed)
        if columns is None
        else BalanceStep(by=columns)
    )
    weight_spots(spots, step, key_added=key_added)
    return spots.sdata if copy else None


def weight_spots(
    spots: SpotTable, step: BalanceStep, *, key_added: str = _keys.SAMPLING_WEIGHT
) -> None:
    """Write the sampling weights of an opened table."""
    if step.by is None:
        weight, n_groups = _cluster_weights(spots, step)
        groups = "clusters of expression"
    else:
        labels = _group_labels(spots.table, list(step.by))
        weight, n_groups = _equal_weights(labels), [int(labels.max()) + 1]
        groups = f"groups of {' × '.join(step.by)}"
    spots.table.obs[key_added] = weight
    # there is one record, which describes the default weights
    if key_added == _keys.SAMPLING_WEIGHT:
        record_step(spots.table, step, n_groups=n_groups)
    info(
        f"balance: {_validate.listing(n_groups)} {groups}, weights from {weight.min():.2g} to "
        f"{weight.max():.2g}"
    )


def _equal_weights(labels: NDArray[np.intp]) -> NDArray[np.float64]:
    """Weights of mean 1 that sum to the same value for each label; labels count from 0."""
    size = np.bincount(labels)
    weight: NDArray[np.float64] = len(labels) / (len(size) * size[labels])
    return weight


def _cluster_weights(spots: SpotTable, step: BalanceStep) -> tuple[NDArray[np.float64], list[int]]:
    """Weights by expression clusters within sections, and the number of clusters of each."""
    values = spots.layer(_keys.LOG1P)
    seed = step.seed or 0
    weight, n_groups = np.empty(spots.table.n_obs), []
    for section, rows in spots.section_rows.items():
        components = section_pca(values, rows, section=section, seed=seed)
        labels = _leiden(components, resolution=step.resolution or 1.0, seed=seed)
        if labels.max() == 0:
            raise ValueError(
                f"the {len(rows)} spots of section {section!r} form a single cluster at "
                f"resolution={step.resolution:g}. Give a higher resolution=, or a column of obs, "
                'for instance by="region" for sections'
            )
        # mean 1 within the section, so that its total weight is its number of spots
        weight[rows] = _equal_weights(labels)
        n_groups.append(int(labels.max()) + 1)
    return weight, n_groups


def _leiden(components: NDArray[np.float32], *, resolution: float, seed: int) -> NDArray[np.intp]:
    """Leiden clusters, counted from 0."""
    bare = AnnData(obs=pd.DataFrame(index=np.arange(len(components)).astype(str)))
    bare.obsm["X_pca"] = components
    sc.pp.neighbors(
        bare,
        n_neighbors=min(_N_NEIGHBORS, len(components) - 1),
        use_rep="X_pca",
        random_state=seed,
    )
    # igraph with two iterations: scanpy's recommended, faster backend
    sc.tl.leiden(
        bare,
        resolution=resolution,
        flavor="igraph",
        n_iterations=2,
        directed=False,
        random_state=seed,
    )
    return np.asarray(bare.obs["leiden"].cat.codes, dtype=np.intp)


def _group_labels(table: AnnData, columns: list[str]) -> NDArray[np.intp]:
    """Group of every row by some columns, counted from 0."""
    absent = [column for column in columns if column not in table.obs]
    if absent:
        raise KeyError(
            f"obs has no column {_validate.listing(map(repr, absent))} (by=); columns: "
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
            f"all rows are in a single group by {_validate.listing(map(repr, columns))}, so that "
            "nothing can be balanced"
        )
    return labels
