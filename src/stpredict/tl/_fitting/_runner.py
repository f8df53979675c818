"""The shared runner: measured sections and a method in, a fitted model out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from sklearn.neighbors import KDTree

from stpredict import _validate
from stpredict._sdata import _layers, _recipe, _sections
from stpredict.models import Model
from stpredict.models._ridge import Ridge
from stpredict.models._save import HISTORY_COLUMNS
from stpredict.targets import Standard
from stpredict.targets._counts import COUNTS_UNITS
from stpredict.tl._fitting._split import split, whole
from stpredict.tl._fitting._task import (
    fit_targets,
    measured_of,
    read_loss,
    read_values,
    read_weights,
    weighing,
)
from stpredict.training import Fitted, Inputs, Measured, Schedule, fit_network

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData
    from numpy.typing import NDArray
    from spatialdata import SpatialData
    from torch import nn

    from stpredict.models._methods import Method
    from stpredict.tl._fitting._split import Split
    from stpredict.tl._fitting._task import Task, Values
    from stpredict.training import Pixels

#: Packages whose versions a model remembers.
_VERSIONS = ("stpredict", "torch", "lightning", "scikit-learn", "spatialdata", "anndata", "numpy")


def fit(
    sdata: SpatialData,
    method: Method,
    task: Task,
    *,
    network: dict[str, Any],
    schedule: Schedule | None = None,
    estimator: dict[str, Any] | None = None,
) -> Model:
    """Check a SpatialData, and fit a method to it: step by step, or by its estimator."""
    _validate.one_of("context", task.context, method.contexts)
    uses_subtiles, uses_neighbors = method.contexts[task.context]
    table = _sections.table_of(sdata)
    found = _sections.sections(sdata)
    center, subtiles, padded = _recipe.read_inputs(
        table, task.embedding, subtiles=uses_subtiles, neighbors=uses_neighbors
    )
    values = read_values(table, task)
    choose = whole if method.estimate else split
    rows = choose(table, found, groups=task.groups, seed=task.seed)
    inputs = Inputs(
        center=center,
        scaler=Standard.fit(center[rows.training]),
        subtiles=subtiles,
        subtile_scaler=_subtile_scaler(subtiles, rows.training),
        neighbors=padded,
        order=_order(found) if schedule and schedule.patch_size > 1 else None,
    )
    return fit_inputs(
        table,
        method,
        task,
        values,
        rows,
        inputs=inputs,
        center=center,
        recipe=_recipe.recipe_of(table, task.embedding, task.layer, neighbors=uses_neighbors),
        network=network,
        schedule=schedule,
        estimator=estimator,
    )


def fit_inputs(
    table: AnnData,
    method: Method,
    task: Task,
    values: Values,
    rows: Split,
    *,
    inputs: Inputs | Pixels,
    center: NDArray[np.float32],
    recipe: dict[str, Any],
    network: dict[str, Any],
    schedule: Schedule | None = None,
    estimator: dict[str, Any] | None = None,
    noted: dict[str, Any] | None = None,
    start: Callable[[nn.Module], None] | None = None,
) -> Model:
    """Fit a method to inputs that are ready.

    ``center``, (n, d), are the embeddings that the ridge regression beside it sees; ``noted`` is
    what the model remembers among its hyperparameters; ``start`` fills the network with weights to
    start from.
    """
    weights = read_weights(table, task.sample_weight, rows.training)
    targets = fit_targets(values, task, rows.training)
    measured = measured_of(values, targets)

    def build() -> nn.Module:
        made = method.network(center.shape[1], targets.n_outputs, context=task.context, **network)
        if start is not None:
            start(made)
        return made

    chosen: dict[str, Any]
    if schedule is not None:
        loss = read_loss(task, len(values.genes))
        fitted = fit_network(
            build,
            inputs,
            measured,
            training=rows.training,
            validation=rows.validation,
            loss=loss,
            schedule=schedule,
            seed=task.seed,
            device=task.device,
            weights=weights,
        )
        named = loss.name if isinstance(task.loss, str) else repr(task.loss)
        chosen = {**vars(schedule), "loss": named}
    else:
        fitted, chosen = _estimated(method, build(), inputs, measured, rows, task, estimator or {})
    # ridge stops at nothing: it gets all rows, and tunes alpha over their groups
    scaler = inputs.scaler if isinstance(inputs, Inputs) else Standard.fit(center[rows.training])
    ridge = Ridge.fit(scaler.transform(center), values.dense(np.arange(len(center))), rows.groups)
    return Model(
        method=method.name,
        network=fitted.network,
        genes=tuple(values.genes),
        context=task.context,
        hyperparameters={**network, **chosen, **(noted or {})},
        recipe=recipe,
        training={
            "sections": _sections.section_names(table),
            "groups": sorted(set(rows.groups.tolist())),
            "held_out": rows.held_out,
            "n_spots": len(rows.training),
            "n_held_out": len(rows.validation),
            "best_epoch": fitted.best_epoch,
            "sample_weight": weighing(table, task.sample_weight),
            "seed": task.seed,
            "versions": versions(),
            # of factors, to make the same of new sections
            **({} if targets.outputs is None else {"target_genes": table.var_names.tolist()}),
        },
        units=(_layers.units_of(table, task.layer) if values.library is None else COUNTS_UNITS),
        inputs=scaler,
        targets=targets,
        ridge=ridge,
        history=fitted.history,
        subtiles=inputs.subtile_scaler if isinstance(inputs, Inputs) else None,
    )


def _estimated(
    method: Method,
    network: nn.Module,
    inputs: Inputs | Pixels,
    measured: Measured,
    rows: Split,
    task: Task,
    options: dict[str, Any],
) -> tuple[Fitted, dict[str, Any]]:
    """Fit a network by the method's estimator; also gives what that chose."""
    if method.estimate is None:
        raise TypeError(f"{method.name} is trained step by step: it needs a schedule")
    if not isinstance(inputs, Inputs):
        raise TypeError(f"{method.name} has an estimator, which takes embeddings, not pixels")
    pooled = torch.cat([part for _, part in inputs.pooled(network.eval(), torch.device("cpu"))])
    chosen = method.estimate(
        network, pooled.numpy(), measured.targets, rows.groups, seed=task.seed, **options
    )
    return Fitted(
        network, pd.DataFrame(columns=list(HISTORY_COLUMNS)), best_epoch=0
    ), options | chosen


def _order(found: list[_sections.Section]) -> NDArray[np.int64]:
    """All rows, those near in space near in order: the leaves of a tree over each section."""
    by_section = [
        section.rows[np.asarray(KDTree(section.centers_um).get_arrays()[1])] for section in found
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


def versions() -> dict[str, str]:
    """Versions of the packages that a model was made with."""
    from importlib.metadata import PackageNotFoundError, version

    known = {}
    for name in _VERSIONS:
        try:
            known[name] = version(name)
        except PackageNotFoundError:  # run from a source tree
            continue
    return known
