"""One method in one fold: fitted on the training sections, applied to those left out."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from stpredict import _validate
from stpredict.models._stack import leaves
from stpredict.results import Failure
from stpredict.targets._high import High
from stpredict.tl._crossval._options import options_of
from stpredict.tl._fitting._bases import predict_unseen
from stpredict.tl._fitting._values import genes_of_model

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from spatialdata import SpatialData

    from stpredict._sdata._spot_table import SpotTable
    from stpredict.models import Model
    from stpredict.tl._crossval._folds import Fold


@dataclass(frozen=True, eq=False)
class Outcome:
    """Predictions of a method for the spots that a fold leaves out."""

    genes: NDArray[np.str_]  # (n_genes,), those that the model predicts
    measured: NDArray[np.float32]  # (n_rows, n_genes), in the same units as the predictions
    predicted: NDArray[np.float32]
    training_mean: NDArray[np.float64]  # (n_genes,), over the training rows
    training_variance: NDArray[np.float64]
    embedding: str  # slot that the model reads; empty if it reads tiles
    layer: str  # empty for X
    units: str
    quantile: float  # of the training rows, above which genes are high; NaN for other targets
    selected: bool  # whether the genes are those selected on the training rows
    options: str  # method and options of the model, to recognise it
    seconds: float  # for fitting and predicting
    model: Model | None = None  # None unless models are kept

    @property
    def is_binary(self) -> bool:
        """Whether measured values are 1 (high) and 0 (low)."""
        return not math.isnan(self.quantile)


def run_method(
    name: str,
    function: Callable[[SpatialData], Model],
    training: SpotTable,
    test: SpotTable,
    *,
    fold: Fold,
    device: str,
    keep_models: bool,
) -> Outcome | Failure:
    """Fit on a copy and predict; an error is recorded, not raised."""
    # the model may not know sections that are left out as a whole
    held_out = set(test.section_names) - set(training.section_names)
    start = time.perf_counter()
    try:
        model, predicted = predict_unseen(
            name, function, training.copy(), test, held_out=held_out, device=device
        )
        check_tiles(name, model, fold)
        seconds = time.perf_counter() - start
        outcome = _outcome(model, predicted, training, test, seconds=seconds)
        if fold.visible is not None:
            inside = np.searchsorted(fold.visible, fold.rows)
            measured, predicted = outcome.measured[inside], outcome.predicted[inside]
            outcome = replace(outcome, measured=measured, predicted=predicted)
        return replace(outcome, model=model) if keep_models else outcome
    except Exception as error:  # noqa: BLE001 the other methods go on, and failures are reported
        line = f"{type(error).__name__}: {error}".splitlines()[0]
        return Failure(name, fold.name, line, traceback.format_exc())


def check_tiles(name: str, model: Model, fold: Fold) -> None:
    """Require tiles that do not reach from training spots across the buffer to test spots."""
    recipes = [leaf.recipe for leaf in leaves(model)]
    sides = [side for recipe in recipes if recipe.embed for side in recipe.embed.fields_um]
    sides += [recipe.tiles.tile_um for recipe in recipes if recipe.tiles]
    if fold.buffer_um is not None and max(sides, default=0.0) > fold.buffer_um:
        raise ValueError(
            f"{name!r} reads tiles of {max(sides):g} µm, which reach across the buffer of "
            f"{fold.buffer_um:g} µm: use smaller tiles, or leave out sections"
        )


def _outcome(
    model: Model,
    predicted: NDArray[np.float32],
    training: SpotTable,
    test: SpotTable,
    *,
    seconds: float,
) -> Outcome:
    in_training, measured = (genes_of_model(part, model).dense() for part in (training, test))
    on_embeddings = (base.recipe.embedding for base in (model, *model.bases.values()))
    return Outcome(
        genes=np.array(model.genes),
        measured=measured,
        predicted=predicted,
        training_mean=in_training.mean(axis=0, dtype=np.float64),
        training_variance=in_training.var(axis=0, dtype=np.float64),
        embedding=next((slot for slot in on_embeddings if slot), ""),
        layer=model.recipe.layer or "",
        units=model.units,
        quantile=model.targets.quantile if isinstance(model.targets, High) else math.nan,
        selected=set(training.selected_genes) == set(model.genes),
        options=options_of(model),
        seconds=seconds,
    )


def check_same_quantile(outcomes: Mapping[str, Outcome]) -> None:
    """Require that methods, by name, learn the same: values, or whether they are high."""
    quantiles = {name: outcome.quantile for name, outcome in outcomes.items()}
    if len({str(quantile) for quantile in quantiles.values()}) > 1:
        words = _validate.listing(
            f"{name} ({f'quantile {quantile:g}' if outcomes[name].is_binary else 'values'})"
            for name, quantile in quantiles.items()
        )
        raise ValueError(
            f"the scores of {words} cannot be compared: give all methods the same targets and "
            "quantile="
        )
