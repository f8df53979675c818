"""Tables of predictions, matched with the measured table, and scored section by section."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stpredict import _keys, _validate
from stpredict._sdata._provenance import recorded, rows_to_score
from stpredict._sdata._spot_table import require_key
from stpredict.tl._crossval._scores import as_table, score_method, score_references, scored_sections
from stpredict.tl._fitting._split import group_labels

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from anndata import AnnData
    from numpy.typing import NDArray
    from spatialdata import SpatialData

    from stpredict._sdata._spot_table import SpotTable
    from stpredict.tl._evaluation._truth import Truth


def open_predictions(sdata: SpatialData, names: Iterable[str]) -> dict[str, AnnData]:
    """Tables of predictions by name, checked."""
    return {name: _open(sdata, name) for name in names}


def _open(sdata: SpatialData, name: str) -> AnnData:
    require_key(name, sdata.tables, what="tables")
    table = sdata.tables[name]
    if not recorded(table, "predict") or "training_mean" not in table.var:
        raise ValueError(
            f"tables[{name!r}] does not hold genes predicted by stp.tl.predict. Read predictions "
            "of another tool with stp.io.read_predictions"
        )
    _validate.finite(table.X, what=f"tables[{name!r}].X")
    return table


def has_units(table: AnnData) -> bool:
    """Whether the units of predictions are known."""
    return bool(recorded(table, "predict")["units"] != _keys.UNKNOWN_UNITS)


def training_mean(table: AnnData) -> NDArray[np.float64] | None:
    """Mean of each gene in training; None if it is not known, as for some published models."""
    mean = table.var["training_mean"].to_numpy(dtype=np.float64)
    return None if np.isnan(mean).any() else mean


@dataclass(frozen=True, eq=False)
class Pairs:
    """Spots and genes that a table predicts and that were measured."""

    rows: NDArray[np.intp]  # (n,) rows of the measured table
    columns: NDArray[np.intp]  # (n_genes,) its columns
    predicted: AnnData  # (n, n_genes)


def match(spots: SpotTable, predictions: dict[str, AnnData]) -> dict[str, Pairs]:
    """Match tables by the names of spots and genes, without the spots that a table used.

    In each section, all tables that predict spots of it are scored on the same spots.
    """
    used = pd.Index([])  # by `tl.adapt`: no table is scored there
    for table in predictions.values():
        used = used.union(table.obs_names[~rows_to_score(table)], sort=False)
    names = spots.table.obs_names
    is_predicted = {
        name: names.isin(_unused(table, name, used)) for name, table in predictions.items()
    }
    is_scored = np.zeros(len(names), dtype=bool)
    for section, rows in spots.section_rows.items():
        in_section = [mask[rows] for mask in is_predicted.values() if mask[rows].any()]
        if in_section:
            is_scored[rows] = np.logical_and.reduce(in_section)
            if not is_scored[rows].any():
                raise ValueError(
                    f"the tables predict different spots of section {section!r}: evaluate them "
                    "one by one"
                )
    scored = names[is_scored]
    return {name: _match(spots.table, table, name, scored) for name, table in predictions.items()}


def _unused(table: AnnData, name: str, used: pd.Index) -> pd.Index:
    """Spots whose measured expression took no part in predictions."""
    unused = table.obs_names.difference(used, sort=False)
    if not len(unused):
        raise ValueError(
            f"the measured expression of all spots of tables[{name!r}] was used for predictions "
            "(stp.tl.denoise, stp.tl.adapt), so that none is left to score"
        )
    return unused


def _match(measured: AnnData, table: AnnData, name: str, scored: pd.Index) -> Pairs:
    spots = table.obs_names.intersection(scored, sort=False)
    genes = table.var_names.intersection(measured.var_names, sort=False)
    if not len(spots) or not len(genes):
        reason = "" if len(genes) else _validate.why_absent(table.var_names, measured.var_names)
        shared_rows = f"{len(spots)} spots and {len(genes)} genes"
        raise ValueError(f"tables[{name!r}] and the measured table share {shared_rows}{reason}")
    rows = measured.obs_names.get_indexer(spots)
    return Pairs(rows, measured.var_names.get_indexer(genes), table[spots, genes])


def score_tables(
    spots: SpotTable, truth: Truth, pairs: dict[str, Pairs], *, seed: int
) -> pd.DataFrame:
    """Tidy scores of all tables, with nulls, references and ceiling."""
    labels, _ = group_labels(spots, None)
    parts: list[pd.DataFrame] = []
    covered: set[tuple[str, str, str]] = set()
    # references are scored once, with the training mean if a table has it
    for name in _with_mean_first(pairs):
        rows, matched = pairs[name].rows, pairs[name].predicted
        values = truth.values(spots, rows, pairs[name].columns, matched)
        predicted = np.asarray(matched.X, dtype=np.float64)
        genes, mean = matched.var_names.to_numpy(), training_mean(matched)
        options: dict[str, Any] = {"seed": seed, "is_binary": truth.is_binary}
        in_units = has_units(matched)
        order = np.argsort(rows)  # sections are found in ascending rows
        for scored in scored_sections(spots, rows[order], labels):
            places = order[np.searchsorted(rows[order], scored.rows)]
            measured = values[places]
            parts += score_method(
                scored, name, measured, predicted[places], genes, has_units=in_units, **options
            )
            layer = truth.ceiling_layer
            parts += score_references(
                scored, spots, measured, genes, mean, covered, layer=layer, **options
            )
    return as_table(parts)


def _with_mean_first(pairs: dict[str, Pairs]) -> Sequence[str]:
    return sorted(pairs, key=lambda name: training_mean(pairs[name].predicted) is None)
