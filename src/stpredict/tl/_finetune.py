"""Continue training a fitted model on new sections."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stpredict import _validate
from stpredict._sdata import _recipe, _sections
from stpredict.models._methods import METHODS
from stpredict.models._restrict import restrict
from stpredict.models._ridge import Ridge
from stpredict.nn import losses
from stpredict.targets._counts import Counts
from stpredict.tl._fitting._docs import shared
from stpredict.tl._fitting._measured import of_layer, values_of_targets
from stpredict.tl._fitting._pixels import ready_inputs
from stpredict.tl._fitting._runner import versions
from stpredict.tl._fitting._split import split
from stpredict.tl._fitting._task import measured_of
from stpredict.training import Schedule, fit_network

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from spatialdata import SpatialData
    from torch import nn

    from stpredict.models import Model
    from stpredict.tl._fitting._split import Split


@shared()
def finetune(
    model: Model,
    sdata: SpatialData,
    *,
    train: Literal["all", "head"] = "all",
    genes: Sequence[str] | None = None,
    layer: str | None = None,
    groups: str | None = None,
    loss: str | nn.Module | None = None,
    learning_rate: float = 1e-4,
    weight_decay: float = 1e-6,
    batch_size: int = 64,
    max_epochs: int = 100,
    patience: int = 10,
    seed: int = 0,
    device: str = "auto",
) -> Model:
    """Continue training a fitted or imported model on new sections.

    The scaling of the inputs and of the targets stays the model's, so that what it has learnt
    keeps its meaning; genes that were constant in its training stay so. One group of the new
    sections is held out to stop early by. The ridge regression beside it is fitted to the new
    sections. Models on pixels read tiles as they were read in their training, with its
    augmentation.

    Parameters
    ----------
    model
        A model that was trained step by step.
    sdata
        New sections, prepared for the model (`pp.prepare`), with what was measured.
    train
        ``"all"`` of the network, or its ``"head"`` only, which predicts from what the rest makes
        of the inputs: ρ of DeepSpot and DeepCell, the last layer of `fit_cnn`, the decoder of
        `fit_multiscale`. With few spots, the head is safer. Blocks that ``trainable=`` of
        `fit_cnn` froze stay frozen.
    genes
        Some of the model's genes, by default all. A model of factors goes on predicting all its
        factors.
    layer
        Layer to learn, by default the model's own, which has to be in the same units. Give it for
        imported models; predictions are in its units then, and `pp.prepare` makes inputs as those
        of the new sections were made.
    groups
        Column of ``obs`` whose groups may not be split between training and early stopping; by
        default the patient where there are several, else the section. With a single group, blocks
        of tissue stand in for groups.
    loss
        Name or module, as of `fit_deepspot`; by default the one the model was trained with.
    {training}
    {seed}
    {device}

    Returns
    -------
    Model
        A new model; ``model`` and ``sdata`` are not changed. ``training["sections"]`` has old and
        new sections, ``training["finetuned_on"]`` the new ones, ``training["before"]`` what the
        model remembered before.

    Raises
    ------
    KeyError
        If inputs, the layer, a gene or a column is not there.
    ValueError
        If the method has no step-by-step training, the model is a stack, genes are none of the
        model's, inputs or layer were made differently than in training, the loss does not suit the
        model's targets, or there are too few spots to hold any out.

    Examples
    --------
    >>> import stpredict as stp
    >>> stp.settings.verbosity = 0
    >>> sdata = stp.datasets.phantom(2)
    >>> stp.pp.normalize(sdata)
    >>> stp.pp.select_genes(sdata, n_top_genes=10)
    >>> stp.pp.embed(sdata)
    >>> stp.pp.neighbors(sdata)
    >>> model = stp.tl.fit_deepspot(sdata, n_hidden=16, max_epochs=2)
    >>> new = stp.datasets.phantom(2, seed=7)
    >>> stp.pp.prepare(new, model)
    >>> tuned = stp.tl.finetune(model, new, train="head", max_epochs=2)
    >>> tuned.genes == model.genes
    True
    >>> stp.settings.verbosity = 1
    """
    _check(model, train)
    schedule = Schedule(
        max_epochs=max_epochs,
        patience=patience,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        monitor="loss",
    )
    start = model if genes is None else restrict(model, _chosen(model, genes))
    table = _sections.table_of(sdata)
    found = _sections.sections(sdata)
    ready = ready_inputs(sdata, model)
    start = of_layer(table, start, layer)
    made = _loss(start, loss)
    values = values_of_targets(table, start)
    rows = split(table, found, groups=groups, seed=seed)
    with ready as (inputs, center):
        fitted = fit_network(
            lambda: _to_train(start, train),
            inputs,
            measured_of(values, start.targets),
            training=rows.training,
            validation=rows.validation,
            loss=made,
            schedule=schedule,
            seed=seed,
            device=device,
        )
    said = {"loss": loss if isinstance(loss, str) else repr(loss)} if loss is not None else {}
    return replace(
        start,
        network=_thawed(fitted.network, start.network),
        hyperparameters={**model.hyperparameters, **vars(schedule), **said, "train": train},
        recipe=_recipe.completed(table, start),
        training=_remembered(model, table, rows, best_epoch=fitted.best_epoch, seed=seed),
        ridge=Ridge.fit(
            model.inputs.transform(center), values.dense(np.arange(len(center))), rows.groups
        ),
        history=fitted.history,
        calibration=None,  # its errors are others now
    )


def _check(model: Model, train: str) -> None:
    _validate.one_of("train", train, ("all", "head"))
    method = METHODS[model.method]
    if model.bases:
        raise ValueError(
            "a stack is not trained further: finetune its bases (model.bases), or stack functions "
            "that finetune them with stp.tl.fit_stacking"
        )
    if method.estimate is not None:
        raise ValueError(
            f"a model of {model.method} is fitted in one go, there is no training to continue: "
            f"call stp.tl.fit_{model.method} on all sections together"
        )


def _chosen(model: Model, genes: Sequence[str]) -> list[str]:
    chosen = list(genes)
    if not chosen:
        raise ValueError("genes= is empty")
    _validate.unique_names(chosen, what="genes")
    absent = [gene for gene in chosen if gene not in model.genes]
    if absent:
        raise ValueError(
            f"{len(absent)} of {len(chosen)} genes are none of the model's "
            f"{len(model.genes)}: {_validate.listing(absent)}"
            + _validate.why_absent(absent, model.genes)
        )
    return chosen


def _loss(model: Model, loss: str | nn.Module | None) -> losses.Loss:
    known = model.hyperparameters.get("loss", "mse")
    if loss is None and known not in losses.LOSSES:
        raise ValueError(
            f"the model was trained with a loss of one's own, give it as loss=: {known}"
        )
    made = losses.make(known if loss is None else loss, n_targets=model.targets.n_outputs)
    if made.needs_counts != isinstance(model.targets, Counts):
        does = "is" if made.needs_counts else "is not"
        raise ValueError(
            f"loss={made.name!r} {does} a likelihood of counts, but the model predicts "
            f"{model.units}, from targets of {model.targets.kind!r}"
        )
    return made


def _to_train(model: Model, train: str) -> nn.Module:
    """A copy of the network; what is not trained stays as it is, without dropout."""
    network = copy.deepcopy(model.network).train()
    if train == "head":
        for name, part in network.named_children():
            if name != METHODS[model.method].head:
                part.eval().requires_grad_(False)
    return network


def _thawed(network: nn.Module, like: nn.Module) -> nn.Module:
    """The trained network, in which is frozen what was before."""
    for parameter, before in zip(network.parameters(), like.parameters(), strict=True):
        parameter.requires_grad_(before.requires_grad)
    return network


def _remembered(
    model: Model, table: AnnData, rows: Split, *, best_epoch: int, seed: int
) -> dict[str, Any]:
    before = model.training
    new = _sections.section_names(table)
    kept: dict[str, Any] = {
        name: before[name] for name in ("target_genes", "knows_mean") if name in before
    }
    return {
        "sections": list(dict.fromkeys([*before["sections"], *new])),
        "groups": sorted({*before.get("groups", ()), *rows.groups.tolist()}),
        "held_out": rows.held_out,
        "n_spots": len(rows.training),
        "n_held_out": len(rows.validation),
        "best_epoch": best_epoch,
        "sample_weight": None,
        "seed": seed,
        "versions": versions(),
        "finetuned_on": new,
        "before": {name: value for name, value in before.items() if name != "target_genes"},
        **kept,
    }
