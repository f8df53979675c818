"""Rank expression within each spot."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import scipy.sparse as sp
from scipy.stats import rankdata

from stpredict import _validate
from stpredict._arguments import checked
from stpredict._sdata._layer_steps import check_new_layer, record_layer_step
from stpredict._sdata._slots import write_slot
from stpredict._sdata._spot_table import SpotTable, open_table
from stpredict._sdata._steps import RankStep

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from spatialdata import SpatialData

#: Values ranked at a time; a few times as many float64 are in memory in addition to the result.
_BLOCK = 2**21


@checked
def rank_expression(
    sdata: SpatialData,
    *,
    layer: str | None = "log1p",
    genes: Sequence[str] | None = None,
    method: Literal["average", "ordinal"] = "average",
    normalize: bool = False,
    table_name: str = "table",
    key_added: str = "ranks",
    copy: bool = False,
) -> SpatialData | None:
    """Rank the values within each spot, across genes or cell types; the lowest gets rank 1.

    Equivalent to :func:`scipy.stats.rankdata` of every row. Ranks do not depend on sequencing depth
    or any monotone transformation, which makes sections from different machines comparable.

    Parameters
    ----------
    sdata
        Sections with a table.
    layer
        Layer to rank; None for ``X``, such as counts or cell-type abundances.
    genes
        Genes to rank among each other; all columns by default.
    method
        Rank of tied values, such as all zeros of a spot: ``"average"`` of the ranks they span, or
        ``"ordinal"``, different ranks in the order of the columns.
    normalize
        Whether to divide by the number of columns ranked, which gives ranks in (0, 1].
    table_name, key_added, copy
        Names of the table and of the new layer, and whether to change and return a copy.

    Returns
    -------
    SpatialData | None
        Writes to ``tables[table_name]``: ``layers[key_added]`` (n_obs, n_vars) float32, and
        ``uns["stpredict"]["rank_expression"][key_added]``. Without ``genes``, the layer is dense
        (360 MB for 5,000 spots × 18,000 genes). With ``genes``, it is CSR; columns that are not
        ranked hold 0.

    Raises
    ------
    KeyError, TypeError
        If the layer or a gene is missing, or ``genes`` is a single name.
    ValueError
        If the layer has NaN or no columns, a parameter is invalid, or ``key_added`` is the name of
        the layer that is ranked or of your own layer.

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom()
    >>> stp.pp.normalize(sdata)
    >>> stp.pp.rank_expression(sdata)
    >>> float(sdata.tables["table"].layers["ranks"][0].sum()) == 80 * 81 / 2
    True
    """
    names = None if genes is None else tuple(_validate.name_list("genes", genes))
    spots = open_table(sdata, table_name, copy=copy)
    check_new_layer(spots.table, key_added, layer)
    step = RankStep(key_added, layer=layer, method=method, normalize=normalize, genes=names)
    rank_layer(spots, step)
    return spots.sdata if copy else None


def rank_layer(spots: SpotTable, step: RankStep) -> None:
    """Write the ranked layer of an opened table."""
    table = spots.table
    if table.n_vars == 0:
        raise ValueError("the table has no columns to rank")
    values = spots.layer(step.layer)
    columns = np.arange(table.n_vars)
    if step.genes is None and step.n_genes not in (0, table.n_vars):  # 0: not a recorded step
        raise ValueError(
            f"training ranked {step.n_genes} columns, the table has {table.n_vars}: give "
            "stp.pp.rank_expression the genes= that both have before fitting"
        )
    if step.genes is not None:
        _validate.present(step.genes, table.var_names)
        columns = np.flatnonzero(table.var_names.isin(step.genes))
        step = replace(step, genes=tuple(table.var_names[columns]))
    ranked = rank_rows(values, columns, method=step.method, normalize=step.normalize)
    if step.genes is not None:  # 0 in the columns that are not ranked
        n, k = ranked.shape
        stored = ranked.ravel(), np.tile(columns, n), np.arange(n + 1) * k
        ranked = sp.csr_matrix(stored, shape=(n, table.n_vars))
    write_slot(table, "layers", step.key_added, ranked)
    record_layer_step(table, replace(step, n_genes=len(columns)))


def rank_rows(
    values: Any, columns: NDArray[np.intp], *, method: str, normalize: bool
) -> NDArray[np.float32]:
    """Rank some columns (k,) of every row of dense or sparse values (n, m); gives (n, k)."""
    if sp.issparse(values) and values.format != "csr":
        values = values.tocsr()
    ranked = np.empty((values.shape[0], len(columns)), dtype=np.float32)
    step = max(1, _BLOCK // values.shape[1])  # rows per block
    for start in range(0, len(ranked), step):
        block = values[start : start + step]
        if len(columns) < values.shape[1]:
            block = block[:, columns]
        rank = _rank_sparse if sp.issparse(block) else partial(rankdata, axis=1)
        ranks = rank(block, method=method)
        ranked[start : start + step] = ranks / len(columns) if normalize else ranks
    return ranked


def _rank_sparse(block: sp.csr_matrix, *, method: str) -> NDArray[np.float64]:
    """Rank every row without sorting its zeros."""
    # a copy: summing duplicates would change the layer itself
    block = sp.csr_matrix(block, copy=True)
    block.sum_duplicates()
    block.eliminate_zeros()
    n, k = block.shape
    ranked = np.empty((n, k))
    for row, (start, stop) in enumerate(pairwise(block.indptr)):
        stored, stored_columns = block.data[start:stop], block.indices[start:stop]
        n_zero = k - len(stored)
        n_negative = np.count_nonzero(stored < 0)
        ranks = rankdata(stored, method=method).astype(np.float64)
        ranks[stored > 0] += n_zero  # zeros lie between negative and positive values
        # all zeros of a row are tied; fill their rank first, then overwrite the stored values
        if method == "average":
            ranked[row] = n_negative + (n_zero + 1) / 2
        else:
            is_zero = np.ones(k, dtype=bool)
            is_zero[stored_columns] = False
            ranked[row, is_zero] = n_negative + np.arange(1, n_zero + 1)
        ranked[row, stored_columns] = ranks
    return ranked
