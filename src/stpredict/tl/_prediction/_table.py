"""The table of predictions: genes, uncertainty, and a record of the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData

from stpredict import _keys
from stpredict._sdata._provenance import record
from stpredict.targets._high import High
from stpredict.tl._fitting._inputs import tile_embedding
from stpredict.tl._prediction._uncertainty import SectionWidths, add_uncertainty

if TYPE_CHECKING:
    import dask.array as da
    from numpy.typing import NDArray

    from stpredict._sdata._spot_table import SpotTable
    from stpredict.models import Model


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predictions of some spots, in memory or in chunks on disk."""

    rows: NDArray[np.intp]  # (n,) rows of the table, ascending
    values: NDArray[np.float32] | da.Array  # (n, n_genes)
    # (n, n_genes), standard deviation over members
    spread: NDArray[np.float32] | da.Array | None = None
    familiarity: NDArray[np.float32] | None = None  # (n,), of calibrated models


def familiarity_of(spots: SpotTable, model: Model) -> NDArray[np.float32] | None:
    """Familiarity of the tile of each row, (n_obs,); None for models that are not calibrated."""
    if model.calibration is None:
        return None
    return model.calibration.familiarity.score(tile_embedding(spots, model))


def predicted_table(
    spots: SpotTable,
    model: Model,
    predictions: Predictions,
    *,
    space: str = "genes",
    level: float | None = None,
) -> AnnData:
    """Table of the predictions of all rows; unfamiliar sections have no intervals.

    ``level`` is that of intervals that the caller adds, instead of those of a calibrated model.
    """
    obs, var = spots.table.obs.copy(), _describe_columns(model, space)
    predicted = AnnData(X=predictions.values, obs=obs, var=var)
    if predictions.spread is not None:
        predicted.layers[_keys.STD] = predictions.spread
    widths: SectionWidths | None = None
    if model.calibration is not None and predictions.familiarity is not None:
        predicted.obs[_keys.FAMILIARITY] = predictions.familiarity
        rule = model.calibration.section_rule
        widths = SectionWidths.of(rule, predictions.familiarity, spots.section_of_row)
        add_uncertainty(predicted, model, model.calibration, widths)
    if level is None and model.calibration is not None:
        level = model.calibration.level
    record(
        predicted,
        "predict",
        method=model.method,
        units=model.units if space == "genes" else "factor",
        layer=model.recipe.layer,
        training_sections=list(model.training.sections),
        training_donors={name: list(x) for name, x in model.training.donors.items()} or None,
        level=level,
        unfamiliar_sections=None if widths is None else widths.unfamiliar or None,
        interval_notes=None if widths is None else widths.notes or None,
        minimum=0.0 if model.nonnegative and space == "genes" else None,
    )
    return predicted


def _describe_columns(model: Model, space: str) -> pd.DataFrame:
    """Genes with their training mean, or names of factors."""
    if space == "factors" and model.targets.outputs is not None:
        return pd.DataFrame(index=pd.Index(model.targets.outputs))
    # the scaler of a published model may be centred on something else than the mean
    mean = model.targets.mean
    columns = {
        "training_mean": mean if model.training.knows_mean else np.full_like(mean, np.nan),
        "constant": model.targets.constant,
    }
    if isinstance(model.targets, High):
        columns[_keys.THRESHOLD] = model.targets.threshold
    return pd.DataFrame(columns, index=pd.Index(model.genes))
