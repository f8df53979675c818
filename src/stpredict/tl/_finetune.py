"""Continue training a fitted model on new sections."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Literal

from stpredict import _runtime, _validate
from stpredict._arguments import checked
from stpredict._sdata._inputs import recorded_inputs
from stpredict._sdata._layer_steps import check_ranked, units_of
from stpredict._sdata._spot_table import open_table
from stpredict.models._methods import EXTERNAL, METHODS
from stpredict.models._records import joined_donors
from stpredict.models._restrict import check_genes, restrict
from stpredict.nn import losses
from stpredict.nn._mean_of_networks import networks_of
from stpredict.targets._counts import COUNTS_UNITS, Counts
from stpredict.targets._high import HIGH_UNITS, High
from stpredict.tl._fitting._docs import shared
from stpredict.tl._fitting._inputs import training_inputs
from stpredict.tl._fitting._networks import fit_networks
from stpredict.tl._fitting._record import training_record
from stpredict.tl._fitting._split import hold_out_groups
from stpredict.tl._fitting._targets import measured_targets
from stpredict.tl._fitting._values import target_genes_of_model
from stpredict.training import Schedule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spatialdata import SpatialData
    from torch import nn

    from stpredict._sdata._recipe import Recipe
    from stpredict._sdata._spot_table import SpotTable
    from stpredict.models import Model
    from stpredict.models._records import TrainingRecord
    from stpredict.tl._fitting._split import Split


@checked
@shared()
def finetune(
    sdata: SpatialData,
    model: Model,
    *,
    train: Literal["all", "head"] = "all",
    genes: Sequence[str] | None = None,
    layer: str | None = None,
    groups: str | None = None,
    loss: str | nn.Module | None = None,
    schedule: Schedule = Schedule(max_epochs=100, learning_rate=1e-4, monitor="loss"),
    seed: int = 0,
    device: str = "auto",
    table_name: str = "table",
) -> Model:
    """Continue training a fitted or imported model on new sections.

    The scaling of inputs and targets stays the model's; genes that were constant in its training
    stay constant. One group of the new sections is held out for early stopping.

    Parameters
    ----------
    sdata
        New sections, prepared for the model (`pp.prepare`), with measured expression.
    model
        Model that was trained step by step.
    train
        ``"all"`` of the network, or only its ``"head"``, which is safer with few spots: ρ of
        DeepSpot and DeepCell, the last layer of `fit_cnn`, the decoder of `fit_multiscale`.
    genes
        Some of the model's genes, by default all. A model of factors keeps all its factors.
    layer
        Layer to learn, by default the model's own, which must be in the same units. Required for
        imported models, which then predict in its units.
    groups
        As in :func:`stpredict.tl.fit_deepspot`.
    loss
        Name or module, as in `fit_deepspot`; by default the loss the model was trained with.
    {schedule}
    {seed}
    {device}
    {table_name}

    Returns
    -------
    Model
        New model. ``training.sections`` has old and new sections, ``training.finetuned_on`` the
        new ones, and ``training.before`` the record of the model before.

    Raises
    ------
    TypeError
        If ``model`` is no fitted model.
    KeyError
        If inputs, the layer, a gene or a column does not exist.
    ValueError
        If the method is not trained step by step, genes are not the model's, inputs or layer
        differ from training, the loss does not suit the targets, or spots are too few.
    OSError
        If the temporary folder cannot hold the tiles of a model on pixels.

    Examples
    --------
    {prepared}
    >>> short = stp.tl.Schedule(max_epochs=2)
    >>> network = stp.tl.DeepSpotNetwork(n_hidden=16)
    >>> model = stp.tl.fit_deepspot(sdata, network=network, schedule=short)
    >>> new = stp.datasets.phantom(2, seed=7)
    >>> stp.pp.prepare(new, model)
    >>> tuned = stp.tl.finetune(new, model, train="head", schedule=short)
    >>> tuned.genes == model.genes
    True
    """
    _validate.seed(seed)
    _runtime.resolve_device(device)  # raises if there is no such device
    _check_trainable(model, train)
    head = METHODS[model.method].head if train == "head" else None
    start = model if genes is None else restrict(model, check_genes(model, genes))
    spots = open_table(sdata, table_name)
    inputs_context = training_inputs(spots, model)
    start = _with_layer(spots, start, layer)
    objective = _make_loss(start, loss)
    values = target_genes_of_model(spots, start)
    networks = networks_of(start.network)
    rows = hold_out_groups(spots, groups=groups, seed=seed, n_networks=len(networks))
    with inputs_context as inputs:
        fitted = fit_networks(
            [partial(_trainable_copy, network, head=head) for network in networks],
            inputs,
            measured_targets(values, start.targets),
            rows.folds,
            loss=objective,
            schedule=schedule,
            seed=seed,
            device=device,
        )
    # the network that is returned is frozen where the model's was
    pairs = zip(fitted.network.parameters(), start.network.parameters(), strict=True)
    for parameter, before in pairs:
        parameter.requires_grad_(before.requires_grad)
    hyperparameters = replace(model.hyperparameters, schedule=schedule, finetuned=train)
    if loss is not None:  # by default that of training, which is recorded already
        name = loss if isinstance(loss, str) else repr(loss)
        hyperparameters = replace(hyperparameters, loss=name)
    return replace(
        start,
        network=fitted.network,
        hyperparameters=hyperparameters,
        recipe=_complete(spots, start),
        training=_record(model, rows, best_epochs=fitted.best_epochs, seed=seed),
        history=fitted.history,
        calibration=None,  # the errors of the new model are not known
    )


def _check_trainable(model: Model, train: str) -> None:
    if model.bases:
        raise ValueError("a stack cannot be finetuned: finetune its bases (model.bases)")
    if model.method in EXTERNAL:
        raise ValueError(f"a model of {model.method} cannot be finetuned here")
    if METHODS[model.method].estimate is not None:
        raise ValueError(
            f"a model of {model.method} is fitted in one go: run fit_{model.method} on all sections"
        )


def _with_layer(spots: SpotTable, model: Model, layer: str | None) -> Model:
    """The model with the layer it is to learn; its own must be in the units of its predictions."""
    name = model.recipe.layer if layer is None else layer
    spots.layer(name)  # raises if it does not exist
    steps = spots.steps.layer(name)
    units = COUNTS_UNITS if isinstance(model.targets, Counts) else units_of(spots.table, name)
    if isinstance(model.targets, High):
        units = f"{HIGH_UNITS}{units}"
    if units != model.units and (layer is None or isinstance(model.targets, High)):
        label = "X" if name is None else f"layers[{name!r}]"
        raise ValueError(
            f"{label} holds {units}, the model predicts {model.units}: run stp.pp.prepare, or name "
            "the layer to learn with layer="
        )
    check_ranked(name, steps, model.genes)
    return replace(model, recipe=replace(model.recipe, layer=name, layer_steps=steps), units=units)


def _make_loss(model: Model, loss: str | nn.Module | None) -> losses.Loss:
    trained_with = model.hyperparameters.loss or "mse"
    if loss is None and trained_with not in losses.LOSSES:
        raise ValueError(f"the model was trained with its own loss: give loss= ({trained_with})")
    name = trained_with if loss is None else loss
    objective = losses.make(name, n_targets=model.targets.n_outputs)
    if isinstance(name, str) and objective.needs_binary != isinstance(model.targets, High):
        natural = "bce" if isinstance(model.targets, High) else "mse"
        raise ValueError(
            f"loss={name!r} does not suit a model that predicts {model.units}: use {natural!r}"
        )
    if objective.needs_counts != isinstance(model.targets, Counts):
        verb = "is" if objective.needs_counts else "is not"
        raise ValueError(
            f"loss={objective.name!r} {verb} a likelihood of counts, but the model predicts "
            f"{model.units}"
        )
    return objective


def _trainable_copy(network: nn.Module, *, head: str | None) -> nn.Module:
    """A copy of a network; parts next to a head that is trained alone keep their weights."""
    network = copy.deepcopy(network).train()
    if head is not None:
        for name, part in network.named_children():
            if name != head:
                part.eval().requires_grad_(False)
    return network


def _complete(spots: SpotTable, model: Model) -> Recipe:
    """The recipe; steps that a published model does not report are those of the new sections."""
    recipe = model.recipe
    if recipe.embedding is not None and (recipe.embed is None or not recipe.embed.is_complete):
        embed, graph = recorded_inputs(spots, recipe.embedding, neighbors=model.uses_neighbors)
        recipe = replace(recipe, embed=embed, neighbors=graph)
    return recipe


def _record(
    model: Model, rows: Split, *, best_epochs: tuple[int, ...], seed: int
) -> TrainingRecord:
    before, after = model.training, training_record(rows, best_epochs=best_epochs, seed=seed)
    return replace(
        after,
        sections=tuple(dict.fromkeys([*before.sections, *after.sections])),
        groups=tuple(sorted({*before.groups, *after.groups})),
        target_genes=before.target_genes,
        knows_mean=before.knows_mean,
        finetuned_on=after.sections,
        donors=joined_donors([before, after]),
        before=replace(before, target_genes=None),
    )
