"""Measured values and the tables of predictions that `tl.evaluate` scored, as one table."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData
from spatialdata.models import TableModel

from stpredict import _validate
from stpredict._sdata._spot_table import open_table
from stpredict.tl._evaluation._tables import has_units, match, open_predictions
from stpredict.tl._evaluation._truth import Truth

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from spatialdata import SpatialData

    from stpredict._sdata._spot_table import SpotTable
    from stpredict.results import Scores


def open_evaluated(sdata: SpatialData, scores: Scores, table_name: str) -> SpotTable:
    """Table with a layer per scored table of predictions; values that are absent are NaN."""
    spots = open_table(sdata, table_name)
    predictions = open_predictions(sdata, scores.methods)
    truth = Truth.of(spots, predictions, scores.protocol.layer)
    pairs = match(spots, predictions)
    rows = np.unique(np.concatenate([each.rows for each in pairs.values()]))
    columns = np.unique(np.concatenate([each.columns for each in pairs.values()]))
    part, genes = spots.rows(rows), spots.table.var_names[columns]
    measured = np.full((len(rows), len(columns)), np.nan, dtype=np.float32)
    layers = {name: measured.copy() for name in pairs}
    for name, pair in pairs.items():
        place = np.ix_(np.searchsorted(rows, pair.rows), np.searchsorted(columns, pair.columns))
        measured[place] = truth.values(spots, pair.rows, pair.columns, pair.predicted)
        layers[name][place] = pair.predicted.X
    table = AnnData(measured, obs=part.obs, var=pd.DataFrame(index=genes), layers=layers)
    table.uns[TableModel.ATTRS_KEY] = part.uns[TableModel.ATTRS_KEY]
    opened = replace(spots, table=table)
    _require_same(scores, opened, truth.units)
    for name in without_units(sdata, scores):
        for section in opened.section_rows.values():
            layers[name][section] = _as_measured(measured[section], layers[name][section])
        table.layers[name] = layers[name]
    return opened


def without_units(sdata: SpatialData, scores: Scores) -> list[str]:
    """Methods of `tl.evaluate` in unknown units, which are drawn on the scale of the measured."""
    if scores.protocol.group_kind is not None:
        return []
    return [name for name in scores.methods if not has_units(sdata.tables[name])]


def _as_measured(
    measured: NDArray[np.float32], predicted: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Predictions of a section with the mean and standard deviation of the measured values."""
    own = np.where(np.isfinite(predicted), measured, np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of genes and spots without predictions
        means = [np.nanmean(side, axis=0) for side in (own, predicted)]
        spread = [np.nanstd(side, axis=0) for side in (own, predicted)]
    scale = spread[0] / np.where(spread[1] > 0, spread[1], np.inf)
    return np.asarray(means[0] + scale * (predicted - means[1]), dtype=np.float32)


def _require_same(scores: Scores, spots: SpotTable, units: str) -> None:
    """Require the tables and the layer that were scored."""
    genes = scores.table["gene"].unique()
    pairs = {
        "sections": (scores.table["section"].unique(), spots.section_names),
        "genes": (genes[genes != ""], spots.table.var_names),
        "units": ([scores.protocol.units], [units]),
    }
    for what, (scored, stored) in pairs.items():
        if set(scored) != set(stored):
            raise ValueError(
                f"the scores are of other tables: they have the {what} {_validate.listing(scored)},"
                f" the object {_validate.listing(stored)}. Run stp.tl.evaluate again"
            )
