"""Scores of what was predicted out of fold, section by section, with the nulls beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stpredict import metrics, results

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

#: One shuffle of a few hundred spots correlates by chance; the mean of some does not.
_N_NULLS = 20
#: PCC over this many genes of highest variance is reported beside that over all.
_N_TOP = 50
#: Clusters that measured and predicted sections are compared by.
_N_CLUSTERS = 8


@dataclass(frozen=True)
class Tissue:
    """What a section is beside its values.

    Attributes
    ----------
    fold, section
        Names.
    positions
        (n_spots, 2), µm.
    graph
        (n_spots, n_spots) neighbours.
    """

    fold: str
    section: str
    positions: NDArray[np.float64]
    graph: Any


def score_method(
    tissue: Tissue,
    method: str,
    measured: NDArray[np.float32],
    predicted: NDArray[np.float32],
    genes: NDArray[np.str_],
    *,
    variance: NDArray[np.float64],
    seed: int,
) -> Iterator[pd.DataFrame]:
    """Score one method in one section, and its own nulls.

    ``variance``, (n_genes,), is that of the training rows.
    """
    found = {
        **score_genes(tissue, measured, predicted),
        **score_nulls(tissue, measured, predicted, seed=seed),
    }
    yield tidy(tissue, method, genes, found)
    yield tidy(tissue, method, [""], score_whole(measured, predicted, found["pcc"], variance, seed))


def score_genes(
    tissue: Tissue, measured: NDArray[np.floating], predicted: NDArray[np.floating]
) -> dict[str, NDArray[np.float64]]:
    """All scores of single genes in a section, each (n_genes,)."""
    return {
        **metrics.per_gene(measured, predicted),
        "ssim": metrics.ssim(measured, predicted, tissue.positions),
        "morans_i_difference": metrics.morans_i(predicted, tissue.graph)
        - metrics.morans_i(measured, tissue.graph),
    }


def score_nulls(
    tissue: Tissue, measured: NDArray[np.floating], predicted: NDArray[np.floating], *, seed: int
) -> dict[str, NDArray[np.float64]]:
    """PCC of predictions shuffled, and of predictions moved within the section, (n_genes,)."""
    random = np.random.default_rng(seed)
    shuffles = [random.permutation(len(measured)) for _ in range(_N_NULLS)]
    moves = [metrics.spatial_null(tissue.positions, generator=random) for _ in range(_N_NULLS)]
    return {
        name: np.mean([metrics.pcc(measured, predicted[order]) for order in orders], axis=0)
        for name, orders in (
            (results.PCC_SHUFFLED, shuffles),
            (results.PCC_SPATIAL_NULL, moves),
        )
    }


def score_whole(
    measured: NDArray[np.float32],
    predicted: NDArray[np.float32],
    pcc: NDArray[np.float64],
    variance: NDArray[np.float64],
    seed: int,
) -> dict[str, float]:
    """Scores of a section as a whole."""
    top = np.argsort(-variance, kind="stable")[:_N_TOP]
    found = {f"pcc_top{_N_TOP}": float(pcc[top].mean())}
    if measured.shape[1] > 1:
        found |= {
            "pcc_per_spot": float(metrics.pcc_per_spot(measured, predicted).mean()),
            "spearman_per_spot": float(metrics.spearman_per_spot(measured, predicted).mean()),
        }
    if measured.shape[1] > 2:
        found["gene_correlation"] = metrics.gene_correlation(measured, predicted)
    if len(measured) > _N_CLUSTERS:
        agreement = metrics.cluster_agreement(
            measured, predicted, n_clusters=_N_CLUSTERS, seed=seed
        )
        found |= {"ari": agreement.ari, "nmi": agreement.nmi}
    return found


def tidy(tissue: Tissue, method: str, genes: Any, scores: Mapping[str, Any]) -> pd.DataFrame:
    """One row per gene and metric."""
    n_genes, names = len(genes), list(scores)
    return pd.DataFrame(
        {
            "method": method,
            "fold": tissue.fold,
            "section": tissue.section,
            "gene": np.tile(np.asarray(genes, dtype=object), len(names)),
            "metric": np.repeat(np.asarray(names, dtype=object), n_genes),
            "value": np.concatenate([np.atleast_1d(scores[name]) for name in names]),
        }
    )
