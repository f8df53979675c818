"""Whether scores and a table of out-of-fold predictions belong to the same cross-validation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stpredict import _validate
from stpredict._sdata._provenance import recorded
from stpredict._sdata._spot_table import layer_names, open_table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from spatialdata import SpatialData

    from stpredict._sdata._spot_table import SpotTable
    from stpredict.results import Scores


def open_out_of_fold(sdata: SpatialData, scores: Scores, table_name: str, key: str) -> SpotTable:
    """Table of out-of-fold predictions, which must belong to the scores and to the table."""
    spots = open_table(sdata, key)
    cross_validated = open_table(sdata, table_name).table
    record = recorded(spots.table, "cross_validate")
    layers = layer_names(spots.table)
    genes = scores.table["gene"].unique()
    names = (*scores.methods, *scores.baselines)
    _require_same("methods", names, (*record.get("methods", names), *record.get("baselines", ())))
    _require_same("protocol", [scores.protocol], [record.get("text", scores.protocol)])
    _require_subset("methods", scores.methods, layers)
    _require_subset("sections", scores.table["section"].unique(), spots.section_names)
    _require_subset("genes", genes[genes != ""], spots.table.var_names)
    absent = spots.table.obs_names.difference(cross_validated.obs_names)
    if len(absent):
        raise ValueError(
            f"tables[{table_name!r}] lacks {len(absent)} spots of tables[{key!r}]: "
            f"{_validate.listing(absent)}. Run stp.tl.cross_validate again"
        )
    return spots


def _require_same(what: str, scored: Iterable[object], stored: Iterable[object]) -> None:
    if {str(name) for name in scored} != {str(name) for name in stored}:
        raise ValueError(_message(what, scored, stored))


def _require_subset(what: str, scored: Iterable[str], stored: Iterable[str]) -> None:
    stored = list(stored)
    if absent := [name for name in scored if name not in stored]:
        raise ValueError(_message(what, absent, stored))


def _message(what: str, scored: Iterable[object], stored: Iterable[object]) -> str:
    return (
        "the table is of another cross-validation than the scores: the scores have the "
        f"{what} {_validate.listing(scored)}, the table {_validate.listing(stored)}. Pass the "
        "scores and the object of the same stp.tl.cross_validate"
    )
