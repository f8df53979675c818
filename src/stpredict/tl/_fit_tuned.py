"""Choose among methods by cross-validation, and fit the best."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from stpredict import _runtime, metrics
from stpredict._arguments import checked
from stpredict._log import info
from stpredict._sdata._spot_table import open_table
from stpredict.tl._crossval._folds import leave_groups_out
from stpredict.tl._crossval._jobs import run_fold
from stpredict.tl._crossval._outcome import Outcome, check_same_quantile
from stpredict.tl._fitting._bases import call_function, check_functions
from stpredict.tl._fitting._docs import shared

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray
    from spatialdata import SpatialData

    from stpredict.models import Model


@checked
@shared()
def fit_tuned(
    sdata: SpatialData,
    candidates: Mapping[str, Callable[[SpatialData], Model]],
    *,
    groups: str | None = None,
    device: str = "auto",
    table_name: str = "table",
) -> Model:
    """Fit the best of several candidates, chosen by inner cross-validation.

    The candidate with the highest mean PCC on groups left out, as in `tl.cross_validate`, is fitted
    to all sections; for ``targets="high"`` that with the highest ROC-AUC at the threshold. As a
    method of `tl.cross_validate` this is nested cross-validation: the outer test sections do not
    influence the choice.

    Parameters
    ----------
    sdata
        Training sections, with everything that the candidates read.
    candidates
        Functions by name that take sections and return a fitted model.
    groups
        Column of ``obs`` whose groups are left out; by default the patient if there are several,
        else the section.
    {device}
    {table_name}

    Returns
    -------
    Model
        Best candidate; ``model.training.tuned`` has the mean PCC, or ROC-AUC, of each candidate,
        best first.

    Raises
    ------
    KeyError
        If ``groups`` is no column.
    TypeError
        If a candidate is no function, or returns no model.
    ValueError
        If there are fewer than two candidates or groups, a section or patient is on both sides of a
        split, a candidate fails in a fold, or some candidates learn values and others whether they
        are high, or with other quantiles.

    Examples
    --------
    >>> import functools
    {prepared}
    >>> spot = functools.partial(stp.tl.fit_ridge, context="spot")
    >>> candidates = {"genes": spot, "factors": functools.partial(spot, targets="svd")}
    >>> model = stp.tl.fit_tuned(sdata, candidates)
    >>> sorted(model.training.tuned)
    ['factors', 'genes']
    """
    _runtime.resolve_device(device)  # raises if there is no such device
    check_functions(candidates, what="candidates")
    if len(candidates) < 2:
        raise ValueError(f"fit_tuned needs at least two candidates, not {len(candidates)}")
    spots = open_table(sdata, table_name)
    folds = leave_groups_out(spots, groups, purpose="tuning")
    folds.refuse_leaks(groups)
    scores: dict[str, list[float]] = {name: [] for name in candidates}
    metric = ""
    for fold in folds:
        sections = spots.section_of_row[fold.rows]
        outcomes: dict[str, Outcome] = {}
        for name, outcome in run_fold(spots, fold, candidates, device=device):
            if not isinstance(outcome, Outcome):
                raise ValueError(f"{name} failed without {fold.name}:\n{outcome.traceback}")
            outcomes[name] = outcome
        check_same_quantile(outcomes)
        for name, outcome in outcomes.items():
            metric = "auc" if outcome.is_binary else "pcc"
            scores[name] += _section_means(outcome, sections, metric)
    means = {name: float(np.mean(values)) for name, values in scores.items()}
    ranked = dict(sorted(means.items(), key=lambda item: -item[1]))
    best = next(iter(ranked))
    listing = ", ".join(f"{name} {value:.3f}" for name, value in ranked.items())
    label = metrics.METRICS[metric].label
    info(f"fit_tuned: {best} (mean {label} on the groups left out: {listing})")
    model = call_function(best, candidates[best], spots.copy())  # which the function may change
    return replace(model, training=replace(model.training, tuned=ranked))


def _section_means(outcome: Outcome, sections: NDArray[np.str_], metric: str) -> list[float]:
    """Mean of a metric over the genes of each section, as `tl.cross_validate` scores them."""
    means = []
    for section in dict.fromkeys(sections):
        inside = sections == section
        pair = outcome.measured[inside], outcome.predicted[inside]
        values = metrics.per_gene(*pair, names=[metric])[metric]
        defined = values[np.isfinite(values)]  # a gene that is high in all spots has no AUC
        if not len(defined):
            raise ValueError(f"no gene is both high and low in {section}: change quantile=")
        means.append(float(defined.mean()))
    return means
