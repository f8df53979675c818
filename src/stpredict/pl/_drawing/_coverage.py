"""Coverage of prediction intervals, for `pl.calibration`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stpredict import _keys, uncertainty
from stpredict._sdata._provenance import recorded, rows_to_score
from stpredict._sdata._spot_table import layer_names
from stpredict.pl._drawing._panels import measured_values
from stpredict.pl._drawing._scores import choose_method
from stpredict.results import TUNED_RIDGE

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from stpredict._sdata._spot_table import SpotTable

#: Levels at which out-of-fold coverage is computed.
_LEVELS = (0.5, 0.7, 0.8, 0.9, 0.95)
#: So many genes, and spots per fold, give a stable picture within seconds.
_MAX_GENES, _MAX_SPOTS = 60, 1000


@dataclass(frozen=True)
class Coverage:
    """Share of the measured values inside their intervals, at one level."""

    level: float  # share of the measured values that intervals should contain
    names: tuple[str, ...]  # folds or sections
    by_gene: NDArray[np.floating[Any]]  # (n_names, n_genes); NaN without intervals

    @property
    def means(self) -> NDArray[np.float64]:
        """Mean over genes, (n_names,); NaN where nothing was predicted."""
        # pandas skips NaN without a warning for empty rows, unlike numpy.nanmean
        return pd.DataFrame(self.by_gene, dtype=np.float64).mean(axis=1).to_numpy()


def out_of_fold_coverage(table: AnnData, method: str) -> tuple[list[Coverage], int]:
    """Coverage in each fold at every level with enough rows, and the number of genes used."""
    folds = table.obs[_keys.FOLD].astype(str).to_numpy()
    names = list(dict.fromkeys(folds))
    rows = np.sort(
        np.concatenate([_evenly(np.flatnonzero(folds == name), _MAX_SPOTS) for name in names])
    )
    columns, folds = _evenly(np.arange(table.n_vars), _MAX_GENES), folds[rows]
    measured, predicted = (
        np.asarray(values[rows][:, columns], dtype=np.float64)
        for values in (table.X, table.layers[method])
    )
    finite = np.isfinite(predicted)
    n_rows = min(finite[folds != name].sum(axis=0).max(initial=0) for name in names)
    levels = [level for level in _LEVELS if uncertainty.rows_needed(level) <= n_rows]
    curve = []
    # with too few rows for any level, coverage_by_group raises the error
    for level in levels or _LEVELS[:1]:
        groups, by_gene = uncertainty.coverage_by_group(measured, predicted, folds, level=level)
        order = [groups.index(name) for name in names]
        curve.append(Coverage(level, tuple(names), by_gene[order]))
    return curve, len(columns)


def interval_coverage(opened: SpotTable, measured_table: AnnData) -> Coverage | None:
    """Coverage in each section of the intervals of predictions; None if it is unknown."""
    predicted = opened.table
    genes = [gene for gene in predicted.var_names if gene in measured_table.var_names]
    if not genes or not {_keys.LOWER, _keys.UPPER} <= set(predicted.layers):
        return None
    columns = predicted.var_names.get_indexer(genes)
    record = recorded(predicted, "predict")
    names, by_gene = [], []
    is_scored = rows_to_score(predicted)
    for name, section_rows in opened.section_rows.items():
        rows = section_rows[is_scored[section_rows]]
        if not rows.size:
            continue
        measured = measured_values(measured_table, predicted, rows, genes)
        if measured is None:
            continue
        lower, upper = (
            np.asarray(predicted.layers[layer][rows][:, columns])
            for layer in (_keys.LOWER, _keys.UPPER)
        )
        trained_on = name in record.get("training_sections", [])
        names.append(f"{name}\n(trained on)" if trained_on else name)
        by_gene.append(uncertainty.coverage(measured, lower, upper))
    if not names:
        return None
    return Coverage(float(record["level"]), tuple(names), np.array(by_gene))


def method_of(table: AnnData, method: str | None) -> str:
    """Method of a cross-validation: the given one, or the only one."""
    layers = layer_names(table)
    record = recorded(table, "cross_validate")
    fitted = set(record.get("methods", layers)) - {*record.get("baselines", [TUNED_RIDGE])}
    methods = [name for name in layers if name in fitted]
    return choose_method(method, methods, layers, what="prediction")


def _evenly(positions: NDArray[np.intp], n: int) -> NDArray[np.intp]:
    """At most n of the positions, evenly spaced."""
    return positions[np.linspace(0, len(positions) - 1, min(len(positions), n)).astype(int)]
