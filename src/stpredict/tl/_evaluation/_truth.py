"""Measured values that predictions estimate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stpredict import _keys
from stpredict._sdata._layer_steps import check_same_units, units_of
from stpredict._sdata._provenance import check_measured, recorded
from stpredict.targets._counts import COUNTS_UNITS, TARGET_SUM
from stpredict.targets._high import HIGH_UNITS, is_high
from stpredict.targets._matrix import as_matrix, dense
from stpredict.tl._fitting._values import library_size

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from stpredict._sdata._spot_table import SpotTable


@dataclass(frozen=True)
class Truth:
    """Measured layer, and how its values become those that models predict."""

    layer: str | None
    units: str
    per_10k: bool = False  # counts per 10,000, from counts
    is_binary: bool = False  # 1 above the threshold of training, else 0

    @classmethod
    def of(cls, spots: SpotTable, predictions: dict[str, AnnData], layer: str | None) -> Truth:
        """That of tables of predictions, which must be in the same units as far as known."""
        check_measured(spots.table, spots.name)
        records = {name: recorded(table, "predict") for name, table in predictions.items()}
        units = {name: str(record["units"]) for name, record in records.items()}
        in_units = [name for name, one in units.items() if one != _keys.UNKNOWN_UNITS]
        if len({units[name] for name in in_units}) > 1:
            raise ValueError(
                f"the tables are in different units: {units}; evaluate them one by one"
            )
        first = records[(in_units or list(records))[0]]
        if layer is None:
            check_same_units(spots.table, first)
        per_10k = layer is None and first["units"] == COUNTS_UNITS
        is_binary = first["units"].startswith(HIGH_UNITS)
        if is_binary and len(in_units) < len(units):
            raise ValueError(
                f"predictions of high expression are not compared with unknown units: {units}"
            )
        if is_binary:
            _check_same_thresholds(predictions)
        if is_binary and layer not in (None, first.get("layer")):
            raise ValueError(
                f"layer={layer!r} has other values than layer={first.get('layer')!r}, whose high "
                "values were predicted: leave out layer="
            )
        layer = first.get("layer") if layer is None else layer
        spots.layer(layer)  # raises if it is absent
        words = first["units"] if per_10k or is_binary else units_of(spots.table, layer)
        return cls(layer, words, per_10k, is_binary)

    @property
    def ceiling_layer(self) -> str | None:
        """Layer whose noise ceiling is computed, which is possible for log1p only."""
        return None if self.per_10k else self.layer

    def values(
        self,
        spots: SpotTable,
        rows: NDArray[np.intp],
        columns: NDArray[np.intp],
        predicted: AnnData,  # of the genes of these columns
    ) -> NDArray[np.float64]:
        """Measured values of some rows and columns, (n_rows, n_columns)."""
        measured = as_matrix(spots.layer(self.layer))
        values = np.asarray(dense(measured[rows][:, columns]), dtype=np.float64)
        if self.per_10k:
            values = values / library_size(measured)[rows, None] * TARGET_SUM
        if self.is_binary:
            values = is_high(values, predicted.var[_keys.THRESHOLD].to_numpy()).astype(np.float64)
        return values


def _check_same_thresholds(predictions: dict[str, AnnData]) -> None:
    """Require one threshold per gene, so that tables are scored against the same values."""
    (first_name, first), *others = predictions.items()
    for name, table in others:
        genes = first.var_names.intersection(table.var_names)
        pair = (one.var[_keys.THRESHOLD].loc[genes] for one in (first, table))
        if not np.array_equal(*pair):
            raise ValueError(
                f"{first_name!r} and {name!r} call genes high above different thresholds, since "
                "their models have other training sections or quantiles: evaluate them one by one"
            )
