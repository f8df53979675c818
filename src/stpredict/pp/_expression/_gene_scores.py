"""Scores of genes within sections, and principal components of the expression of a section."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from scipy.stats import rankdata
from sklearn.utils.sparsefuncs import mean_variance_axis

from stpredict import _keys
from stpredict._log import importing_squidpy

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import DTypeLike, NDArray

    from stpredict._sdata._spot_table import SpotTable

#: Residuals of barely expressed genes vary by single counts, which cannot be predicted. Only this
#: many times ``n_top_genes`` of the most expressed genes are considered.
_EXPRESSED = 4
#: Number of components, as scanpy's default.
_N_COMPONENTS = 50


def _by_pearson_residuals(spots: SpotTable, n_top_genes: int) -> NDArray[np.intp]:
    import scanpy as sc  # takes a second, and predicting does without

    counts = spots.counts
    expression = np.asarray(counts.sum(axis=0)).ravel()
    expressed = np.sort(np.argsort(-expression, kind="stable")[: _EXPRESSED * n_top_genes])
    matrix = sp.csr_matrix(counts[:, expressed])
    # the residuals of a spot without counts are 0 / 0, and would decide for all genes
    rows = np.flatnonzero(np.asarray(matrix.sum(axis=1)).ravel() > 0)
    if not len(rows):
        raise ValueError("no spot has counts, so that no genes can be selected")
    section = pd.Categorical(spots.section_of_row[rows])
    bare = AnnData(
        matrix[rows], obs=pd.DataFrame({"section": section}, index=spots.table.obs_names[rows])
    )
    sc.experimental.pp.highly_variable_genes(
        bare, n_top_genes=n_top_genes, batch_key="section", check_values=False
    )
    # scanpy's order: by the number of sections that select a gene, then by its median rank, which
    # is NaN if no section does
    rank = bare.var["highly_variable_rank"].fillna(np.inf)
    order = np.lexsort((rank, -bare.var["highly_variable_nbatches"]))
    return np.asarray(expressed[order[:n_top_genes]])


def _by_variance(spots: SpotTable, n_top_genes: int) -> NDArray[np.intp]:
    # stable: of tied genes, the first is selected
    score = variance(spots.layer(_keys.LOG1P))
    return np.asarray(np.argsort(-score, kind="stable")[:n_top_genes])


def _by_expression(spots: SpotTable, n_top_genes: int) -> NDArray[np.intp]:
    counts = spots.counts
    means = [np.asarray(counts[rows].mean(axis=0)).ravel() for rows in spots.section_rows.values()]
    return _combine(means, n_top_genes)


def _by_dispersion(spots: SpotTable, n_top_genes: int) -> NDArray[np.intp]:
    import scanpy as sc

    values = spots.layer(_keys.LOG1P)
    scores = []
    for rows in spots.section_rows.values():
        bare = _bare(values, rows)
        sc.pp.highly_variable_genes(bare, flavor="seurat")
        # float32, so that genes alone or in pairs in their bin (1 and ±0.7071) tie exactly
        scores.append(bare.var["dispersions_norm"].to_numpy(dtype=np.float32))
    return _combine(scores, n_top_genes)


def _by_moran(spots: SpotTable, n_top_genes: int) -> NDArray[np.intp]:
    with importing_squidpy():
        from squidpy import gr

    graph = spots.graph
    values = spots.layer(_keys.LOG1P)
    scores = []
    for section, rows in spots.section_rows.items():
        bare = _bare(values, rows)
        bare.obsp[_keys.CONNECTIVITIES] = graph[rows][:, rows]
        if not bare.obsp[_keys.CONNECTIVITIES].count_nonzero():
            raise ValueError(
                f"obsp[{_keys.CONNECTIVITIES!r}] links no spots of section {section!r}, so that "
                "they have no Moran's I: run stp.pp.neighbors, or choose another flavor="
            )
        score = np.full(spots.table.n_vars, np.nan)
        varying = np.flatnonzero(variance(bare.X) > 0)  # Moran's I of a constant gene is 0 / 0
        if len(varying):
            genes = bare.var_names[varying].tolist()
            # no correction of p values, which are not used
            options = {"corr_method": None, "n_jobs": 1, "show_progress_bar": False}
            result = gr.spatial_autocorr(
                bare, _keys.CONNECTIVITIES, genes=genes, mode="moran", copy=True, **options
            )
            score[result.index.astype(int)] = result["I"].to_numpy()
        scores.append(score)
    return _combine(scores, n_top_genes)


#: Functions of an opened table and a number of genes that return columns, best first.
FLAVORS: dict[str, Callable[[SpotTable, int], NDArray[np.intp]]] = {
    "pearson_residuals": _by_pearson_residuals,
    "variance": _by_variance,
    "expression": _by_expression,
    "hvg": _by_dispersion,
    "moran": _by_moran,
}


def _bare(values: Any, rows: NDArray[np.intp]) -> AnnData:
    """Table of some rows of a layer only; AnnData names the columns by their number."""
    return AnnData(canonical(values[rows]))


def _combine(scores: list[NDArray[np.float64]], n_top_genes: int) -> NDArray[np.intp]:
    """Genes by their mean rank over the sections, the highest score first."""
    # a gene without a score (NaN) is last in that section
    ranks = [rankdata(-np.where(np.isnan(score), -np.inf, score)) for score in scores]
    # stable: of tied genes, the first is selected
    return np.asarray(np.argsort(np.mean(ranks, axis=0), kind="stable")[:n_top_genes])


def section_pca(
    values: Any, rows: NDArray[np.intp], *, section: str, seed: int
) -> NDArray[np.float32]:
    """Principal components of a section's rows (n,) of a finite layer, (n, d), d at most 50."""
    import scanpy as sc

    expression = canonical(values[rows], np.float32)
    n_components = min(_N_COMPONENTS, min(expression.shape) - 1)  # the most that arpack computes
    n_varying = int(np.count_nonzero(variance(expression)))
    if n_components < 1 or not n_varying:
        raise ValueError(
            f"section {section!r} has no expression to compare: of {expression.shape[1]} genes in "
            f"{len(rows)} spots, {n_varying} vary"
        )
    return np.asarray(sc.pp.pca(expression, n_comps=n_components, random_state=seed))


def variance(values: Any) -> NDArray[np.float64]:
    """Variance of every column, (n_vars,)."""
    if not sp.issparse(values):
        return np.asarray(values).var(axis=0, dtype=np.float64)
    return np.asarray(mean_variance_axis(canonical(values, np.float64), axis=0)[1])


def canonical(values: Any, dtype: DTypeLike | None = None) -> Any:
    """A copy as CSR matrix, sorted and without duplicates, if sparse; else an array."""
    if not sp.issparse(values):
        return np.asarray(values, dtype=dtype)
    # a matrix, as scanpy 1.11 fails on sparse arrays; a copy, as scipy sorts indices in place
    matrix = sp.csr_matrix(values, dtype=dtype, copy=True)
    matrix.sum_duplicates()
    return matrix
