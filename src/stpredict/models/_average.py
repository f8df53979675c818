"""The mean of several fitted models, as one model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from stpredict._arguments import checked
from stpredict._sdata._recipe import Recipe
from stpredict.models._methods import STACKING
from stpredict.models._model import Model
from stpredict.models._records import (
    Hyperparameters,
    StackNetwork,
    TrainingRecord,
    joined_donors,
)
from stpredict.models._restrict import restrict
from stpredict.models._save import HISTORY_COLUMNS
from stpredict.targets import Standard
from stpredict.targets._genes import Genes
from stpredict.targets._high import High

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@checked
def average(models: Mapping[str, Model]) -> Model:
    """Average fitted models as one model, which predicts the mean of their predictions.

    Models of the folds of a cross-validation may predict different genes: the genes that all of
    them predict are kept. No model of the average has seen all spots, and its scores on the
    sections of the cross-validation are not those of unseen sections.

    Parameters
    ----------
    models
        At least two models by name, such as ``scores.models["ridge"]`` of
        ``tl.cross_validate(..., keep_models=True)``.

    Returns
    -------
    Model
        A stack like that of :func:`stpredict.tl.fit_stacking` with ``meta="mean"``: `tl.predict`
        writes the spread over the models to ``layers["std"]``.

    Raises
    ------
    ValueError
        If there are fewer than two models, they share no gene, they predict in different units or
        layers or probabilities of high expression, or stacks predict different genes.

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom(3, size_px=800)
    >>> stp.pp.normalize(sdata)
    >>> stp.pp.select_genes(sdata, n_top_genes=5)
    >>> stp.pp.embed(sdata)
    >>> stp.pp.neighbors(sdata)
    >>> scores = stp.tl.cross_validate(sdata, {"ridge": stp.tl.fit_ridge}, keep_models=True)
    >>> model = stp.models.average(scores.models["ridge"])
    >>> list(model.bases)
    ['P1', 'P2', 'P3']
    """
    if len(models) < 2:
        raise ValueError(f"models= must have at least two models, not {len(models)}")
    first = next(iter(models.values()))
    _check_alike(models)
    shared = set.intersection(*(set(model.genes) for model in models.values()))
    genes = tuple(gene for gene in first.genes if gene in shared)
    bases = {name: _with_genes(name, model, genes) for name, model in models.items()}
    n_genes, n_models = len(genes), len(bases)
    options = StackNetwork("mean")
    means = np.stack([base.targets.mean for base in bases.values()])  # (n_models, n_genes)
    constant = np.all([base.targets.constant for base in bases.values()], axis=0)
    targets = Genes(
        columns=np.arange(n_genes),
        n_fit_genes=n_genes,
        mean=means.mean(axis=0, dtype=np.float64).astype(np.float32),
        constant=constant,
        standard=_unscaled(n_genes),
        scaling="none",
    )
    return Model(
        method=STACKING.name,
        network=STACKING.build(n_genes * n_models, n_genes, context="spot", options=options).eval(),
        genes=genes,
        context="spot",
        hyperparameters=Hyperparameters(network=options),
        recipe=Recipe(first.recipe.layer, first.recipe.layer_steps),
        training=_training([base.training for base in bases.values()]),
        units=first.units,
        inputs=_unscaled(n_genes * n_models),
        targets=targets,
        history=pd.DataFrame(columns=list(HISTORY_COLUMNS)),  # no epochs
        bases=bases,
    )


def _check_alike(models: Mapping[str, Model]) -> None:
    """Require models in the same units and of the same layer, made by the same steps."""
    first_name, first = next(iter(models.items()))
    for name, model in models.items():
        if isinstance(model.targets, High):
            raise ValueError(f"{name!r} predicts probabilities of high expression, which differ in "
                             "their thresholds: models of expression can be averaged")  # fmt: skip
        for what, value, expected in (
            ("units", model.units, first.units),
            ("layer", model.recipe.layer, first.recipe.layer),
            ("layer steps", model.recipe.layer_steps, first.recipe.layer_steps),
        ):
            if value != expected:
                raise ValueError(
                    f"the models must predict the same {what}, but {name!r} has {value!r:.80} and "
                    f"{first_name!r} {expected!r:.80}: average models of one layer"
                )


def _with_genes(name: str, model: Model, genes: Sequence[str]) -> Model:
    """The model for some of its genes."""
    if not genes:
        raise ValueError("the models share no gene: average models of the same genes")
    if tuple(genes) == model.genes:
        return model
    if model.bases:
        raise ValueError(
            f"the stack {name!r} predicts {len(model.genes)} genes, of which all models share "
            f"{len(genes)}: select genes once, before fitting stacks"
        )
    return restrict(model, genes)


def _unscaled(n: int) -> Standard:
    return Standard(np.zeros(n, dtype=np.float32), np.ones(n, dtype=np.float32))


def _training(records: Sequence[TrainingRecord]) -> TrainingRecord:
    """Record of all data that any of the models was trained on."""
    layouts = {record.spots for record in records}
    return TrainingRecord(
        sections=tuple(dict.fromkeys(name for record in records for name in record.sections)),
        groups=tuple(sorted({name for record in records for name in record.groups})),
        held_out=f"parts of the data by each of {len(records)} models",
        n_spots=max(record.n_spots for record in records),
        n_held_out=0,
        best_epochs=(),
        seed=records[0].seed,
        versions=records[0].versions,
        knows_mean=all(record.knows_mean for record in records),
        spots=layouts.pop() if len(layouts) == 1 else None,
        donors=joined_donors(records),
    )
