"""The table of predictions: genes, uncertainty, and a record of the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import pandas as pd
from anndata import AnnData

from stpredict import _keys, _validate
from stpredict._log import warn
from stpredict._sdata._provenance import record
from stpredict.targets._high import High
from stpredict.tl._fitting._inputs import tile_embedding

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stpredict._sdata._spot_table import SpotTable
    from stpredict.models import Model
    from stpredict.uncertainty import Calibration, Intervals

#: Median familiarity of a section below which `predict` warns and writes no intervals: those of
#: 90 % covered 58 % of such a section of another patient. Sections of HER2ST predicted from others
#: of their tumour reach 0.3 to 0.6; 10 % more haematoxylin and 10 % less eosin give 0; blur to 40 %
#: of the resolution gives 0.2 and goes without a warning.
_UNFAMILIAR = 0.1


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
    """Table of the predictions of all rows; intervals are refused for unfamiliar sections.

    ``level`` is that of intervals that the caller adds, instead of those of a calibrated model.
    """
    obs, var = spots.table.obs.copy(), _describe_columns(model, space)
    predicted = AnnData(X=predictions.values, obs=obs, var=var)
    if predictions.spread is not None:
        predicted.layers[_keys.STD] = predictions.spread
    unfamiliar: list[str] = []
    if model.calibration is not None and predictions.familiarity is not None:
        predicted.obs[_keys.FAMILIARITY] = predictions.familiarity
        unfamiliar = _unfamiliar_sections(predictions.familiarity, spots.section_of_row)
        is_familiar = ~np.isin(spots.section_of_row, unfamiliar)
        _add_uncertainty(predicted, model, model.calibration, is_familiar)
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
        unfamiliar_sections=unfamiliar or None,
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


def _unfamiliar_sections(familiarity: NDArray[np.float32], sections: NDArray[np.str_]) -> list[str]:
    """Sections whose tiles look unlike those of training, with a warning."""
    medians = pd.Series(familiarity).groupby(sections, sort=False).median()
    unfamiliar = medians[medians < _UNFAMILIAR]
    if not unfamiliar.empty:
        names = _validate.listing(
            f"{name} (median familiarity {value:.2f})" for name, value in unfamiliar.items()
        )
        warn(
            f"tiles of {names} look unlike those of the training sections (median about 0.5), so "
            f"that they have no intervals and var[{_keys.RELIABLE!r}] is missing: compare stain, "
            "focus and µm per pixel (stp.pl.stain, stp.pl.tiles)"
        )
    return [str(name) for name in unfamiliar.index]


def _add_uncertainty(
    predicted: AnnData, model: Model, calibration: Calibration, is_familiar: NDArray[np.bool_]
) -> None:
    """Add intervals and reliable genes, as far as tiles are familiar."""
    options = {"intervals": calibration.intervals, "nonnegative": model.nonnegative}
    for side, name in enumerate((_keys.LOWER, _keys.UPPER)):
        options["side"] = side
        predicted.layers[name] = _blockwise(predicted.X, is_familiar[:, None], options)
    reliable = pd.array(calibration.reliable, dtype="boolean")
    if not is_familiar.all():  # a gene may be reliable only on tissue like that of training
        reliable[:] = pd.NA
    predicted.var[_keys.RELIABLE] = reliable


def _blockwise(values: Any, is_familiar: NDArray[np.bool_], options: dict[str, Any]) -> Any:
    """Bounds around predictions, which may be on disk."""
    if not isinstance(values, da.Array):
        return _bound(np.asarray(values), is_familiar, **options)
    mask = da.from_array(is_familiar, chunks=(values.chunks[0], 1))
    return da.map_blocks(
        _bound, values, mask, dtype=np.float32, chunks=values.chunks, meta=values._meta, **options
    )


def _bound(
    values: NDArray[np.float32],
    is_familiar: NDArray[np.bool_],
    *,
    intervals: Intervals,
    nonnegative: bool,
    side: int,
) -> NDArray[np.float32]:
    """Lower (0) or upper (1) bounds around predictions; NaN where tiles are unfamiliar."""
    bound = intervals.around(values)[side]
    bound = np.maximum(bound, np.float32(0)) if nonnegative else bound
    return np.where(is_familiar, bound, np.float32(np.nan))
