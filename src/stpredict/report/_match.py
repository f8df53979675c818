"""A cross-validation and the table that it left in the SpatialData belong together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stpredict import _keys, _validate
from stpredict._sdata import _provenance, _sections
from stpredict.results import CrossValidation

if TYPE_CHECKING:
    from collections.abc import Iterable

    from anndata import AnnData
    from spatialdata import SpatialData


def out_of_fold(result: CrossValidation, sdata: SpatialData) -> AnnData:
    """Table of out-of-fold predictions, which must be that of the result."""
    if not isinstance(result, CrossValidation):
        raise TypeError(
            "expected the result of stp.tl.cross_validate as the first argument, got "
            f"{type(result).__name__}"
        )
    _sections.require_spatialdata(sdata)
    if _keys.OUT_OF_FOLD not in sdata.tables:
        raise KeyError(
            f"there is no tables[{_keys.OUT_OF_FOLD!r}]; tables: "
            f"{_validate.listing(sdata.tables)}: give the object that stp.tl.cross_validate was "
            "called with"
        )
    table = _sections.table_of(sdata, _keys.OUT_OF_FOLD)
    named = [name for name in table.layers if name is not None]  # anndata 0.13: None is X
    known = _provenance.recorded(table, "cross_validate")
    if set(known.get("methods", result.methods)) != set(result.methods):
        raise ValueError(_other("methods", result.methods, known["methods"]))
    if known.get("protocol", result.protocol) != result.protocol:
        raise ValueError(_other("protocol", [result.protocol], [known["protocol"]]))
    _within("methods", result.methods, named)
    _within("sections", result.scores["section"].unique(), _sections.section_names(table))
    genes = result.scores["gene"].unique()
    _within("genes", genes[genes != ""], table.var_names)
    return table


def _within(what: str, scored: Iterable[str], there: Iterable[str]) -> None:
    known = set(there)
    if absent := [name for name in scored if name not in known]:
        raise ValueError(_other(what, absent, there))


def _other(what: str, scored: Iterable[str], there: Iterable[str]) -> str:
    return (
        f"tables[{_keys.OUT_OF_FOLD!r}] is of another cross-validation: the result has the {what} "
        f"{_validate.listing(scored)}, the table {_validate.listing(there)}. Give the result and "
        "the object of the same stp.tl.cross_validate, or run it again"
    )
