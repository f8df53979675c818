"""Slots that functions write: names are valid, and the user's own slots are not overwritten."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from stpredict import _keys, _validate
from stpredict._sdata._provenance import record, recorded

if TYPE_CHECKING:
    from collections.abc import Iterable

    from anndata import AnnData
    from spatialdata import SpatialData

_Kind = Literal["layers", "obs", "var", "obsm", "obsp"]

#: Default names, which belong to this package.
_DEFAULTS: dict[str, tuple[str, ...]] = {
    "layers": (_keys.LOG1P, _keys.RANKS, _keys.SMOOTHED),
    "obs": (_keys.SAMPLING_WEIGHT,),
    "var": (_keys.SELECTED,),
    "obsm": (),
    "obsp": (_keys.CONNECTIVITIES, _keys.DISTANCES),
}
#: Names with another meaning; anndata cannot write a column ``_index``.
_RESERVED: dict[str, tuple[str, ...]] = {
    "layers": (),
    "obs": (_keys.REGION, _keys.INSTANCE, _keys.PATIENT, "_index"),
    "var": (_keys.GENE_IDS, _keys.GENE_SYMBOLS, "_index"),
    "obsm": (_keys.SPATIAL,),
    "obsp": (),
}
#: Record of the slots that were written under other names than the defaults.
_RECORD = "slots"
#: Records of the functions that write tables.
_TABLE_RECORDS = ("predict", "cross_validate", "score_programs")


def check_slot(table: AnnData, kind: _Kind, key: object, *, own: Iterable[str] = ()) -> None:
    """Require a name of a slot that can be written; ``own`` are slots with records elsewhere."""
    name = _validate.slot_name("key_added", key)
    if name in _RESERVED[kind]:
        raise ValueError(f"key_added={name!r} has another meaning in {kind}: give another name")
    written = recorded(table, _RECORD).get(kind, ())
    if name in {*_DEFAULTS[kind], *written, *own}:
        return
    existing = [str(other) for other in getattr(table, kind) if other is not None]
    if name in existing:
        raise ValueError(
            f"{kind}[{name!r}] exists, and stpredict did not write it: give another key_added=, or "
            "delete it first"
        )
    _refuse_other_case(name, existing, where=kind)


def write_slot(table: AnnData, kind: _Kind, key: str, values: Any) -> None:
    """Write a slot, and record that it is not the user's own."""
    getattr(table, kind)[key] = values
    if key not in _DEFAULTS[kind]:
        slots = recorded(table, _RECORD)
        record(table, _RECORD, **{**slots, kind: sorted({*slots.get(kind, ()), key})})


def check_new_table(sdata: SpatialData, key: object) -> None:
    """Require a name of a new table, or of one that an earlier call wrote."""
    name = _validate.slot_name("key_added", key)
    if name not in sdata.tables:
        if name in sdata:
            raise ValueError(f"key_added={name!r} is the name of another element: give another")
        _refuse_other_case(name, [other for _, other, _ in sdata.gen_elements()], where="elements")
    elif not any(recorded(sdata.tables[name], step) for step in _TABLE_RECORDS):
        raise ValueError(
            f"tables[{name!r}] exists, and holds no predictions of stpredict: give another "
            "key_added=, or delete it first"
        )


def _refuse_other_case(name: str, existing: Iterable[str], *, where: str) -> None:
    alike = [other for other in existing if other.lower() == name.lower()]
    if alike:
        raise ValueError(
            f"key_added={name!r} differs from {where}[{alike[0]!r}] only in case, which cannot be "
            "written to disk: give another name"
        )
