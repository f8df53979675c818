"""Functions that fit models, called with some of the sections, and what they must return."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from spatialdata import SpatialData

from stpredict import _keys, _validate
from stpredict._log import tell
from stpredict._sdata import _sections
from stpredict.models import Model
from stpredict.tl._crossval._folds import only
from stpredict.tl._predict import predict

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

    from stpredict.tl._crossval._folds import Folds

#: Functions of training sections that return a fitted model, by name.
Fits = Mapping[str, Callable[[SpatialData], Model]]

#: What SpatialData takes as the name of a layer.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def check_fits(fits: Fits, *, what: str) -> None:
    """Require functions by name."""
    if not isinstance(fits, Mapping):
        raise TypeError(
            f"{what} must be functions by name, such as {{'ridge': stp.tl.fit_ridge, 'trees': "
            f"stp.tl.fit_trees}}: {type(fits).__name__}"
        )
    for name, fit in fits.items():
        if not isinstance(name, str) or not callable(fit):
            raise TypeError(
                f"{what}[{name!r}] must be a function of the sections that returns a fitted model, "
                f"such as stp.tl.fit_ridge, under a name: {type(fit).__name__}"
            )


def check_names(fits: Fits, *, what: str, reserved: Collection[str]) -> None:
    """Require names that can be those of layers, and are not taken."""
    for name in fits:
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"{what}[{name!r}]: the name is to be that of a layer: letters, digits, '_', '.' "
                "and '-' only"
            )
        if name in reserved:
            raise ValueError(
                f"{what}[{name!r}]: the name stands for what is shown beside the methods "
                f"({_validate.listing(reserved)}): choose another"
            )


def fit_base(name: str, fit: Callable[[SpatialData], Model], sdata: SpatialData) -> Model:
    """Fit a model to sections that it may change."""
    model = fit(sdata)
    if not isinstance(model, Model):
        raise TypeError(
            f"{name!r} must return a fitted model, but returned {type(model).__name__}: "
            "give a function of the sections such as stp.tl.fit_ridge"
        )
    return model


def check_alike(name: str, model: Model, other: str, first: Model) -> None:
    """Require that two bases predict the same."""
    if model.genes != first.genes:
        differing = sorted(set(model.genes) ^ set(first.genes))
        raise ValueError(
            f"the bases must predict the same genes in the same order: {name!r} predicts "
            f"{len(model.genes)}, {other!r} {len(first.genes)}, "
            + (f"one of them not {_validate.listing(differing)}" if differing else "in other order")
            + ": select them once, before stacking, or give genes= to every base"
        )
    for what, found, wanted in (
        ("units", model.units, first.units),
        ("layer", model.recipe["layer"], first.recipe["layer"]),
    ):
        if found != wanted:
            raise ValueError(
                f"the bases must predict in the same {what}: {name!r} predicts {found!r}, "
                f"{other!r} {wanted!r}: give them the same layer= and kind of loss="
            )


def check_unseen(name: str, model: Model, held_out: Collection[str]) -> None:
    """Require that a model was not trained on sections left out."""
    seen = [section for section in model.training["sections"] if section in held_out]
    if seen:
        raise ValueError(
            f"{name!r} was to predict {_validate.listing(held_out)} without having seen "
            f"them, but its model was trained on {_validate.listing(seen)}: give a function that "
            "fits the sections it is called with, not a fitted model"
        )


def predict_unseen(
    name: str,
    fit: Callable[[SpatialData], Model],
    train: SpatialData,
    test: SpatialData,
    *,
    whole: Collection[str],
    device: str,
) -> Model:
    """Fit to sections, which the function may change, and predict others in place.

    ``whole`` names the sections of ``test`` that the model may not know any spot of.
    """
    model = fit_base(name, fit, train)
    check_unseen(name, model, whole)
    predict(test, model, device=device)
    predicted = test.tables[_keys.PREDICTED].X
    _validate.finite(predicted, what=f"what {name!r} predicts")
    return model


def out_of_fold(
    sdata: SpatialData, bases: Fits, folds: Folds, *, device: str
) -> tuple[NDArray[np.float32], Model]:
    """Predict each group with every base, fitted on all other groups.

    Returns predictions, (bases, n_obs, n_genes), and the first of the fitted models.
    """
    region = _sections.region_of(_sections.table_of(sdata))
    first: Model | None = None
    predicted = np.empty((len(bases), len(region), 0), dtype=np.float32)
    for group, rows in folds:
        held_out = list(dict.fromkeys(region[rows]))
        for number, (name, fit) in enumerate(bases.items()):
            tell(f"stacking: {name} without {group}")
            others = np.delete(np.arange(len(region)), rows)
            train, test = only(sdata, others), only(sdata, rows)
            model = predict_unseen(name, fit, train, test, whole=held_out, device=device)
            if first is None:
                first = model
                predicted = np.empty((*predicted.shape[:2], len(model.genes)), dtype=np.float32)
            check_alike(name, model, next(iter(bases)), first)
            predicted[number, rows] = test.tables[_keys.PREDICTED].X
    if first is None:
        raise ValueError("there is nothing to leave out")
    return predicted, first
