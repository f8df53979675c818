"""Rank expression within each spot."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import scipy.sparse as sp
from scipy.stats import rankdata

from stpredict import _validate
from stpredict._sdata._layer_steps import check_new_layer, record_layer_step
from stpredict._sdata._spot_table import open_table
from stpredict._sdata._steps import RankStep

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from spatialdata import SpatialData

    from stpredict._sdata._spot_table import SpotTable

#: Values ranked at a time; a few times as many float64 are in memory in addition to the result.
_BLOCK = 2**21


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

    Equivalent to :func:`scipy.stats.rankdata` of every row. Ranks do not depend on the sequencing
    depth of a spot or on any monotone transformation, which makes sections from different machines
    comparable. A model fitted to the layer predicts ranks.

    Parameters
    ----------
    sdata
        Sections with a table.
    layer
        Layer to rank; None for ``X``, such as counts, or a table of cell-type abundances.
    genes
        Genes to rank among each other, for instance ``table.var_names[table.var["selected"]]``; all
        columns by default.
    method
        Rank of tied values. ``"average"``: the mean of the ranks they span, so that all zeros of a
        spot share one rank. ``"ordinal"``: different ranks, in the order of the columns, so that
        genes without counts differ only by their position in the table.
    normalize
        Whether to divide by the number of columns ranked, which gives ranks in (0, 1].
    table_name
        Name of the table.
    key_added
        Name of the new layer.
    copy
        Return a changed copy instead of changing ``sdata``.

    Returns
    -------
    SpatialData | None
        Writes to ``tables[table_name]``: ``layers[key_added]`` (n_obs, n_vars) float32, and
        ``uns["stpredict"]["rank_expression"][key_added]``. Without ``genes``, the layer is dense,
        because every value has a rank (360 MB for 5,000 spots × 18,000 genes). With ``genes``, it
        is CSR; columns that are not ranked hold 0, which is not a rank.

    Raises
    ------
    KeyError
        If the layer or a gene is missing.
    ValueError
        If the layer has NaN, the table has no columns, ``genes`` is empty or repeats a name,
        ``method`` is unknown, or ``key_added`` would overwrite the layer that is ranked.
    TypeError
        If ``genes`` is a single name.

    Notes
    -----
    Sparse input is not made dense as a whole: only stored values are sorted, some rows at a time.
    Zeros are tied, and their rank follows from the number of negative values.

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom()
    >>> stp.pp.normalize(sdata)
    >>> stp.pp.rank_expression(sdata)
    >>> ranks = sdata.tables["table"].layers["ranks"]
    >>> float(ranks[0].sum()) == 80 * 81 / 2
    True
    """
    _validate.one_of("method", method, ["average", "ordinal"])
    _validate.one_of("normalize", normalize, [True, False])
    check_new_layer(key_added, layer)
    names = None if genes is None else tuple(_validate.name_list("genes", genes))
    spots = open_table(sdata, table_name, copy=copy)
    rank_layer(
        spots,
        RankStep(key_added=key_added, layer=layer, method=method, normalize=normalize, genes=names),
    )
    return spots.sdata if copy else None


def rank_layer(spots: SpotTable, step: RankStep) -> None:
    """Write the ranked layer of an opened table; genes are recorded in the order of the table."""
    table = spots.table
    if table.n_vars == 0:
        raise ValueError("the table has no columns to rank")
    values = spots.layer(step.layer)
    columns = np.arange(table.n_vars)
    if step.genes is not None:
        _validate.present(step.genes, table.var_names)
        columns = np.flatnonzero(table.var_names.isin(step.genes))
        step = replace(step, genes=tuple(table.var_names[columns]))
    ranked = rank_rows(values, columns, method=step.method, normalize=step.normalize)
    table.layers[step.key_added] = (
        ranked if step.genes is None else _spread(ranked, columns, n_vars=table.n_vars)
    )
    record_layer_step(table, replace(step, n_genes=len(columns)))


def rank_rows(
    values: Any, columns: NDArray[np.intp], *, method: str, normalize: bool
) -> NDArray[np.float32]:
    """Rank some columns of every row, (n, k); 1 is the lowest.

    Parameters
    ----------
    values
        Values (n, m), dense or sparse, finite.
    columns
        Columns to rank, (k,), in rising order.
    method
        Method of :func:`scipy.stats.rankdata`: ``"average"`` or ``"ordinal"``.
    normalize
        Whether to divide by k.
    """
    if sp.issparse(values) and values.format != "csr":
        values = values.tocsr()
    ranked = np.empty((values.shape[0], len(columns)), dtype=np.float32)
    step = max(1, _BLOCK // values.shape[1])  # rows per block
    for start in range(0, len(ranked), step):
        block = values[start : start + step]
        if len(columns) < values.shape[1]:
            block = block[:, columns]
        ranks = (
            _rank_sparse(block, method)
            if sp.issparse(block)
            else rankdata(np.asarray(block), method=method, axis=1)
        )
        ranked[start : start + step] = ranks / len(columns) if normalize else ranks
    return ranked


def _rank_sparse(block: sp.csr_matrix, method: str) -> NDArray[np.float64]:
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


def _spread(
    ranked: NDArray[np.float32], columns: NDArray[np.intp], *, n_vars: int
) -> sp.csr_matrix:
    """Ranked columns at their positions among all columns, (n, n_vars); 0 elsewhere."""
    n, k = ranked.shape
    return sp.csr_matrix(
        (ranked.ravel(), np.tile(columns, n), np.arange(n + 1) * k), shape=(n, n_vars)
    )
