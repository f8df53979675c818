"""Functions that fit models: called with some of the sections, their result checked."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

import numpy as np
from spatialdata import SpatialData

from stpredict import _validate
from stpredict._log import info
from stpredict.models import Model
from stpredict.models._stack import with_bases
from stpredict.targets._high import High
from stpredict.tl._fitting._inputs import prediction_inputs

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stpredict._sdata._spot_table import SpotTable
    from stpredict.tl._crossval._folds import Folds

#: Functions of training sections that return a fitted model, by name.
FitFunctions = Mapping[str, Callable[[SpatialData], Model]]

#: Characters that SpatialData allows in the name of a layer.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def check_functions(functions: FitFunctions, *, what: str) -> None:
    """Require functions by name."""
    if not isinstance(functions, Mapping):
        raise TypeError(f"{what} must be functions by name, not {type(functions).__name__}")
    for name, function in functions.items():
        if not isinstance(name, str) or not callable(function):
            kind = type(function).__name__
            raise TypeError(f"{what}[{name!r}] must be a function such as fit_ridge, not {kind}")


def check_names(functions: FitFunctions, *, what: str, reserved: Collection[str]) -> None:
    """Require names that can be those of layers and are not reserved."""
    for name in functions:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{what}[{name!r}] may contain only letters, digits, '_', '.' and '-'")
        if name in reserved:
            raise ValueError(f"{what}: the names {_validate.listing(reserved)} are reserved")


def call_function(name: str, function: Callable[[SpatialData], Model], spots: SpotTable) -> Model:
    """Fit a model to sections that the function may change."""
    model = function(spots.sdata)
    if not isinstance(model, Model):
        raise TypeError(f"{name!r} must return a fitted model, but returned {type(model).__name__}")
    return model


def check_alike(name: str, model: Model, first_name: str, first: Model) -> None:
    """Require that two bases predict the same genes in the same units."""
    if model.genes != first.genes:
        differing = sorted(set(model.genes) ^ set(first.genes))
        raise ValueError(
            "the bases must predict the same genes in the same order, but "
            f"{name!r} predicts {len(model.genes)} and {first_name!r} {len(first.genes)} "
            f"(not in both: {_validate.listing(differing)}): select genes once, before stacking"
        )
    for what, value, first_value in (
        ("units", model.units, first.units),
        ("layer", model.recipe.layer, first.recipe.layer),
    ):
        if value != first_value:
            raise ValueError(
                f"the bases must predict in the same {what}, but {name!r} predicts {value!r} and "
                f"{first_name!r} {first_value!r}"
            )
    quantiles = [one.targets.quantile for one in (model, first) if isinstance(one.targets, High)]
    if len(set(quantiles)) > 1:
        raise ValueError(
            f"the bases must have the same quantile=, but {name!r} has {quantiles[0]:g} and "
            f"{first_name!r} {quantiles[1]:g}"
        )


def predict_values(spots: SpotTable, model: Model, *, device: str) -> NDArray[np.float32]:
    """Predictions of all rows, (n_obs, n_genes)."""
    return model.predict_inputs(prediction_inputs(spots, model), spread=False, device=device)[0]


def predict_unseen(
    name: str,
    function: Callable[[SpatialData], Model],
    training: SpotTable,
    test: SpotTable,
    *,
    held_out: Collection[str],  # sections that the model may not know any spot of
    device: str,
) -> tuple[Model, NDArray[np.float32]]:
    """Fit to sections, which the function may change; predict others, (n_test, n_genes)."""
    n_rows, sections = training.table.n_obs, set(training.section_names)
    model = call_function(name, function, training)
    for one in with_bases(model):
        record = one.training
        leaked = [section for section in record.sections if section in held_out]
        if leaked:
            raise ValueError(
                f"{name!r} was to predict {_validate.listing(held_out)} unseen, but its model was "
                f"trained on {_validate.listing(leaked)}: give a function, not a fitted model"
            )
        if set(record.sections) <= sections and record.n_spots + record.n_held_out > n_rows:
            raise ValueError(
                f"{name!r} got {n_rows} training spots, but its model was trained on "
                f"{record.n_spots + record.n_held_out}: give a function, not a fitted model"
            )
    predicted = predict_values(test, model, device=device)
    _validate.finite(predicted, what=f"the predictions of {name!r}")
    return model, predicted


def fit_on_all_sections(
    spots: SpotTable, bases: FitFunctions, first: Model | None
) -> dict[str, Model]:
    """Fit every base, and check that it predicts the same as the first."""
    first_name = next(iter(bases))
    fitted = {}
    for name, function in bases.items():
        info(f"stacking: {name} on all sections")
        fitted[name] = call_function(name, function, spots.copy())
        first = first or fitted[name]
        check_alike(name, fitted[name], first_name, first)
    return fitted


def predict_out_of_fold(
    spots: SpotTable, bases: FitFunctions, folds: Folds, *, device: str
) -> tuple[NDArray[np.float32], Model]:
    """Predictions of each group by every base, (n_bases, n_obs, n_genes), and the first model."""
    first: Model | None = None
    first_name = next(iter(bases))
    predicted = np.empty((len(bases), spots.table.n_obs, 0), dtype=np.float32)
    for fold in folds:
        held_out = set(spots.section_of_row[fold.rows])
        for number, (name, function) in enumerate(bases.items()):
            info(f"stacking: {name} without {fold.name}")
            training = spots.subset(fold.training)  # bases may change it
            test = spots.subset(fold.rows)
            model, values = predict_unseen(
                name, function, training, test, held_out=held_out, device=device
            )
            if first is None:  # the genes are known from the first model on
                first = model
                predicted = np.empty((*predicted.shape[:2], len(model.genes)), dtype=np.float32)
            check_alike(name, model, first_name, first)
            predicted[number, fold.rows] = values
    if first is None:
        raise ValueError("stacking needs at least one fold")
    return predicted, first
