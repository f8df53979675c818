"""Predictions of all sections, matched, and the table that holds them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData
from spatialdata.models import TableModel

from stpredict import _keys, _validate
from stpredict._sdata._layer_steps import units_of
from stpredict._sdata._provenance import record
from stpredict.io._predictions._genes import GeneMatch, match_genes
from stpredict.io._predictions._rows import RowMatch, match_rows
from stpredict.io._predictions._units import fit_units
from stpredict.targets._matrix import as_matrix, dense

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from stpredict._sdata._sections import Section
    from stpredict._sdata._spot_table import SpotTable
    from stpredict.io._predictions._source import Layout, Source

#: Means that differ by more than this factor are hardly in the same units.
_MOST_RATIO = 5.0


@dataclass(frozen=True, eq=False)
class Part:
    """Predictions of one section, or of all that are matched by name."""

    section: str | None
    source: Source
    genes: GeneMatch
    spots: RowMatch

    @classmethod
    def match(
        cls, predictions: Any, layout: Layout, spots: SpotTable, section: Section | None
    ) -> Part:
        """Open predictions, and match their rows and columns."""
        source = layout.open(predictions, spots, section)
        genes = match_genes(source.var, spots.table.var)
        name = None if section is None else section.name
        return cls(name, source, genes, match_rows(source, spots, section))


@dataclass(frozen=True, eq=False)
class Matched:
    """Predictions of spots and genes that were measured."""

    parts: tuple[Part, ...]
    spots: SpotTable

    @cached_property
    def genes(self) -> NDArray[np.intp]:
        """Columns of the measured table that all parts predict."""
        columns = self.parts[0].genes.measured
        for part in self.parts[1:]:
            columns = np.intersect1d(columns, part.genes.measured)
        if not len(columns):
            raise ValueError("the predictions of the sections share no measured gene")
        return columns

    @cached_property
    def rows(self) -> NDArray[np.intp]:
        """Rows of the measured table, part by part."""
        return np.concatenate([part.spots.rows for part in self.parts])

    @cached_property
    def values(self) -> NDArray[np.float64]:
        """Predictions of these rows and genes, (n_rows, n_genes)."""
        blocks = []
        for part in self.parts:
            columns = part.genes.predicted[np.isin(part.genes.measured, self.genes)]
            used = np.unique(part.spots.weights.indices)  # tiles on no spot may have no value
            block = part.source.block(columns)
            where = f" of section {part.section}" if part.section else ""
            _validate.finite(block[used], what=f"the table of predictions{where}")
            blocks.append(part.spots.weights @ np.nan_to_num(block))
        return np.concatenate(blocks)

    @property
    def text(self) -> str:
        """What was matched and what was not, in words."""
        rows = "; ".join(
            f"{part.section}: {part.spots.text}" if part.section else part.spots.text
            for part in self.parts
        )
        by = sorted({part.genes.by for part in self.parts})
        n_unmatched = max(part.genes.n_unmatched for part in self.parts)
        n_genes = f"{len(self.genes)} of {self.spots.table.n_vars} measured genes"
        return f"{rows}. {n_genes} matched by {' and '.join(by)}, {n_unmatched} others not measured"


@dataclass(frozen=True)
class Units:
    """How the units of predictions compare with those of a measured layer."""

    layer: str | None
    same: bool
    fit_sections: tuple[str, ...]


def predictions_table(
    matched: Matched, units: Units, training_sections: Sequence[str] | None
) -> AnnData:
    """Table of the matched spots, without those that the units were fitted on."""
    spots = matched.spots
    layer = as_matrix(spots.layer(units.layer))
    measured = np.asarray(dense(layer[matched.rows][:, matched.genes]), dtype=np.float64)
    values = matched.values
    keep = np.ones(len(values), dtype=bool)
    mean = np.full(len(matched.genes), np.nan)
    notes = [matched.text]
    if units.fit_sections:
        keep = ~np.isin(spots.section_of_row[matched.rows], units.fit_sections)
        values, mean, n_limited = _in_measured_units(measured, values, keep)
        names = _validate.listing(units.fit_sections)
        notes.append(
            f"units fitted gene by gene on {names}, which is not scored"
            + (f"; {n_limited} genes do not increase with the measured values" if n_limited else "")
        )
    elif units.same:
        notes += _other_units(measured, values, units.layer)
    order = np.argsort(matched.rows[keep], kind="stable")
    rows = matched.rows[keep][order]
    var = pd.DataFrame({"training_mean": mean}, index=spots.table.var_names[matched.genes])
    table = _annotating(spots, rows, values[keep][order].astype(np.float32), var)
    used = None if training_sections is None else list(training_sections)
    if units.fit_sections:  # these spots have taken part in the predictions
        used = list(dict.fromkeys([*(used or []), *units.fit_sections]))
    has_units = units.same or bool(units.fit_sections)
    record(
        table,
        "predict",
        method="another tool",
        units=units_of(spots.table, units.layer) if has_units else _keys.UNKNOWN_UNITS,
        layer=units.layer,
        training_sections=used,
        notes=notes,
        unknown_training=training_sections is None or None,
    )
    return table


def _in_measured_units(
    measured: NDArray[np.float64], values: NDArray[np.float64], keep: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """Values in measured units, the measured mean of the fitted spots, and limited genes."""
    n_fit = int((~keep).sum())
    if n_fit < 3 or not keep.any():
        raise ValueError(
            f"fit_sections have {n_fit} matched spots and the other sections {int(keep.sum())}: "
            "give predictions of both"
        )
    intercept, slope, n_limited = fit_units(measured[~keep], values[~keep])
    return intercept + slope * values, measured[~keep].mean(axis=0), n_limited


def _other_units(
    measured: NDArray[np.float64], values: NDArray[np.float64], layer: str | None
) -> list[str]:
    """A note if values are hardly in the units of the layer."""
    means = float(measured.mean()), float(values.mean())
    if 1 / _MOST_RATIO <= means[1] / max(means[0], 1e-12) <= _MOST_RATIO:
        return []
    label = "X" if layer is None else f"layers[{layer!r}]"
    return [
        f"OTHER UNITS? The predictions are {means[1]:.3g} on average, {label} {means[0]:.3g}, "
        "although same_units=True"
    ]


def _annotating(
    spots: SpotTable, rows: NDArray[np.intp], values: NDArray[np.float32], var: pd.DataFrame
) -> AnnData:
    """A table of some spots with their positions and their part of the neighbourhood graph."""
    part = spots.rows(rows)
    slots: Mapping[str, Sequence[str]] = {
        "obsm": [_keys.SPATIAL],
        "obsp": [_keys.CONNECTIVITIES, _keys.DISTANCES],
    }
    table = AnnData(values, obs=part.obs, var=var)
    table.uns[TableModel.ATTRS_KEY] = part.uns[TableModel.ATTRS_KEY]
    for slot, keys in slots.items():
        own = getattr(part, slot)
        getattr(table, slot).update({key: own[key] for key in keys if key in own})
    return table
