"""Scores of predictions, section by section, with nulls, references and ceiling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
import scipy.sparse as sp

from stpredict import _keys, metrics, results
from stpredict._sdata._steps import NormalizeStep
from stpredict.pp import neighbors

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from spatialdata import SpatialData

    from stpredict._sdata._spot_table import SpotTable

#: One shuffle of a few hundred spots correlates by chance; the mean of several does not.
_N_NULLS = 20
#: PCC over this many genes of highest variance is reported next to that over all genes.
_N_TOP = 50
#: Number of clusters by which measured and predicted sections are compared.
_N_CLUSTERS = 8
#: Neighbours of a spot where the table has no graph, as on a hexagonal grid.
_N_NEIGHBORS = 6


@dataclass(frozen=True, eq=False)
class ScoredSection:
    """Spots of one section and one group that are scored together."""

    section: str  # name
    group: str  # that was left out
    rows: NDArray[np.intp]  # (n_spots,) rows of the table
    positions: NDArray[np.float64]  # (n_spots, 2), in µm
    graph: sp.csr_matrix  # (n_spots, n_spots)

    def tidy(
        self, method: str, genes: Sequence[str] | NDArray[np.str_], scores: Mapping[str, Any]
    ) -> pd.DataFrame:
        """One row per gene and metric; each score is (n_genes,)."""
        names = list(scores)
        values = {
            "method": method,
            "section": self.section,
            "group": self.group,
            "gene": np.tile(np.asarray(genes, dtype=object), len(names)),
            "metric": np.repeat(np.asarray(names, dtype=object), len(genes)),
            "value": np.concatenate([np.atleast_1d(scores[name]) for name in names]),
        }
        return pd.DataFrame(values, columns=list(results.COLUMNS))


def scored_sections(
    spots: SpotTable, rows: NDArray[np.intp], labels: NDArray[np.str_]
) -> Iterator[ScoredSection]:
    """Split some rows by section and group; ``labels`` is the group of each row of the table."""
    graph = _graph(spots)
    for group in dict.fromkeys(labels[rows]):
        for section in spots.sections:
            inside = rows[np.isin(rows, section.rows) & (labels[rows] == group)]
            if not len(inside):  # other groups
                continue
            if len(inside) < 2:
                raise ValueError(f"section {section.name!r} has a single spot to score")
            yield ScoredSection(
                section=section.name,
                group=str(group),
                rows=inside,
                positions=spots.positions_um[inside],
                graph=graph[inside][:, inside],
            )


def score_method(
    scored: ScoredSection,
    method: str,
    measured: NDArray[np.floating],
    predicted: NDArray[np.floating],
    genes: NDArray[np.str_],
    *,
    seed: int,
    variance: NDArray[np.float64] | None = None,  # (n_genes,) of the training rows, if known
    has_units: bool = True,  # if not, scores that depend on the scale of a gene are left out
    is_binary: bool = False,  # whether measured values are 1 (high) and 0 (low)
) -> Iterator[pd.DataFrame]:
    """Score one method in one section, with its own nulls."""
    scores = _score_genes(scored, measured, predicted, is_binary=is_binary)
    scores |= _score_nulls(scored, measured, predicted, is_binary=is_binary, seed=seed)
    whole = _score_section(measured, predicted, seed=seed)
    if not has_units:
        scores, whole = _without_units(scores), _without_units(whole)
    yield scored.tidy(method, genes, scores)
    if variance is not None:
        top = np.argsort(-variance, kind="stable")[:_N_TOP]
        whole = {f"pcc_top{_N_TOP}": float(scores["pcc"][top].mean()), **whole}
    if whole:
        yield scored.tidy(method, [""], whole)


def score_references(
    scored: ScoredSection,
    spots: SpotTable,
    measured: NDArray[np.floating],
    genes: NDArray[np.str_],
    training_mean: NDArray[np.floating] | None,
    covered: set[tuple[str, str, str]],  # section, group, gene with references; new ones are added
    *,
    layer: str | None,
    seed: int,
    is_binary: bool = False,
) -> Iterator[pd.DataFrame]:
    """Score the training mean and the mean of the measured neighbours; add the noise ceiling."""
    scored_genes = [(scored.section, scored.group, gene) for gene in genes]
    is_new = np.array([one not in covered for one in scored_genes])
    if not is_new.any():
        return
    covered.update(scored_genes)
    measured, genes = measured[:, is_new], genes[is_new]
    references = {results.NEIGHBOR_MEAN: metrics.neighbor_mean(measured, scored.graph)}
    if training_mean is not None:
        constant = np.broadcast_to(training_mean[is_new], measured.shape)
        references = {results.TRAINING_MEAN: constant, **references}
    for name, values in references.items():
        scores = _score_genes(scored, measured, values, is_binary=is_binary)
        yield scored.tidy(name, genes, scores)
    # known for log1p only, and not for whether it is high
    ceiling = None if is_binary else _noise_ceiling(spots, scored.rows, genes, layer, seed=seed)
    if ceiling is not None:
        scores = {"pcc": ceiling.pcc, "reliability": ceiling.reliability}
        yield scored.tidy(results.NOISE_CEILING, genes, scores)


def as_table(parts: list[pd.DataFrame]) -> pd.DataFrame:
    """All parts as one tidy table with categorical columns."""
    table = pd.concat(parts, ignore_index=True)
    for column in results.COLUMNS[:-1]:
        table[column] = table[column].astype("category")
    return table


def _score_genes(
    scored: ScoredSection,
    measured: NDArray[np.floating],
    predicted: NDArray[np.floating],
    *,
    is_binary: bool,
) -> dict[str, NDArray[np.float64]]:
    """All scores of single genes, each (n_genes,)."""
    names = [
        name
        for name, record in metrics.METRICS.items()
        if record.function and (is_binary or not record.binary_only)
    ]
    return {
        **metrics.per_gene(measured, predicted, names=names),
        "ssim": metrics.ssim(measured, predicted, scored.positions),
        "morans_i_difference": metrics.morans_i(predicted, scored.graph)
        - metrics.morans_i(measured, scored.graph),
    }


def _score_nulls(
    scored: ScoredSection,
    measured: NDArray[np.floating],
    predicted: NDArray[np.floating],
    *,
    is_binary: bool,
    seed: int,
) -> dict[str, NDArray[np.float64]]:
    """Scores of predictions shuffled, and of predictions moved within the section, (n_genes,)."""
    random = np.random.default_rng(seed)  # the same draws for every method
    orders = {
        "shuffled": [random.permutation(len(measured)) for _ in range(_N_NULLS)],
        "spatial_null": [
            metrics.spatial_null(scored.positions, generator=random) for _ in range(_N_NULLS)
        ],
    }
    names = ["pcc", "auc", "average_precision"] if is_binary else ["pcc"]
    draws = {
        null: [metrics.per_gene(measured, predicted[order], names=names) for order in permutations]
        for null, permutations in orders.items()
    }
    return {
        f"{name}_{null}": np.mean([scores[name] for scores in of_null], axis=0)
        for name in names
        for null, of_null in draws.items()
    }


def _score_section(
    measured: NDArray[np.floating], predicted: NDArray[np.floating], *, seed: int
) -> dict[str, float]:
    """Scores of a section as a whole."""
    scores = {}
    n_spots, n_genes = measured.shape
    if n_genes > 1:  # correlations over genes need two
        scores["pcc_per_spot"] = float(metrics.pcc_per_spot(measured, predicted).mean())
        scores["spearman_per_spot"] = float(metrics.spearman_per_spot(measured, predicted).mean())
    if n_genes > 2:  # and those over pairs of genes three
        scores["gene_correlation"] = metrics.gene_correlation(measured, predicted)
    if n_spots > _N_CLUSTERS:
        agreement = metrics.cluster_agreement(
            measured, predicted, n_clusters=_N_CLUSTERS, seed=seed
        )
        scores |= {"ari": agreement.ari, "nmi": agreement.nmi}
    return scores


def _without_units(scores: dict[str, Any]) -> dict[str, Any]:
    """Scores that do not change if every gene is shifted and scaled."""
    return {name: value for name, value in scores.items() if not metrics.METRICS[name].needs_units}


def _noise_ceiling(
    spots: SpotTable,
    rows: NDArray[np.intp],
    genes: NDArray[np.str_],
    layer: str | None,
    *,
    seed: int,
) -> metrics.NoiseCeiling | None:
    """What counting noise leaves to be predicted; None unless the layer is log1p of counts."""
    steps = spots.steps.layer(layer)
    if layer != _keys.LOG1P or any(not isinstance(step, NormalizeStep) for step in steps):
        return None
    counts = sp.csr_matrix(spots.table.X[rows])
    if (counts.data != np.floor(counts.data)).any():  # thinning needs whole counts
        return None
    target_sum = next((step.target_sum for step in steps if isinstance(step, NormalizeStep)), 1e4)
    return metrics.noise_ceiling(
        counts, genes=spots.table.var_names.get_indexer(genes), target_sum=target_sum, seed=seed
    )


def _graph(spots: SpotTable) -> sp.csr_matrix:
    """Neighbourhood graph of the table; if it has none, that of the nearest six."""
    if _keys.CONNECTIVITIES in spots.table.obsp:
        return spots.graph
    smallest = int(np.unique(spots.section_of_row, return_counts=True)[1].min())
    n_neighbors = min(_N_NEIGHBORS, smallest - 1)  # a tiny section has fewer spots
    copied = neighbors(spots.sdata, n_neighbors=n_neighbors, table_name=spots.name, copy=True)
    return cast("SpatialData", copied).tables[spots.name].obsp[_keys.CONNECTIVITIES].tocsr()
