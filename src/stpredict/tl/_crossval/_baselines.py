"""The baseline of a cross-validation: tuned ridge regression on the spot's own embedding."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from stpredict._log import info
from stpredict._sdata._spot_table import open_table
from stpredict.models._methods import RIDGE
from stpredict.models._records import Hyperparameters, RidgeOptions
from stpredict.results import TUNED_RIDGE
from stpredict.targets._counts import COUNTS_UNITS
from stpredict.tl._fitting._runner import Plan, fit
from stpredict.tl._fitting._values import Task

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from spatialdata import SpatialData

    from stpredict._sdata._spot_table import SpotTable
    from stpredict.models import Model
    from stpredict.tl._crossval._outcome import Outcome


def ridge_baselines(
    spots: SpotTable, outcomes: Sequence[Outcome], *, groups: str | None
) -> dict[str, Callable[[SpatialData], Model]]:
    """Tuned ridge on every embedding that the methods read; the first has the plain name."""
    recorded = [slot for slot in spots.steps.embed if slot in spots.table.obsm]
    by_embedding: dict[str, Outcome] = {}
    for outcome in outcomes:
        # models on pixels read no embedding: ridge reads the first recorded one
        slot = outcome.embedding or next(iter(recorded), "")
        if slot:
            by_embedding.setdefault(slot, outcome)
    if not by_embedding:
        info("cross_validate: no ridge baseline without an embedding (stp.pp.embed)")
    return {
        f"{TUNED_RIDGE}_{slot}" if number else TUNED_RIDGE: functools.partial(
            _fit_baseline,
            embedding=slot,
            layer=outcome.layer or None,
            genes=None if outcome.selected else tuple(map(str, outcome.genes)),
            groups=groups,
            per_10k=outcome.units == COUNTS_UNITS,
            quantile=outcome.quantile if outcome.is_binary else None,
            table_name=spots.name,
        )
        for number, (slot, outcome) in enumerate(by_embedding.items())
    }


def _fit_baseline(
    sdata: SpatialData,
    *,
    embedding: str,
    layer: str | None,
    genes: Sequence[str] | None,
    groups: str | None,
    per_10k: bool,
    quantile: float | None,
    table_name: str,
) -> Model:
    task = Task(
        embedding=embedding,
        genes=genes,
        layer=layer,
        groups=groups,
        targets="genes" if quantile is None else "high",
        quantile=quantile,
        scaling="standard" if quantile is None else None,
        per_10k=per_10k,
    )
    options = Hyperparameters(estimator=RidgeOptions())
    return fit(open_table(sdata, table_name), Plan(RIDGE, task, options))
