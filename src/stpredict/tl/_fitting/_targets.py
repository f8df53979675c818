"""Targets of a model: fitted on measured values of the training rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stpredict import _validate, targets
from stpredict._log import info
from stpredict.targets._counts import Counts
from stpredict.tl._fitting._values import N_FACTORS
from stpredict.training import Measured

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stpredict.targets import Targets
    from stpredict.tl._fitting._values import Task, Values

#: Default quantile above which a gene is high.
_QUANTILE = 0.5


@dataclass(frozen=True, eq=False)
class TrainingTargets:
    """What a network learns: fitted targets, their values and the weights of all rows."""

    fitted: Targets  # on the training rows
    measured: Measured  # of all rows
    weights: NDArray[np.float64] | None  # (n_obs,)


def fit_targets(values: Values, task: Task, training: NDArray[np.intp]) -> TrainingTargets:
    """Fit what the network is to predict on training rows."""
    if values.weights is not None and not values.weights[0][training].any():
        column = values.weights[1].column
        raise ValueError(f"the weights in obs[{column!r}] are 0 for every training spot")
    options: dict[str, Any] = {"columns": values.columns, "seed": task.seed}
    kind: Literal["genes", "svd", "nmf", "autoencoder", "counts", "high"] = task.targets
    if values.library is not None:  # a likelihood of counts takes them as they are
        kind, options["library"] = "counts", values.library[training]
    elif kind == "high":
        options["quantile"] = task.quantile or _QUANTILE
    elif kind == "genes":
        # a loss that compares the genes of a spot needs them in common units
        common = values.loss is not None and values.loss.needs_several_targets
        scaling = task.scaling or ("none" if common else "standard")
        options |= {"n_factors": task.n_factors, "scaling": scaling}
    else:
        default = "standard" if kind == "autoencoder" else "none"
        options |= {"n_factors": task.n_factors or N_FACTORS, "scaling": task.scaling or default}
    # all methods are asked the same question, whichever rows they hold out
    rows = slice(None) if kind == "high" else training
    fitted = targets.fit(kind, values.fit_genes[rows], **options)
    constant = [gene for gene, flag in zip(values.genes, fitted.constant, strict=True) if flag]
    if constant:
        info(
            f"{len(constant)} of {len(values.genes)} genes are constant in training and predicted "
            f"as that constant: {_validate.listing(constant)}"
        )
    weights = None if values.weights is None else values.weights[0]
    return TrainingTargets(fitted, measured_targets(values, fitted), weights)


def measured_targets(values: Values, fitted: Targets) -> Measured:
    """Targets of all rows."""
    measured = Measured(fitted.transform(values.fit_genes), section=values.section)
    if values.library is None or not isinstance(fitted, Counts):
        return measured
    log_library = np.log(values.library).astype(np.float32)
    return replace(measured, log_library=log_library, log_share=fitted.log_share)
