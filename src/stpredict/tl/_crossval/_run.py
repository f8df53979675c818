"""One method in one fold: fitted on the training sections, asked for those left out."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stpredict import _keys
from stpredict._sdata import _sections
from stpredict.results import Failure
from stpredict.tl._fitting._bases import predict_unseen
from stpredict.tl._fitting._measured import values_of_genes

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from spatialdata import SpatialData

    from stpredict.models import Model


@dataclass(frozen=True)
class Outcome:
    """What a method predicts of the spots left out in a fold.

    Attributes
    ----------
    genes
        (n_genes,), those the model predicts.
    measured, predicted
        (n_rows, n_genes) float32, in the same units.
    ridge
        The same by tuned ridge regression on the model's embedding; (0, 0) where it has none.
    training_mean
        (n_genes,), of the training rows.
    training_variance
        (n_genes,), of the training rows: what the most variable genes are known by.
    embedding
        Slot of the embedding that the ridge regression is on; empty for that of pixels' tiles.
    layer, units
        What is predicted; layer is empty for ``X``.
    chosen
        Whether the genes are those selected on the training rows.
    seconds
        That fitting and predicting took.
    """

    genes: NDArray[np.str_]
    measured: NDArray[np.float32]
    predicted: NDArray[np.float32]
    ridge: NDArray[np.float32]
    training_mean: NDArray[np.float64]
    training_variance: NDArray[np.float64]
    embedding: str
    layer: str
    units: str
    chosen: bool
    seconds: float


def run(
    name: str,
    fit: Callable[[SpatialData], Model],
    train: SpatialData,
    test: SpatialData,
    *,
    fold: str,
    whole: Collection[str],
    device: str,
) -> Outcome | Failure:
    """Fit and predict on copies; an error is kept, not raised.

    ``whole`` names the sections that are left out as a whole, which the model may not know.
    """
    try:
        return _run(name, fit, train, _sections.copy_of(test), whole=whole, device=device)
    except Exception as error:  # noqa: BLE001 the other methods go on; this is told at the end
        line = f"{type(error).__name__}: {error}".splitlines()[0]
        return Failure(name, fold, line, traceback.format_exc())


def _run(
    name: str,
    fit: Callable[[SpatialData], Model],
    train: SpatialData,
    test: SpatialData,
    *,
    whole: Collection[str],
    device: str,
) -> Outcome:
    start = time.perf_counter()
    train_copy = _sections.copy_of(train)
    model = predict_unseen(name, fit, train_copy, test, whole=whole, device=device)
    seconds = time.perf_counter() - start
    predicted = test.tables[_keys.PREDICTED]
    table = _sections.table_of(test)
    measured = values_of_genes(table, model).dense(np.arange(table.n_obs))
    ridge = predicted.layers.get(_keys.RIDGE, np.empty((0, 0), dtype=np.float32))
    known = _sections.table_of(train)
    seen = values_of_genes(known, model).dense(np.arange(known.n_obs))
    selected = known.var.get(_keys.SELECTED)
    chosen = selected is not None and set(selected.index[selected]) == set(model.genes)
    first = next((base for base in (model, *model.bases) if base.ridge is not None), model)
    return Outcome(
        genes=np.array(model.genes),
        measured=measured,
        predicted=np.asarray(predicted.X, dtype=np.float32),
        ridge=np.asarray(ridge, dtype=np.float32),
        training_mean=seen.mean(axis=0, dtype=np.float64),
        training_variance=seen.var(axis=0, dtype=np.float64),
        embedding=first.recipe.get("embedding") or "",
        layer=model.recipe["layer"] or "",
        units=model.units,
        chosen=chosen,
        seconds=seconds,
    )
