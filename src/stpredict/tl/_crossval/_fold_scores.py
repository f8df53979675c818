"""Scores of a cross-validation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stpredict.targets._counts import COUNTS_UNITS
from stpredict.tl._crossval._scores import (
    as_table,
    score_method,
    score_references,
    scored_sections,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

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
    for fold in folds:
        by_method = {
            method: outcome for (name, method), outcome in outcomes.items() if name == fold.name
        }
        for scored in scored_sections(spots, fold.rows, folds.labels):
            inside = np.searchsorted(fold.rows, scored.rows)
            covered: set[str] = set()  # genes whose references are in the scores already
            for method, outcome in by_method.items():
                measured = outcome.measured[inside]
                parts += score_method(
                    scored,
                    method,
                    measured,
                    outcome.predicted[inside],
                    outcome.genes,
                    variance=outcome.training_variance,
                    seed=seed,
                )
                is_new = np.array([gene not in covered for gene in outcome.genes])
                covered |= set(outcome.genes)
                if is_new.any():
                    parts += score_references(
                        scored,
                        spots,
                        measured[:, is_new],
                        outcome.genes[is_new],
                        outcome.training_mean[is_new],
                        layer=None if outcome.units == COUNTS_UNITS else outcome.layer or None,
                        seed=seed,
                    )
    return as_table(parts)
