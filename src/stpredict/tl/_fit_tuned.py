"""Choose among methods by what they predict of groups left out, and fit the best."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from stpredict import metrics
from stpredict._log import tell
from stpredict._sdata import _sections
from stpredict.tl._crossval._folds import folds_of
from stpredict.tl._crossval._jobs import fold_outcomes
from stpredict.tl._crossval._run import Outcome
from stpredict.tl._fitting._bases import check_fits, fit_base

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from spatialdata import SpatialData

    from stpredict.models import Model


def fit_tuned(
    sdata: SpatialData,
    candidates: Mapping[str, Callable[[SpatialData], Model]],
    *,
    groups: str | None = None,
    device: str = "auto",
) -> Model:
    """Fit the best of some candidates, chosen by inner cross-validation.

    Every candidate is fitted once for each group, on all others, as `tl.cross_validate` does, and
    the one with the highest mean PCC on what was left out is fitted to all sections given. Within
    `tl.cross_validate` this is nested cross-validation: the sections left out outside have no say.

    Parameters
    ----------
    sdata
        Training sections, with all that the candidates take.
    candidates
        By name, functions that take sections and return a fitted model; for hyperparameters,
        ``{f"lr {lr}": functools.partial(stp.tl.fit_deepspot, learning_rate=lr) for lr in
        (1e-4, 1e-3)}``.
    groups
        Column of ``obs`` whose groups are left out one at a time; by default the patient where
        there are several, else the section.
    device
        Where candidates predict: ``"auto"``: cuda, then mps, then cpu.

    Returns
    -------
    Model
        The best candidate, fitted to all sections. ``model.training["tuned"]`` has its name as
        ``chosen``, and the mean PCC of each candidate as ``pcc``. ``sdata`` is not changed.

    Raises
    ------
    KeyError
        If ``groups`` is no column.
    TypeError
        If a candidate is no function, or returns no model.
    ValueError
        If there are fewer than two candidates or groups, a section or patient stands on both sides
        of a split, or a candidate fails in a fold.

    Examples
    --------
    >>> import functools
    >>> import stpredict as stp
    >>> stp.settings.verbosity = 0
    >>> sdata = stp.datasets.phantom(2)
    >>> stp.pp.normalize(sdata)
    >>> stp.pp.select_genes(sdata, n_top_genes=5)
    >>> stp.pp.embed(sdata)
    >>> spot = functools.partial(stp.tl.fit_ridge, context="spot")
    >>> candidates = {"genes": spot, "factors": functools.partial(spot, targets="svd")}
    >>> model = stp.tl.fit_tuned(sdata, candidates)
    >>> model.training["tuned"]["chosen"] in candidates
    True
    >>> stp.settings.verbosity = 1
    """
    check_fits(candidates, what="candidates")
    if len(candidates) < 2:
        raise ValueError(f"there is nothing to choose among {len(candidates)} candidates")
    table = _sections.table_of(sdata)
    folds = folds_of(table, groups, purpose="tuning")
    folds.refuse_leaks(groups)
    region = _sections.region_of(table)
    scores: dict[str, list[float]] = {name: [] for name in candidates}
    for fold, rows in folds:
        for name, outcome in fold_outcomes(sdata, fold, rows, dict(candidates), (), device):
            if not isinstance(outcome, Outcome):
                raise ValueError(f"{name} failed without {fold}:\n{outcome.traceback}")
            for section in dict.fromkeys(region[rows]):
                inside = region[rows] == section
                pcc = metrics.pcc(outcome.measured[inside], outcome.predicted[inside])
                scores[name].append(float(pcc.mean()))
    means = {name: float(np.mean(values)) for name, values in scores.items()}
    best = max(means, key=lambda name: means[name])
    told = ", ".join(f"{name} {value:.3f}" for name, value in means.items())
    tell(f"fit_tuned: {best} (mean PCC of what was left out: {told})")
    model = fit_base(best, candidates[best], _sections.copy_of(sdata))
    return replace(model, training={**model.training, "tuned": {"chosen": best, "pcc": means}})
