"""The shared runner: an opened table and a method in, a fitted model out."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from sklearn.neighbors import KDTree

from stpredict import _validate
from stpredict._sdata._inputs import read_inputs, recipe_of
from stpredict._sdata._layer_steps import units_of
from stpredict.models import Model
from stpredict.models._records import Hyperparameters, TrainingRecord
from stpredict.models._save import HISTORY_COLUMNS
from stpredict.targets import Standard
from stpredict.targets._counts import COUNTS_UNITS
from stpredict.tl._fitting._split import hold_out_group, use_all_rows
from stpredict.tl._fitting._values import (
    fit_targets,
    make_loss,
    measured_targets,
    read_values,
    read_weights,
    weight_record,
)
from stpredict.training import Fitted, Inputs, fit_network

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import nn

    from stpredict._sdata._spot_table import SpotTable
    from stpredict._sdata._steps import Recipe
    from stpredict.models._methods import Method
    from stpredict.models._records import EstimatorOptions
    from stpredict.targets import Targets
    from stpredict.tl._fitting._split import Split
    from stpredict.tl._fitting._task import Task
    from stpredict.tl._fitting._values import Values
    from stpredict.training import Measured, Pixels

#: Packages whose versions a model records.
_VERSIONS = ("stpredict", "torch", "lightning", "scikit-learn", "spatialdata", "anndata", "numpy")


@dataclass(frozen=True)
class Plan:
    """A method, what it is to learn, and how: the arguments of a ``fit_*`` function.

    ``start`` fills the network with the weights that training starts from.
    """

    method: Method
    task: Task
    hyperparameters: Hyperparameters = field(default_factory=Hyperparameters)
    start: Callable[[nn.Module], None] | None = None

    def build(self, n_features: int, n_targets: int) -> nn.Module:
        """Build the network."""
        network = self.method.build(
            n_features,
            n_targets,
            context=self.task.context,
            options=self.hyperparameters.network,
        )
        if self.start is not None:
            self.start(network)
        return network


def fit(spots: SpotTable, plan: Plan) -> Model:
    """Fit a method on embeddings: step by step, or by its estimator."""
    method, task = plan.method, plan.task
    _validate.one_of("context", task.context, method.contexts)
    uses_subtiles, uses_neighbors = method.contexts[task.context]
    embedding = str(task.embedding)
    center, subtiles, padded = read_inputs(
        spots, embedding, subtiles=uses_subtiles, neighbors=uses_neighbors
    )
    values = read_values(spots, task)
    if method.estimate is None:
        rows = hold_out_group(spots, groups=task.groups, seed=task.seed)
    else:
        rows = use_all_rows(spots, groups=task.groups)
    schedule = plan.hyperparameters.schedule
    inputs = Inputs(
        center=center,
        scaler=Standard.fit(center[rows.training]),
        subtiles=subtiles,
        subtile_scaler=_subtile_scaler(subtiles, rows.training),
        neighbors=padded,
        order=_spatial_order(spots) if schedule and schedule.patch_size > 1 else None,
    )
    recipe = recipe_of(spots, embedding, task.layer, neighbors=uses_neighbors)
    return fit_inputs(spots, plan, values, rows, inputs=inputs, recipe=recipe)


def fit_inputs(
    spots: SpotTable,
    plan: Plan,
    values: Values,
    rows: Split,
    *,
    inputs: Inputs | Pixels,
    recipe: Recipe,
) -> Model:
    """Fit a method to inputs that have been read."""
    task = plan.task
    targets = fit_targets(values, task, rows.training)
    measured = measured_targets(values, targets)
    if plan.method.estimate is None:
        weights = read_weights(spots.table, task.sample_weight, rows.training)
        fitted, hyperparameters = _train(plan, inputs, measured, rows, targets, weights)
    else:
        fitted, hyperparameters = _estimate(plan, inputs, measured, rows, targets)
    on_embeddings = isinstance(inputs, Inputs)
    counts = values.library is not None or task.per_10k
    return Model(
        method=plan.method.name,
        network=fitted.network,
        genes=tuple(values.genes),
        context=task.context,
        hyperparameters=hyperparameters,
        recipe=recipe,
        training=TrainingRecord(
            sections=tuple(spots.section_names),
            groups=tuple(sorted(set(rows.groups.tolist()))),
            held_out=rows.held_out,
            n_spots=len(rows.training),
            n_held_out=len(rows.validation),
            best_epoch=fitted.best_epoch,
            seed=task.seed,
            versions=package_versions(),
            sample_weight=weight_record(spots, task.sample_weight),
            # the factors of new sections are found in the same genes
            target_genes=None if targets.outputs is None else tuple(spots.table.var_names),
        ),
        units=COUNTS_UNITS if counts else units_of(task.layer, recipe.layer_steps),
        inputs=inputs.scaler if on_embeddings else None,
        targets=targets,
        history=fitted.history,
        subtiles=inputs.subtile_scaler if on_embeddings else None,
    )


def package_versions() -> dict[str, str]:
    """Versions of the packages that a model is made with."""
    versions = {}
    for name in _VERSIONS:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:  # run from a source tree
            continue
    return versions


def _train(
    plan: Plan,
    inputs: Inputs | Pixels,
    measured: Measured,
    rows: Split,
    targets: Targets,
    weights: NDArray[np.float64] | None,
) -> tuple[Fitted, Hyperparameters]:
    """Train a network step by step."""
    schedule = plan.hyperparameters.schedule
    if schedule is None:
        raise TypeError(f"{plan.method.name} is trained step by step: it needs a schedule")
    n_features = inputs.center.shape[1] if isinstance(inputs, Inputs) else 0
    loss = make_loss(plan.task, measured.targets.shape[1])
    fitted = fit_network(
        lambda: plan.build(n_features, targets.n_outputs),
        inputs,
        measured,
        training=rows.training,
        validation=rows.validation,
        loss=loss,
        schedule=schedule,
        seed=plan.task.seed,
        device=plan.task.device,
        weights=weights,
    )
    name = loss.name if isinstance(plan.task.loss, str) else repr(plan.task.loss)
    return fitted, replace(plan.hyperparameters, loss=name)


def _estimate(
    plan: Plan, inputs: Inputs | Pixels, measured: Measured, rows: Split, targets: Targets
) -> tuple[Fitted, Hyperparameters]:
    """Fill a network by the estimator of its method."""
    estimate = plan.method.estimate
    if estimate is None or not isinstance(inputs, Inputs):
        raise TypeError(f"{plan.method.name} has no estimator on embeddings")
    network = plan.build(inputs.center.shape[1], targets.n_outputs).eval()
    pooled = torch.cat([part for _, part in inputs.pooled(network, torch.device("cpu"))])
    options: EstimatorOptions = estimate(
        network,
        pooled.numpy(),
        measured.targets,
        rows.groups,
        plan.hyperparameters.estimator,
        seed=plan.task.seed,
    )
    history = pd.DataFrame(columns=list(HISTORY_COLUMNS))
    fitted = Fitted(network, history, best_epoch=0)
    return fitted, replace(plan.hyperparameters, estimator=options)


def _spatial_order(spots: SpotTable) -> NDArray[np.int64]:
    """All rows, with neighbours in space close in order: the leaves of a tree over each section."""
    by_section = [
        section.rows[np.asarray(KDTree(section.centers_um).get_arrays()[1])]
        for section in spots.sections
    ]
    return np.concatenate(by_section).astype(np.int64)


def _subtile_scaler(
    subtiles: NDArray[np.float32] | None, training: NDArray[np.intp]
) -> Standard | None:
    """Scale sub-tiles so that the sum over them varies about as much as a tile."""
    if subtiles is None:
        return None
    _, n_subtiles, n_features = subtiles.shape
    each = Standard.fit(subtiles[training].reshape(-1, n_features))
    return each.times(n_subtiles)
