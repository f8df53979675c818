"""Values -> ranks within each spot."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import scipy.sparse as sp
from scipy.stats import rankdata

from stpredict import _keys, _validate
from stpredict._sdata import _layers, _sections

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from numpy.typing import NDArray
    from spatialdata import SpatialData

#: Values ranked at a time; a few times as many float64 are in memory beside the result.
_BLOCK = 2**21


def rank_expression(
    sdata: SpatialData,
    *,
    layer: str | None = _keys.LOG1P,
    genes: Sequence[str] | None = None,
    method: Literal["average", "ordinal"] = "average",
    normalize: bool = False,
    key_added: str = _keys.RANKS,
    copy: bool = False,
) -> SpatialData | None:
    """Rank the values within each spot, across genes or cell types; the lowest gets rank 1.

    The same as :func:`scipy.stats.rankdata` of every row. Ranks do not depend on the depth of a
    spot or on any monotone transformation, which makes sections from different machines
    comparable. A model fitted to the layer predicts ranks.

    Parameters
    ----------
    sdata
        Sections with a table.
    layer
        Layer to rank; None: ``X``, such as counts, or a table of cell-type abundances.
    genes
        Rank among these only, for instance ``table.var_names[table.var["selected"]]``; by default
        among all columns.
    method
        What ties get. ``"average"``: the mean of the ranks they span, so that all zeros of a spot
        get one rank. ``"ordinal"``: different ranks, in the order of the columns, so that genes
        without counts differ by nothing but their place in the table.
    normalize
        Divide by the number of columns ranked: ranks in (0, 1].
    key_added
        Name of the new layer.
    copy
        Return a changed copy instead of changing ``sdata``.

    Returns
    -------
    SpatialData | None
        Writes to ``tables["table"]``: ``layers[key_added]`` (n_obs, n_vars) float32, and
        ``uns["stpredict"]["rank_expression"][key_added]``. Among all columns, the layer is dense:
        every value has a rank (360 MB for 5,000 spots × 18,000 genes). With ``genes``, it is CSR
        and holds those columns; 0, which is no rank, stands in the others.

    Raises
    ------
    KeyError
        If the layer or a gene is not there.
    ValueError
        If the layer has NaN, there is nothing to rank, ``genes`` are repeated, ``method`` is
        unknown, or ``key_added`` would overwrite the layer that is ranked.
    TypeError
        If ``genes`` is a single name.

    Notes
    -----
    Of sparse input only the stored values are sorted, some rows at a time: what is zero is tied,
    and its rank follows from how many values are negative.

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
    if not isinstance(normalize, bool):
        raise ValueError(f"normalize must be True or False: {normalize!r}")
    _layers.check_name(key_added, layer)
    sdata = _sections.copy_of(sdata) if copy else sdata
    table = _sections.table_of(sdata)
    values = _sections.layer_of(table, layer)
    columns = _columns(table, genes)
    ranked = rank_rows(values, columns, method=method, normalize=normalize)
    table.layers[key_added] = (
        ranked if genes is None else _spread(ranked, columns, n_vars=table.n_vars)
    )
    _layers.record(
        table,
        "rank_expression",
        key_added,
        layer=layer,
        method=method,
        normalize=normalize,
        n_genes=len(columns),
        genes=None if genes is None else table.var_names[columns].tolist(),
    )
    return sdata if copy else None


def _columns(table: AnnData, genes: Sequence[str] | None) -> NDArray[np.intp]:
    """Columns to rank, in the order of the table."""
    if genes is None:
        if table.n_vars == 0:
            raise ValueError("the table has no columns to rank")
        return np.arange(table.n_vars)
    if isinstance(genes, str):
        raise TypeError(f"genes={genes!r} is one name; give a list: [{genes!r}]")
    names = list(genes)
    if not names:
        raise ValueError("genes= is empty")
    _validate.unique_names(names, what="genes")
    _validate.present(names, table.var_names)
    return np.flatnonzero(table.var_names.isin(names))


def rank_rows(
    values: Any, columns: NDArray[np.intp], *, method: str, normalize: bool
) -> NDArray[np.float32]:
    """Rank some columns of every row, (n, k); 1 is the lowest.

    Parameters
    ----------
    values
        (n, m), dense or sparse, finite.
    columns
        (k,), rising.
    method
        As :func:`scipy.stats.rankdata` names it: ``"average"`` or ``"ordinal"``.
    normalize
        Divide by k.
    """
    if sp.issparse(values) and values.format != "csr":
        values = values.tocsr()
    ranked = np.empty((values.shape[0], len(columns)), dtype=np.float32)
    step = max(1, _BLOCK // values.shape[1])
    for start in range(0, len(ranked), step):
        block = values[start : start + step]
        if len(columns) < values.shape[1]:
            block = block[:, columns]
        ranks = _sparse(block, method) if sp.issparse(block) else _dense(block, method)
        ranked[start : start + step] = ranks / len(columns) if normalize else ranks
    return ranked


def _dense(block: Any, method: str) -> NDArray[np.float64]:
    return np.asarray(rankdata(np.asarray(block), method=method, axis=1), dtype=np.float64)


def _sparse(block: sp.csr_matrix, method: str) -> NDArray[np.float64]:
    # a copy: what follows would change the layer itself
    block = sp.csr_matrix(block, copy=True)
    block.sum_duplicates()
    block.eliminate_zeros()
    n, k = block.shape
    ranked = np.empty((n, k))
    for row, (start, stop) in enumerate(pairwise(block.indptr)):
        stored, where = block.data[start:stop], block.indices[start:stop]
        n_zero = k - len(stored)
        n_negative = np.count_nonzero(stored < 0)
        ranks = rankdata(stored, method=method).astype(np.float64)
        ranks[stored > 0] += n_zero  # zeros lie between negative and positive values
        if method == "average":
            ranked[row] = n_negative + (n_zero + 1) / 2
        else:
            is_zero = np.ones(k, dtype=bool)
            is_zero[where] = False
            ranked[row, is_zero] = n_negative + np.arange(1, n_zero + 1)
        ranked[row, where] = ranks
    return ranked


def _spread(
    ranked: NDArray[np.float32], columns: NDArray[np.intp], *, n_vars: int
) -> sp.csr_matrix:
    """Put ranked columns into their places among all, (n, n_vars); 0 elsewhere."""
    n, k = ranked.shape
    return sp.csr_matrix(
        (ranked.ravel(), np.tile(columns, n), np.arange(n + 1) * k), shape=(n, n_vars)
    )
