"""Fit a stack: a model on top of the out-of-fold predictions of others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stpredict import _validate
from stpredict._log import tell
from stpredict._sdata import _recipe, _sections
from stpredict.models import Model
from stpredict.models._methods import STACKING
from stpredict.models._stack import features_of
from stpredict.nn.stacking import METAS, Meta
from stpredict.targets._genes import Genes
from stpredict.tl._crossval._folds import folds_of
from stpredict.tl._fitting._bases import check_alike, check_fits, fit_base, out_of_fold
from stpredict.tl._fitting._docs import shared
from stpredict.tl._fitting._measured import values_of_genes
from stpredict.tl._fitting._meta import beside, fit_meta
from stpredict.tl._fitting._runner import versions
from stpredict.tl._fitting._split import split, whole
from stpredict.training import Schedule

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from spatialdata import SpatialData


@shared()
def fit_stacking(
    sdata: SpatialData,
    bases: Mapping[str, Callable[[SpatialData], Model]],
    *,
    meta: Meta = "mean",
    groups: str | None = None,
    n_hidden: int = 512,
    dropout: float = 0.2,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-6,
    batch_size: int = 64,
    max_epochs: int = 200,
    patience: int = 10,
    seed: int = 0,
    device: str = "auto",
) -> Model:
    """Fit a stack: a meta-model on top of the predictions of several models.

    Every base is fitted once for each group, on all others, and predicts the group it has not
    seen; with its scaling, factors and early stopping made anew each time. The meta-model is
    trained on these out-of-fold predictions only. HEVisum's published notebook lets every base
    predict its own training slides instead, so that its meta-model trusts whichever remembers them
    best. Then the bases are fitted on all sections, and the stack predicts from them.

    The genes are those of ``var["selected"]``, as for single models: chosen once, on all the
    sections given here, left out or not.

    The stack is one model: ``model.save`` writes one folder, `pp.prepare` makes the inputs of
    every base, `tl.predict` predicts with all of them and puts the spread over the bases in
    ``layers["std"]``.

    Parameters
    ----------
    sdata
        Training sections, with all that the bases take.
    bases
        By name, functions that take sections and return a fitted model, such as
        ``{"deepspot": stp.tl.fit_deepspot, "ridge": functools.partial(stp.tl.fit_ridge,
        targets="svd")}``; at least two. They must predict the same genes in the same units.
    meta
        ``"mean"``: the mean of the bases, which has nothing to learn. ``"rank_mean"``: gene by gene
        and within each section, the values of the mean in the order of the spots' mean ranks, so
        that a spot's prediction depends on the others of its section. ``"ridge"``: ridge regression
        on the predictions of all genes by all bases, alpha tuned by leaving out one group at a
        time. ``"mlp"``, as HEVisum: two layers of ``n_hidden`` and half as many on them, with batch
        norm, LeakyReLU and dropout. With few groups the mean is hard to beat: on HER2ST C2-C5 (one
        section left out in turn, 250 genes, texture encoder; ridge, ridge and trees on 8 factors)
        it had a mean PCC of 0.378, ``"ridge"`` 0.371, the ``"mlp"`` 0.355, and the best base 0.375.
    groups
        Column of ``obs`` whose groups are left out one at a time, and one of which is held out for
        early stopping of the ``"mlp"``; whole sections only. By default the patient where there
        are several, else the section. The bases have ``groups`` of their own.
    n_hidden
        Width of the first layer of the ``"mlp"``.
    dropout
        Of the ``"mlp"``.
    {training}
    {seed}
    {device}

    Returns
    -------
    Model
        ``model.bases`` has the fitted bases, in the order of
        ``model.hyperparameters["bases"]``, their names. ``sdata`` is not changed.

    Raises
    ------
    KeyError
        If something that a base takes is not there, or a column is not.
    TypeError
        If a base is no function, or returns no model.
    ValueError
        If there is a single base or a single group, a group is part of a section, the bases
        predict different genes or units, or one was trained on sections it was to be held out
        from.

    References
    ----------
    Wang, HEVisum, https://github.com/Dewey-Wang/HEVisum. Wolpert, Stacked generalization, Neural
    Networks 1992.

    Examples
    --------
    >>> import functools
    >>> import stpredict as stp
    >>> stp.settings.verbosity = 0
    >>> sdata = stp.datasets.phantom(2)
    >>> stp.pp.normalize(sdata)
    >>> stp.pp.select_genes(sdata, n_top_genes=5)
    >>> stp.pp.embed(sdata)
    >>> stp.pp.neighbors(sdata)
    >>> bases = {
    ...     "ridge": stp.tl.fit_ridge,
    ...     "trees": functools.partial(stp.tl.fit_trees, n_trees=20),
    ... }
    >>> model = stp.tl.fit_stacking(sdata, bases, meta="ridge")
    >>> [base.method for base in model.bases]
    ['ridge', 'trees']
    >>> stp.settings.verbosity = 1
    """
    _check(bases, meta)
    options = {"meta": meta, "n_hidden": n_hidden, "dropout": dropout}
    STACKING.network(len(bases), 1, context="spot", **options)  # bad sizes are told at once
    schedule = Schedule(
        max_epochs=max_epochs,
        patience=patience,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        monitor="loss",
    )
    table = _sections.table_of(sdata)
    found = _sections.sections(sdata)
    folds = folds_of(table, groups, purpose="stacking")
    if folds.torn:
        raise ValueError(
            f"groups={groups!r} splits {_validate.listing(folds.torn)}, but stacking leaves out "
            "whole sections, so that no spot is predicted from its neighbours: give a column such "
            "as the patient, or leave groups= out"
        )
    rows = (split if meta == "mlp" else whole)(table, found, groups=groups, seed=seed)

    predicted, first = out_of_fold(sdata, bases, folds, device=device)
    values = values_of_genes(table, first)
    scaled = Genes.fit(values.dense(rows.training), values.columns, scaling="standard")
    features = features_of(predicted, _sections.region_of(table), meta=meta)
    fitted, chosen = fit_meta(
        features, values, scaled, rows, options=options, schedule=schedule, seed=seed, device=device
    )
    refitted = []
    for name, fit in bases.items():
        tell(f"stacking: {name} on all sections")
        refitted.append(fit_base(name, fit, _sections.copy_of(sdata)))
        check_alike(name, refitted[-1], next(iter(bases)), first)
    return Model(
        method=STACKING.name,
        network=fitted.network,
        genes=first.genes,
        context="spot",
        hyperparameters={**options, **chosen, "bases": list(bases)},
        recipe=_recipe.layer_recipe(table, first.recipe["layer"]),
        training={
            "sections": _sections.section_names(table),
            "groups": sorted(folds.names()),
            "held_out": rows.held_out,
            "n_spots": len(rows.training),
            "n_held_out": len(rows.validation),
            "best_epoch": fitted.best_epoch,
            "sample_weight": None,
            "seed": seed,
            "versions": versions(),
        },
        units=first.units,
        inputs=beside(scaled, features.shape[1]),
        targets=scaled,
        history=fitted.history,
        bases=tuple(refitted),
    )


def _check(bases: Mapping[str, Callable[[SpatialData], Model]], meta: str) -> None:
    _validate.one_of("meta", meta, METAS)
    check_fits(bases, what="bases")
    if len(bases) < 2:
        raise ValueError(f"a stack needs at least two bases, but has {len(bases)}")
