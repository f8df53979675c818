"""The shared runner: an opened table and a method in, a fitted model out."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from stpredict import _validate
from stpredict._sdata._inputs import read_embeddings
from stpredict._sdata._pixels import cached_tiles, check_tiles
from stpredict._sdata._recipe import Recipe
from stpredict._sdata._steps import TilesStep
from stpredict.models import Model
from stpredict.models._records import DeepSpotNetwork, Hyperparameters
from stpredict.targets import Standard
from stpredict.tl._fitting._networks import FittedNetwork, fit_networks
from stpredict.tl._fitting._record import training_record
from stpredict.tl._fitting._split import hold_out_groups, use_all_rows
from stpredict.tl._fitting._targets import fit_targets
from stpredict.tl._fitting._values import read_values
from stpredict.training import Augmentation, Inputs, Pixels

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import nn

    from stpredict._sdata._inputs import Embeddings
    from stpredict._sdata._spot_table import SpotTable
    from stpredict._sdata._steps import EmbedStep
    from stpredict.models._methods import Method
    from stpredict.models._records import Record
    from stpredict.tl._fitting._split import Split
    from stpredict.tl._fitting._targets import TrainingTargets
    from stpredict.tl._fitting._values import Task, Values


@dataclass(frozen=True)
class Plan:
    """A method, what it is to learn, and how: the arguments of a ``fit_*`` function."""

    method: Method  # network, contexts and estimator
    task: Task  # what to learn
    hyperparameters: Hyperparameters = field(default_factory=Hyperparameters)
    start: Callable[[nn.Module], None] | None = None  # fills in weights to start from

    @property
    def n_networks(self) -> int:
        """Number of networks to train, whose mean is the model's network."""
        options = self.hyperparameters.network
        return options.n_networks if isinstance(options, DeepSpotNetwork) else 1

    def build(self, n_features: int, n_targets: int) -> nn.Module:
        """Build one of the networks."""
        context, options = self.task.context, self.hyperparameters.network
        if isinstance(options, DeepSpotNetwork):
            options = replace(options, n_networks=1)
        network = self.method.build(n_features, n_targets, context=context, options=options)
        if self.start is not None:
            self.start(network)
        return network


def fit(spots: SpotTable, plan: Plan) -> Model:
    """Fit a method on embeddings: step by step, or by its estimator."""
    method, task = plan.method, plan.task
    uses_subtiles, uses_neighbors = method.contexts[task.context]
    embedding = str(task.embedding)
    embeddings = read_embeddings(
        spots,
        embedding,
        subtiles=uses_subtiles,
        neighbors=uses_neighbors,
        standardize=task.standardize,
    )
    values = read_values(spots, task)
    if method.estimate is None:  # only training step by step stops early
        rows = hold_out_groups(
            spots, groups=task.groups, seed=task.seed, n_networks=plan.n_networks
        )
    else:
        rows = use_all_rows(spots, groups=task.groups)
    targets = fit_targets(values, task, rows.training)
    schedule = plan.hyperparameters.schedule
    inputs = Inputs(
        center=embeddings.center,
        scaler=_scaler(embeddings.center[rows.training], embeddings.embed),
        subtiles=embeddings.subtiles,
        subtile_scaler=_subtile_scaler(embeddings, rows.training),
        neighbors=embeddings.neighbors,
        order=spots.spatial_order if schedule and schedule.patch_size > 1 else None,
    )
    recipe = Recipe(
        layer=task.layer,
        layer_steps=values.layer_steps,
        embedding=embedding,
        embed=embeddings.embed,
        standardize=task.standardize,
        neighbors=embeddings.graph,
    )
    return fit_inputs(plan, values, targets, rows, inputs=inputs, recipe=recipe)


def fit_pixels(spots: SpotTable, plan: Plan, *, tile_um: float, tile_px: int) -> Model:
    """Fit a network to the tiles of an opened table."""
    _validate.positive("tile_um", tile_um, unit="µm")
    augmentation = plan.hyperparameters.augmentation
    if not isinstance(augmentation, Augmentation):
        raise TypeError(
            f"augmentation must be a stp.tl.Augmentation, Augmentation() for none: {augmentation!r}"
        )
    with torch.random.fork_rng(devices=[]):  # bad sizes and weights raise before images are read
        plan.build(0, 1)
    sections = spots.normalized_sections
    check_tiles(sections, [tile_um])
    values = read_values(spots, plan.task)
    rows = hold_out_groups(spots, groups=plan.task.groups, seed=plan.task.seed)
    targets = fit_targets(values, plan.task, rows.training)
    step = TilesStep(tile_um=float(tile_um), tile_px=int(tile_px), stain=spots.stain)
    recipe = Recipe(plan.task.layer, values.layer_steps, tiles=step)
    with cached_tiles(sections, step) as tiles:
        inputs = Pixels(tiles, augmentation)
        return fit_inputs(plan, values, targets, rows, inputs=inputs, recipe=recipe)


