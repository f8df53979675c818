"""All that was predicted out of fold, scored, with what it is to be read by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from stpredict import _keys, metrics, results
from stpredict._sdata import _layers, _provenance, _sections
from stpredict.pp._neighbors import neighbors
from stpredict.tl._crossval._section_scores import Tissue, score_genes, score_method, tidy

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from anndata import AnnData
    from numpy.typing import NDArray
    from spatialdata import SpatialData

    from stpredict.tl._crossval._folds import Folds
    from stpredict.tl._crossval._run import Outcome

#: As in a hexagonal grid.
_NEAREST = 6

Done = dict[tuple[str, str], "Outcome"]


def score_folds(
    sdata: SpatialData, methods: tuple[str, ...], folds: Folds, done: Done, *, seed: int
) -> pd.DataFrame:
    """Tidy scores of all methods and references in all sections."""
    table = _sections.table_of(sdata)
    graph, ridges = graph_of(sdata), ridge_names(done.values())
    sections = _sections.sections(sdata)
    parts: list[pd.DataFrame] = []
    for fold, rows in folds:
        here = {name: done[fold, name] for name in methods if (fold, name) in done}
        for section in sections:
            inside = np.flatnonzero(np.isin(rows, section.rows))
            if not len(inside):
                continue
            of_table = rows[inside]
            tissue = tissue_of(section, of_table, graph, fold=fold)
            for name, outcome in here.items():
                parts += score_method(
                    tissue,
                    name,
                    outcome.measured[inside],
                    outcome.predicted[inside],
                    outcome.genes,
                    variance=outcome.training_variance,
                    seed=seed,
                )
            parts += _ridges(tissue, here, inside, ridges)
            parts += _means(tissue, table, here, inside, of_table, seed=seed)
    scores = pd.concat(parts, ignore_index=True)
    for column in results.COLUMNS[:-1]:
        scores[column] = scores[column].astype("category")
    return scores


def ridge_names(done: Iterable[Outcome]) -> dict[str, str]:
    """By embedding, what the ridge regression on it is called: plainly, on that of the first."""
    embeddings = list(dict.fromkeys(o.embedding for o in done if o.ridge.size))
    return {
        slot: f"{results.TUNED_RIDGE}_{slot or 'tiles'}" if number else results.TUNED_RIDGE
        for number, slot in enumerate(embeddings)
    }


def _ridges(
    tissue: Tissue, here: dict[str, Outcome], inside: NDArray[np.intp], names: dict[str, str]
) -> Iterator[pd.DataFrame]:
    """Tuned ridge, once on every embedding."""
    seen = set()
    for outcome in here.values():
        if outcome.ridge.size and outcome.embedding not in seen:
            seen.add(outcome.embedding)
            scores = score_genes(tissue, outcome.measured[inside], outcome.ridge[inside])
            yield tidy(tissue, names[outcome.embedding], outcome.genes, scores)


def _means(
    tissue: Tissue,
    table: AnnData,
    here: dict[str, Outcome],
    inside: NDArray[np.intp],
    rows: NDArray[np.intp],
    *,
    seed: int,
) -> Iterator[pd.DataFrame]:
    """Training mean, mean of measured neighbours and ceiling, once of every gene."""
    seen: set[str] = set()
    for outcome in here.values():
        fresh = np.array([gene not in seen for gene in outcome.genes])
        if not fresh.any():
            continue
        genes = outcome.genes[fresh]
        seen |= set(genes)
        measured = outcome.measured[inside][:, fresh]
        mean = np.broadcast_to(outcome.training_mean[fresh], measured.shape)
        around = metrics.neighbor_mean(measured, tissue.graph)
        for name, values in ((results.TRAINING_MEAN, mean), (results.NEIGHBOR_MEAN, around)):
            yield tidy(tissue, name, genes, score_genes(tissue, measured, values))
        ceiling = noise_ceiling(table, rows, genes, outcome.layer or None, seed=seed)
        if ceiling is not None:
            known = {"pcc": ceiling.pcc, "reliability": ceiling.reliability}
            yield tidy(tissue, results.NOISE_CEILING, genes, known)


def noise_ceiling(
    table: AnnData,
    rows: NDArray[np.intp],
    genes: NDArray[np.str_],
    layer: str | None,
    *,
    seed: int,
) -> metrics.NoiseCeiling | None:
    """What noise leaves to be predicted; None where X has no counts or the layer is not log1p."""
    if layer != _keys.LOG1P or _layers.steps_of(table, layer):
        return None
    counts = sp.csr_matrix(table.X[rows])
    if (counts.data != np.floor(counts.data)).any():
        return None
    return metrics.noise_ceiling(
        counts,
        genes=table.var_names.get_indexer(genes),
        target_sum=_provenance.recorded(table, "normalize").get("target_sum", 1e4),
        seed=seed,
    )


def tissue_of(
    section: _sections.Section, rows: NDArray[np.intp], graph: Any, *, fold: str = ""
) -> Tissue:
    """Some rows of the table, all of one section, as tissue; ``graph`` is that of the table."""
    return Tissue(
        fold=fold,
        section=section.name,
        positions=section.centers_um[pd.Index(section.rows).get_indexer(rows)],
        graph=graph[rows][:, rows],
    )


def graph_of(sdata: SpatialData) -> Any:
    """Spatial neighbours, (n_obs, n_obs) CSR: those of the table, or the six nearest."""
    table = _sections.table_of(sdata)
    if _keys.CONNECTIVITIES not in table.obsp:
        smallest = int(np.unique(_sections.region_of(table), return_counts=True)[1].min())
        copied = _sections.copy_of(sdata)
        neighbors(copied, n_neighbors=min(_NEAREST, smallest - 1))
        table = _sections.table_of(copied)
    return table.obsp[_keys.CONNECTIVITIES].tocsr()
