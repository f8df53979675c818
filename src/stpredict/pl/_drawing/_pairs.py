"""Measured and predicted values by section, for `pl.scatter` and `pl.precision_recall`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stpredict import _keys, _validate
from stpredict._sdata._provenance import recorded, rows_to_score
from stpredict.pl._drawing._coverage import method_of
from stpredict.pl._drawing._panels import measured_values

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from numpy.typing import NDArray

    from stpredict._sdata._spot_table import SpotTable


@dataclass(frozen=True, eq=False)
class PairedSection:
    """Measured and predicted values of the genes in a section or fold, and their source."""

    section: str  # and fold, where folds divide a section
    source: str  # table of predictions, or method of a cross-validation
    measured: NDArray[np.float64]  # (n_spots, n_genes), in the units of the predictions
    predicted: NDArray[np.float64]  # NaN where a fold did not predict the gene
    in_training: bool  # whether the model was trained on the section
    leaky: bool  # that, or the cross-validation leaks a group

    @property
    def note(self) -> str:
        """What a legend says of a section that was in training."""
        return " (trained on)" if self.in_training else ""

    @property
    def values(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Measured and predicted values."""
        return self.measured, self.predicted


def units_of(table: AnnData) -> str:
    """Units of a table of `tl.predict` or `tl.cross_validate`."""
    record = recorded(table, "cross_validate") or recorded(table, "predict")
    return str(record.get("units", ""))


def paired_sections(
    opened: SpotTable,
    genes: list[str],
    sections: Sequence[str],
    *,
    measured_table: AnnData,
    method: str | None,
) -> list[PairedSection]:
    """Read the sections of a table of `tl.predict` or `tl.cross_validate`."""
    table = opened.table
    cross_validation = recorded(table, "cross_validate")
    record = cross_validation or recorded(table, "predict")
    _validate.present(genes, table.var_names)
    columns = table.var_names.get_indexer(genes)
    method = method_of(table, method) if cross_validation else None
    values = table.X if method is None else table.layers[method]
    trained_on = record.get("training_sections", [])
    parts = []
    for section in sections:
        for part, rows in _parts(opened, section, is_cross_validation=method is not None):
            measured = (
                measured_values(measured_table, table, rows, genes)
                if method is None
                else np.asarray(table.X[rows][:, columns], dtype=np.float64)
            )
            if measured is None:
                raise KeyError(f"some spots of {section!r}, or genes, have no measured values")
            predicted = np.asarray(values[rows][:, columns], dtype=np.float64)
            in_training = section in trained_on
            leaky = in_training or bool(cross_validation.get("leaky"))
            source = method or opened.name
            parts.append(PairedSection(part, source, measured, predicted, in_training, leaky))
    return parts


def _parts(
    opened: SpotTable, section: str, *, is_cross_validation: bool
) -> list[tuple[str, NDArray[np.intp]]]:
    """Rows of a section by name; each fold has its own, since models and thresholds differ."""
    rows = opened.section_rows[section]
    rows = rows[rows_to_score(opened.table)[rows]]
    if not is_cross_validation:
        return [(section, rows)]
    folds = opened.table.obs[_keys.FOLD].astype(str).to_numpy()[rows]
    names = list(dict.fromkeys(folds))
    if len(names) == 1:
        return [(section, rows)]
    return [(f"{section}, {name}", rows[folds == name]) for name in names]
