"""By how much genes stand out within each section, and the order that follows of all sections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scanpy as sc
import scipy.sparse as sp
from anndata import AnnData
from scipy.stats import rankdata

from stpredict import _keys, _validate
from stpredict._sdata import _sections
from stpredict.pp._expression._pca import variance
from stpredict.pp._neighbors import graph_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

#: Residuals of genes with hardly any counts vary most by single counts, which nothing predicts: as
#: many times the genes wanted, the most expressed, are looked at.
_EXPRESSED = 4


def _by_pearson_residuals(table: AnnData, n_top_genes: int) -> NDArray[np.intp]:
    _validate.counts(table.X, what="counts in X")
    expression = np.asarray(table.X.sum(axis=0)).ravel()
    expressed = np.sort(np.argsort(-expression, kind="stable")[: _EXPRESSED * n_top_genes])
    bare = AnnData(
        sp.csr_matrix(table.X[:, expressed]),
        obs=pd.DataFrame(
            {"section": pd.Categorical(_sections.region_of(table))}, index=table.obs_names
        ),
    )
    sc.experimental.pp.highly_variable_genes(
        bare, n_top_genes=n_top_genes, batch_key="section", check_values=False
    )
    # scanpy's order: chosen in the most sections, then by the median rank (NaN: chosen in none)
    rank = bare.var["highly_variable_rank"].fillna(np.inf)
    order = np.lexsort((rank, -bare.var["highly_variable_nbatches"]))
    return np.asarray(expressed[order[:n_top_genes]])


def _by_variance(table: AnnData, n_top_genes: int) -> NDArray[np.intp]:
    # stable: ties go to the gene that comes first
    score = variance(_sections.layer_of(table, _keys.LOG1P))
    return np.asarray(np.argsort(-score, kind="stable")[:n_top_genes])


def _by_expression(table: AnnData, n_top_genes: int) -> NDArray[np.intp]:
    _validate.counts(table.X, what="counts in X")
    return _combined(
        [np.asarray(table.X[rows].mean(axis=0)).ravel() for rows in _rows(table)], n_top_genes
    )


def _by_dispersion(table: AnnData, n_top_genes: int) -> NDArray[np.intp]:
    values = _sections.layer_of(table, _keys.LOG1P)
    scores = []
    for rows in _rows(table):
        bare = _bare(values, rows)
        found = sc.pp.highly_variable_genes(bare, flavor="seurat", inplace=False)
        scores.append(found["dispersions_norm"].to_numpy(dtype=float))
    return _combined(scores, n_top_genes)


def _by_moran(table: AnnData, n_top_genes: int) -> NDArray[np.intp]:
    from squidpy import gr

    graph = graph_of(table)
    values = _sections.layer_of(table, _keys.LOG1P)
    scores = []
    for rows in _rows(table):
        bare = _bare(values, rows)
        bare.obsp[_keys.CONNECTIVITIES] = graph[rows][:, rows]
        score = np.full(table.n_vars, np.nan)
        varies = np.flatnonzero(variance(bare.X) > 0)  # of a constant gene Moran's I is 0 / 0
        if len(varies):
            found = gr.spatial_autocorr(
                bare,
                connectivity_key=_keys.CONNECTIVITIES,
                mode="moran",
                genes=bare.var_names[varies].tolist(),
                corr_method=None,
                n_jobs=1,
                show_progress_bar=False,
                copy=True,
            )
            score[found.index.astype(int)] = found["I"].to_numpy()
        scores.append(score)
    return _combined(scores, n_top_genes)


#: Each takes a table and how many genes are wanted, and gives their columns, best first.
FLAVORS: dict[str, Callable[[AnnData, int], NDArray[np.intp]]] = {
    "pearson_residuals": _by_pearson_residuals,
    "variance": _by_variance,
    "expression": _by_expression,
    "hvg": _by_dispersion,
    "moran": _by_moran,
}


def _rows(table: AnnData) -> list[NDArray[np.intp]]:
    """Rows of each section."""
    region = _sections.region_of(table)
    return [np.flatnonzero(region == name) for name in _sections.section_names(table)]


def _bare(values: Any, rows: NDArray[np.intp]) -> AnnData:
    """Rows of a layer alone, with columns named by their number."""
    chosen = values[rows]
    if sp.issparse(chosen):  # a copy: scipy sorts indices in place; scanpy wants no sparse array
        chosen = sp.csr_matrix(chosen, copy=True)
        chosen.sum_duplicates()
    return AnnData(
        chosen,
        obs=pd.DataFrame(index=np.arange(len(rows)).astype(str)),
        var=pd.DataFrame(index=np.arange(chosen.shape[1]).astype(str)),
    )


def _combined(scores: list[NDArray[np.float64]], n_top_genes: int) -> NDArray[np.intp]:
    """Genes by their mean rank over the sections, the highest score first.

    A gene without a score (NaN) comes last in that section; ties go to the gene that comes first.
    """
    ranks = [rankdata(-np.where(np.isnan(score), -np.inf, score)) for score in scores]
    return np.asarray(np.argsort(np.mean(ranks, axis=0), kind="stable")[:n_top_genes])
