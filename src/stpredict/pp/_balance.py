"""Weight training spots so that kinds of tissue count equally."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from anndata import AnnData

from stpredict import _keys, _validate
from stpredict._arguments import checked
from stpredict._log import info
from stpredict._sdata._provenance import record_step
from stpredict._sdata._slots import check_slot, write_slot
from stpredict._sdata._spot_table import SpotTable, open_table, require_key
from stpredict._sdata._steps import BalanceStep
from stpredict.pp._expression._gene_scores import section_pca

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from spatialdata import SpatialData


@checked
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

    ``stp.tl.fit_*(sample_weight=…)`` samples training rows by the weights. By default, the spots of
    each section are clustered by expression (Leiden on the first 50 principal components of
    ``layers["log1p"]``, with scanpy), and the clusters of a section get equal weight.

    Parameters
    ----------
    sdata
        Training sections.
    by
        Column of ``obs``, or several, whose groups get equal weight, such as ``"region"``.
    resolution, seed
        Resolution of Leiden clustering (higher gives more clusters), and random seed.
    table_name, key_added, copy
        Name of the table; column of ``obs`` to write (only the default is recorded as a step
        that cross-validation repeats); and whether to change and return a copy.

    Returns
    -------
    SpatialData | None
        Writes ``obs[key_added]`` (float64, mean 1) and ``uns["stpredict"]["balance"]``.

    Raises
    ------
    KeyError
        If ``layers["log1p"]`` or a column is missing.
    ValueError
        If a section has a single cluster, there is a single group, groups or values are missing, or
        ``key_added`` is invalid or the name of your own column.

    References
    ----------
    Traag et al., From Louvain to Leiden, Scientific Reports 2019.

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom()
    >>> stp.pp.balance(sdata, by="region_truth")
    """
    _validate.positive("resolution", resolution)
    _validate.seed(seed)
    step = BalanceStep(resolution=float(resolution), seed=int(seed))
    if by is not None:
        columns = _validate.name_list("by", [by] if isinstance(by, str) else by)
        step = BalanceStep(by=tuple(columns))
    spots = open_table(sdata, table_name, copy=copy)
    check_slot(spots.table, "obs", key_added)
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
    write_slot(spots.table, "obs", key_added, weight)
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
                f"section {section!r} forms a single cluster at resolution={step.resolution:g}: "
                "give a higher resolution=, or by= with a column of obs"
            )
        # mean 1 within the section, so that its total weight is its number of spots
        weight[rows] = _equal_weights(labels)
        n_groups.append(int(labels.max()) + 1)
    return weight, n_groups


def _leiden(components: NDArray[np.float32], *, resolution: float, seed: int) -> NDArray[np.intp]:
    """Leiden clusters, counted from 0."""
    import scanpy as sc

    bare = AnnData(components)
    n_neighbors = min(15, len(components) - 1)  # scanpy's default
    sc.pp.neighbors(bare, n_neighbors=n_neighbors, use_rep="X", random_state=seed)
    # igraph with two iterations: scanpy's recommended, faster backend
    backend = {"flavor": "igraph", "n_iterations": 2, "directed": False}
    sc.tl.leiden(bare, resolution=resolution, random_state=seed, **backend)
    return np.asarray(bare.obs["leiden"].cat.codes, dtype=np.intp)


def _group_labels(table: AnnData, columns: list[str]) -> NDArray[np.intp]:
    """Group of every row by some columns, counted from 0."""
    for column in columns:
        require_key(column, table.obs.columns, what="obs")
        n_missing = int(table.obs[column].isna().sum())
        if n_missing:
            raise ValueError(f"{n_missing} rows have no group in obs[{column!r}]")
    groups = table.obs.groupby(columns, observed=True, sort=False)
    labels = groups.ngroup().to_numpy(dtype=np.intp)
    if labels.max() == 0:
        raise ValueError(f"all rows are in a single group by {_validate.listing(columns)}")
    return labels
