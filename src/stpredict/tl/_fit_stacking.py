"""Fit a stack: a model on the out-of-fold predictions of other models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from stpredict import _runtime, _validate
from stpredict._arguments import checked
from stpredict._sdata._recipe import Recipe
from stpredict._sdata._spot_table import open_table
from stpredict.models import Model
from stpredict.models._estimators import fit_linear, fit_log_odds
from stpredict.models._methods import STACKING
from stpredict.models._records import Hyperparameters, RidgeOptions, StackNetwork
from stpredict.models._stack import combinable, features_of
from stpredict.nn import LinearSets, losses
from stpredict.targets import Standard
from stpredict.targets._genes import Genes
from stpredict.targets._high import High
from stpredict.tl._crossval._folds import leave_groups_out
from stpredict.tl._fitting._bases import (
    check_functions,
    fit_on_all_sections,
    predict_out_of_fold,
)
from stpredict.tl._fitting._docs import shared
from stpredict.tl._fitting._networks import FittedNetwork, fit_networks
from stpredict.tl._fitting._record import training_record
from stpredict.tl._fitting._split import hold_out_groups, use_all_rows
from stpredict.tl._fitting._values import genes_of_model
from stpredict.training import Inputs, Measured, Schedule

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray
    from spatialdata import SpatialData

    from stpredict.tl._fitting._split import Split
    from stpredict.tl._fitting._values import Values

#: Metas that are trained on out-of-fold predictions.
_FITTED = ("ridge", "mlp")


@checked
@shared()
def fit_stacking(
    sdata: SpatialData,
    bases: Mapping[str, Callable[[SpatialData], Model]],
    *,
    meta: Literal["mean", "rank_mean", "ridge", "mlp"] = "mean",
    groups: str | None = None,
    n_hidden: int = 512,
    dropout: float = 0.2,
    schedule: Schedule = Schedule(monitor="loss"),
    seed: int = 0,
    device: str = "auto",
    table_name: str = "table",
) -> Model:
    """Fit a stack: a meta-model on the predictions of several models.

    The bases are fitted on all sections, and the stack predicts their mean. A meta-model that is
    fitted (``"ridge"``, ``"mlp"``) is trained on out-of-fold predictions only: every base is also
    fitted once for each group, on all other groups, and predicts the group left out. (HEVisum's
    notebook lets every base predict its own training slides, so that its meta-model favours the
    base that overfits most.) A stack is one model: it is saved in one folder, and `tl.predict`
    writes the spread over the bases to ``layers["std"]``.

    Parameters
    ----------
    sdata
        Training sections, with everything that the bases read.
    bases
        Functions by name that take sections and return a fitted model; at least two. They must
        predict the same genes in the same units. Probabilities of ``targets="high"``, of the same
        quantile, are combined as log odds.
    meta
        ``"mean"``: the mean of the bases; nothing is fitted. ``"rank_mean"``: for each gene and
        section, the values of the mean in the order of the spots' mean ranks, so that the
        prediction of a spot depends on the others of its section. ``"ridge"``: tuned ridge
        regression on the predictions of all genes by all bases. ``"mlp"``, as in HEVisum: two
        layers of ``n_hidden`` and ``n_hidden / 2`` units with batch norm, LeakyReLU and dropout.
        With few groups the mean is hard to beat: on HER2ST C2-C5, its mean PCC is 0.407, and that
        of the best base 0.399. On tiles of 112 µm, ``"mean"`` had 0.378, ``"ridge"`` 0.371,
        ``"mlp"`` 0.355, and the best base 0.375.
    groups
        Column of ``obs`` whose groups, whole sections, are left out in turn, and one of which is
        held out for early stopping of the ``"mlp"``; by default the patient if there are several,
        else the section. The bases have their own ``groups``.
    n_hidden, dropout
        Width of the first layer of the ``"mlp"``, and its dropout rate.
    {schedule}
    {seed}
    {device}
    {table_name}

    Returns
    -------
    Model
        Fitted model, with the fitted bases by name in ``model.bases``; ``sdata`` is not changed.

    Raises
    ------
    KeyError
        If something that a base reads, or a column, does not exist.
    TypeError
        If a base is no function, or returns no model.
    ValueError
        If there is a single base or group, a group is part of a section, the bases predict
        different genes, units or quantiles, or one was trained on sections left out.

    References
    ----------
    Wang, HEVisum, https://github.com/Dewey-Wang/HEVisum. Wolpert, Stacked generalization, Neural
    Networks 1992.

    Examples
    --------
    >>> import functools
    {prepared}
    >>> trees = functools.partial(stp.tl.fit_trees, n_trees=20)
    >>> bases = {"ridge": stp.tl.fit_ridge, "trees": trees}
    >>> model = stp.tl.fit_stacking(sdata, bases, meta="ridge")
    >>> list(model.bases)
    ['ridge', 'trees']
    """
    _validate.seed(seed)
    _runtime.resolve_device(device)  # raises if there is no such device
    check_functions(bases, what="bases")
    if len(bases) < 2:
        raise ValueError(f"a stack needs at least two bases, not {len(bases)}")
    network = StackNetwork(meta, n_hidden, dropout)
    with torch.random.fork_rng(devices=[]):  # bad sizes raise at once
        STACKING.build(len(bases), 1, context="spot", options=network)
    spots = open_table(sdata, table_name)
    folds = leave_groups_out(spots, groups, purpose="stacking")
    if folds.torn_sections:
        torn = _validate.listing(folds.torn_sections)
        raise ValueError(f"groups={groups!r} splits the sections {torn}: leave out whole sections")
    if meta == "mlp":
        rows = hold_out_groups(spots, groups=groups, seed=seed)
    else:
        rows = use_all_rows(spots, groups=groups)
    predicted: NDArray[np.float32] | None = None
    first: Model | None = None
    if meta in _FITTED:
        predicted, first = predict_out_of_fold(spots, bases, folds, device=device)
    fitted_bases = fit_on_all_sections(spots, bases, first)  # with which the stack predicts
    first = next(iter(fitted_bases.values()))
    targets, learnt = _fit_targets(genes_of_model(spots, first), first, rows.training)
    scaler = _scaler(targets, 1 if meta == "rank_mean" else len(bases))
    if predicted is None:
        with torch.random.fork_rng(devices=[]):
            mean = STACKING.build(
                len(scaler.mean), len(first.genes), context="spot", options=network
            )
        fitted = FittedNetwork.in_one_go(mean.eval())
        hyperparameters = Hyperparameters(network=network)
    else:
        features = features_of(combinable(predicted, targets), spots.section_of_row, meta=meta)
        plan = Hyperparameters(network=network, schedule=schedule)
        inputs = Inputs(center=features, scaler=scaler)
        is_binary = isinstance(targets, High)
        fitted, hyperparameters = _fit_meta(
            inputs, learnt, rows, plan, is_binary=is_binary, seed=seed, device=device
        )
    return Model(
        method=STACKING.name,
        network=fitted.network,
        genes=first.genes,
        context="spot",
        hyperparameters=hyperparameters,
        recipe=Recipe(first.recipe.layer, spots.steps.layer(first.recipe.layer)),
        training=training_record(rows, best_epochs=fitted.best_epochs, seed=seed),
        units=first.units,
        inputs=scaler,
        targets=targets,
        history=fitted.history,
        bases=fitted_bases,
    )


def _fit_targets(
    values: Values, first: Model, training: NDArray[np.intp]
) -> tuple[Genes | High, NDArray[np.float32]]:
    """Targets of the stack, and their values in all rows, (n_obs, n_genes)."""
    columns = np.arange(len(first.genes))
    if isinstance(first.targets, High):
        # thresholds of all rows, as those of the bases that are fitted on all sections
        high = High.fit(values.fit_genes, columns, quantile=first.targets.quantile)
        return high, high.transform(values.fit_genes)
    measured = values.dense()
    genes = Genes.fit(measured[training], columns, scaling="standard")
    return genes, genes.transform(measured)


def _fit_meta(
    inputs: Inputs,
    learnt: NDArray[np.float32],
    rows: Split,
    plan: Hyperparameters,
    *,
    is_binary: bool = False,  # whether 1 (high) and 0 (low) are learnt
    seed: int,
    device: str,
) -> tuple[FittedNetwork, Hyperparameters]:
    """Fit the network of a stack to the out-of-fold predictions of its bases."""
    n_features, n_genes = inputs.center.shape[1], learnt.shape[1]
    options, schedule = plan.network, plan.schedule
    if isinstance(options, StackNetwork) and options.meta == "mlp" and schedule is not None:
        loss = "bce" if is_binary else "mse"
        fitted = fit_networks(
            [lambda: STACKING.build(n_features, n_genes, context="spot", options=options)],
            inputs,
            Measured(learnt),
            rows.folds,
            loss=losses.make(loss, n_targets=n_genes),
            schedule=schedule,
            seed=seed,
            device=device,
        )
        return fitted, Hyperparameters(network=options, schedule=schedule, loss=loss)
    with torch.random.fork_rng(devices=[]):  # the first weights are random, and replaced
        network = STACKING.build(n_features, n_genes, context="spot", options=options).eval()
    estimator = None
    if isinstance(network, LinearSets):
        features = inputs.scaler.transform(inputs.center)
        estimate = fit_log_odds if is_binary else fit_linear
        estimator = estimate(network, features, learnt, rows.groups, RidgeOptions(), seed=seed)
    return FittedNetwork.in_one_go(network), Hyperparameters(network=options, estimator=estimator)


def _scaler(targets: Genes | High, times: int) -> Standard:
    """Scale predictions of all genes, several times side by side, as the targets are scaled."""
    if isinstance(targets, High):  # log odds are combined as they are
        n_features = times * len(targets.columns)
        return Standard(np.zeros(n_features, np.float32), np.ones(n_features, np.float32))
    return Standard(np.tile(targets.standard.mean, times), np.tile(targets.standard.scale, times))