def fit_inputs(
    plan: Plan,
    values: Values,
    targets: TrainingTargets,
    rows: Split,
    *,
    inputs: Inputs | Pixels,
    recipe: Recipe,
) -> Model:
    """Fit a method to arrays that have been read."""
    if plan.method.estimate is None:
        fitted, hyperparameters = _train(plan, inputs, values, targets, rows)
    else:
        fitted, hyperparameters = _estimate(plan, inputs, targets, rows)
    embeddings = inputs if isinstance(inputs, Inputs) else None  # pixels are not scaled
    return Model(
        method=plan.method.name,
        network=fitted.network,
        genes=tuple(values.genes),
        context=plan.task.context,
        hyperparameters=hyperparameters,
        recipe=recipe,
        training=replace(
            training_record(rows, best_epochs=fitted.best_epochs, seed=plan.task.seed),
            sample_weight=None if values.weights is None else values.weights[1],
            # the factors of new sections are found in the same genes
            target_genes=None if targets.fitted.outputs is None else values.fit_names,
        ),
        units=values.units,
        inputs=None if embeddings is None else embeddings.scaler,
        targets=targets.fitted,
        history=fitted.history,
        subtiles=None if embeddings is None else embeddings.subtile_scaler,
    )


def _train(
    plan: Plan, inputs: Inputs | Pixels, values: Values, targets: TrainingTargets, rows: Split
) -> tuple[FittedNetwork, Hyperparameters]:
    """Train networks step by step."""
    schedule, loss = plan.hyperparameters.schedule, values.loss
    if schedule is None or loss is None:
        raise TypeError(f"{plan.method.name} is trained step by step: it needs a schedule")
    n_features = inputs.center.shape[1] if isinstance(inputs, Inputs) else 0
    fitted = fit_networks(
        [lambda: plan.build(n_features, targets.fitted.n_outputs)] * len(rows.folds),
        inputs,
        targets.measured,
        rows.folds,
        loss=loss,
        schedule=schedule,
        seed=plan.task.seed,
        device=plan.task.device,
        weights=targets.weights,
    )
    own = isinstance(plan.task.loss, torch.nn.Module)
    name = repr(plan.task.loss) if own else loss.name
    return fitted, replace(plan.hyperparameters, loss=name)


def _estimate(
    plan: Plan, inputs: Inputs | Pixels, targets: TrainingTargets, rows: Split
) -> tuple[FittedNetwork, Hyperparameters]:
    """Fill a network by the estimator of its method."""
    is_binary = plan.task.targets == "high"
    estimate = plan.method.estimate_high if is_binary else plan.method.estimate
    if estimate is None or not isinstance(inputs, Inputs):
        raise TypeError(f"{plan.method.name} has no estimator of {plan.task.targets}")
    with torch.random.fork_rng(devices=[]):  # the first weights are random, and replaced
        network = plan.build(inputs.center.shape[1], targets.fitted.n_outputs).eval()
    pooled = torch.cat([part for _, part in inputs.pooled(network, torch.device("cpu"))])
    options: Record = estimate(
        network,
        pooled.numpy(),
        targets.measured.targets,
        rows.groups,
        plan.hyperparameters.estimator,
        seed=plan.task.seed,
    )
    return FittedNetwork.in_one_go(network), replace(plan.hyperparameters, estimator=options)


def _scaler(values: NDArray[np.float32], step: EmbedStep) -> Standard:
    """Standardise embeddings; joined encoders vary equally in total, however wide they are."""
    widths = np.array(step.widths or [values.shape[1]])
    factors = np.repeat(np.sqrt(widths / widths.mean()), widths)  # of one field
    return Standard.fit(values).times(np.tile(factors, values.shape[1] // len(factors)))


def _subtile_scaler(embeddings: Embeddings, training: NDArray[np.intp]) -> Standard | None:
    """Scale sub-tiles so that the sum over them varies about as much as a tile."""
    subtiles = embeddings.subtiles
    if subtiles is None:
        return None
    _, n_subtiles, n_features = subtiles.shape
    values = subtiles[training].reshape(-1, n_features)
    return _scaler(values, embeddings.embed).times(n_subtiles)
