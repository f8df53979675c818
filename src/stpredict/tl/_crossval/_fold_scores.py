"""Scores and protocol of a cross-validation."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from stpredict import _keys, _validate
from stpredict._sdata._provenance import recorded
from stpredict.results import Protocol
from stpredict.targets._counts import COUNTS_UNITS
from stpredict.tl._crossval._scores import as_table, score_method, score_references, scored_sections
from stpredict.tl._fitting._record import package_versions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from anndata import AnnData

    from stpredict._sdata._spot_table import SpotTable
    from stpredict.tl._crossval._folds import Folds
    from stpredict.tl._crossval._outcome import Outcome


def check_sizes(spots: SpotTable, folds: Folds) -> None:
    """Require at least two spots in every section that a fold leaves out."""
    for fold in folds:
        names, counts = np.unique(spots.section_of_row[fold.rows], return_counts=True)
        if counts.min() < 2:
            raise ValueError(f"section {names[counts.argmin()]!r} has a single spot in a fold")


def score_outcomes(
    spots: SpotTable, folds: Folds, outcomes: Mapping[tuple[str, str], Outcome], *, seed: int
) -> pd.DataFrame:
    """Tidy scores of all methods and references in all sections."""
    parts: list[pd.DataFrame] = []
    covered: set[tuple[str, str, str]] = set()
    for fold in folds:
        by_method = {
            method: outcome for (name, method), outcome in outcomes.items() if name == fold.name
        }
        for scored in scored_sections(spots, fold.rows, folds.labels):
            inside = np.searchsorted(fold.rows, scored.rows)
            for method, outcome in by_method.items():
                measured, predicted = outcome.measured[inside], outcome.predicted[inside]
                genes, variance = outcome.genes, outcome.training_variance
                mean = outcome.training_mean
                options: dict[str, Any] = {"seed": seed, "is_binary": outcome.is_binary}
                parts += score_method(
                    scored, method, measured, predicted, genes, variance=variance, **options
                )
                layer = None if outcome.units == COUNTS_UNITS else outcome.layer or None
                parts += score_references(
                    scored, spots, measured, genes, mean, covered, layer=layer, **options
                )
    return as_table(parts)


def cross_validation_protocol(
    spots: SpotTable,
    folds: Folds,
    outcomes: dict[tuple[str, str], Outcome],
    *,
    n_failed: int,
    notes: tuple[str, ...],
    seed: int,
) -> Protocol:
    """How the scores of a cross-validation were obtained; outcomes by fold and method."""
    first = next(iter(outcomes.values()))
    n_genes: dict[str, int] = {}
    for (_, method), outcome in outcomes.items():
        # folds may select different genes: the most are reported
        n_genes[method] = max(n_genes.get(method, 0), len(outcome.genes))
    given = sorted({method for (_, method), one in outcomes.items() if not one.selected})
    return Protocol(
        sections=tuple(spots.section_names),
        n_spots=int(spots.table.n_obs),
        n_patients=n_patients(spots.table),
        n_genes=n_genes,
        units=first.units,
        layer=first.layer or None,
        group_kind=folds.kind,
        folds={fold.name: fold.groups for fold in folds},
        gene_selection=_gene_selection(
            spots, given, part="sections" if folds.buffer_um is None else "spots"
        ),
        leaking_patients=folds.torn_patients,
        leaking_sections=folds.torn_sections,
        buffer_um=folds.buffer_um,
        realigned=bool(recorded(spots.table, _keys.REALIGN)),
        notes=notes,
        n_failed=n_failed,
        seed=seed,
        date=datetime.date.today().isoformat(),
        versions=package_versions(),
    )


def n_patients(table: AnnData) -> int | None:
    """Number of patients; None if they are not known."""
    return int(table.obs[_keys.PATIENT].nunique()) if _keys.PATIENT in table.obs else None


def _gene_selection(spots: SpotTable, given: Sequence[str], *, part: str) -> str:
    step = spots.steps.select_genes
    if step is None or step.n_top_genes is None:
        return "given in advance"
    selection = f"chosen by {step.flavor} on the training {part} of each fold"
    return selection + (f"; those of {_validate.listing(given)} given in advance" if given else "")
