"""Which genes to predict."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
import scanpy as sc
import scipy.sparse as sp
from anndata import AnnData
from sklearn.utils.sparsefuncs import mean_variance_axis

from stpredict import _keys, _provenance, _sections, _validate

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from numpy.typing import NDArray
    from spatialdata import SpatialData

#: Residuals of genes with hardly any counts vary most by single counts, which nothing predicts: as
#: many times the genes wanted, the most expressed, are looked at.
_EXPRESSED = 4


def select_genes(
    sdata: SpatialData,
    genes: Sequence[str] | None = None,
    *,
    n_top: int | None = None,
    flavor: Literal["pearson_residuals", "variance"] = "pearson_residuals",
    copy: bool = False,
) -> SpatialData | None:
    """Mark the genes to predict: a given list, or those that vary most.

    Select on training sections only: genes chosen with the test sections in sight make scores
    look better than they are.

    Parameters
    ----------
    sdata
        Training sections.
    genes
        Names of genes.
    n_top
        Instead of a list: this many genes.
    flavor
        How ``n_top`` genes are chosen. ``"pearson_residuals"``: of the ``4 * n_top`` most
        expressed genes, by the variance of the counts beyond what counting noise explains, ranked
        within each section, the ranks combined
        (:func:`scanpy.experimental.pp.highly_variable_genes`); it finds strongly expressed genes,
        such as ERBB2 in HER2-positive tumours, whose logarithm varies little.
        ``"variance"``: by the variance of ``layers["log1p"]`` over all spots, as most published
        benchmarks do; much of it is noise of weakly expressed genes.
    copy
        Return a changed copy instead of changing ``sdata``.

    Returns
    -------
    SpatialData | None
        Writes ``var["selected"]`` (bool) of ``tables["table"]`` and
        ``uns["stpredict"]["select_genes"]``.

    Raises
    ------
    KeyError
        If a gene is not in the table, or ``layers["log1p"]`` is missing.
    ValueError
        If neither or both of ``genes`` and ``n_top`` are given, ``genes`` is empty, ``n_top``
        exceeds the genes, or counts are negative or NaN.
    TypeError
        If ``genes`` is a single name.

    References
    ----------
    Lause et al., Analytic Pearson residuals for normalization of single-cell RNA-seq UMI data,
    Genome Biology 2021.

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom()
    >>> stp.pp.select_genes(sdata, n_top=10)
    >>> int(sdata.tables["table"].var["selected"].sum())
    10
    """
    if (genes is None) == (n_top is None):
        raise ValueError(f"give either genes= or n_top=: genes={genes!r}, n_top={n_top!r}")
    if isinstance(genes, str):
        raise TypeError(f"genes={genes!r} is one name; give a list: [{genes!r}]")
    if genes is not None and len(genes) == 0:
        raise ValueError("genes= is empty")
    sdata = _sections.copy_of(sdata) if copy else sdata
    table = _sections.table_of(sdata)
    if genes is not None:
        _validate.unique_names(list(genes), what="genes")
        _validate.present(list(genes), table.var_names)
        selected = np.asarray(table.var_names.isin(list(genes)))
    else:
        selected = _top(table, n_top, flavor)
    table.var[_keys.SELECTED] = selected
    _provenance.record(
        table,
        "select_genes",
        n_top=n_top,
        flavor=None if genes is not None else flavor,
        n_selected=int(selected.sum()),
        sections=_sections.section_names(table),
    )
    return sdata if copy else None


def _top(table: AnnData, n_top: int | None, flavor: str) -> NDArray[np.bool_]:
    _validate.one_of("flavor", flavor, ["pearson_residuals", "variance"])
    if not isinstance(n_top, int) or not 0 < n_top <= table.n_vars:
        raise ValueError(f"n_top={n_top!r} must lie between 1 and {table.n_vars}, the genes")
    if flavor == "variance":
        variance = _variance(_sections.layer_of(table, _keys.LOG1P))
        selected = np.zeros(table.n_vars, dtype=bool)
        # stable: ties go to the gene that comes first
        selected[np.argsort(-variance, kind="stable")[:n_top]] = True
        return selected
    _validate.counts(table.X, what="counts in X")
    expression = np.asarray(table.X.sum(axis=0)).ravel()
    expressed = np.sort(np.argsort(-expression, kind="stable")[: _EXPRESSED * n_top])
    bare = AnnData(
        sp.csr_matrix(table.X[:, expressed]),
        obs=pd.DataFrame(
            {"section": pd.Categorical(_sections.region_of(table))}, index=table.obs_names
        ),
    )
    sc.experimental.pp.highly_variable_genes(
        bare, n_top_genes=n_top, batch_key="section", check_values=False
    )
    # scanpy's order: chosen in the most sections, then by the median rank (NaN: chosen in none)
    rank = bare.var["highly_variable_rank"].fillna(np.inf)
    order = np.lexsort((rank, -bare.var["highly_variable_nbatches"]))
    selected = np.zeros(table.n_vars, dtype=bool)
    selected[expressed[order[:n_top]]] = True
    return selected


def _variance(values: NDArray[Any] | sp.csr_matrix) -> NDArray[np.float64]:
    if not sp.issparse(values):
        return np.asarray(values).var(axis=0, dtype=np.float64)
    # a copy: scipy sorts indices in place, and a conversion would share them with the layer
    sparse = sp.csr_matrix(values, dtype=np.float64, copy=True)
    sparse.sum_duplicates()
    _, variance = mean_variance_axis(sparse, axis=0)
    return np.asarray(variance)
