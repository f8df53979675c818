"""How each step was run, in ``uns["stpredict"]``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

from stpredict import _keys
from stpredict._sdata._parse import parse
from stpredict._sdata._recorded_steps import REPEATABLE, RecordedSteps

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from stpredict._sdata._steps import Step

_VERSION = "stpredict_version"


def record(table: AnnData, name: str, /, **parameters: Any) -> None:
    """Write ``uns["stpredict"][name]``; parameters that are None are left out."""
    from stpredict import __version__

    stored = {key: value for key, value in parameters.items() if value is not None}
    table.uns.setdefault(_keys.UNS, {})[name] = {**stored, _VERSION: __version__}


def record_step(table: AnnData, step: Step, *, slot: str | None = None, **notes: Any) -> None:
    """Record a step that can be repeated, under its slot where there is one record per slot."""
    values = {**step.to_plain(), **notes}  # notes are stored, and never read back
    if step.per_slot:
        values = {**recorded(table, step.name), str(slot): values}
    record(table, step.name, **values)


def read_steps(table: AnnData) -> RecordedSteps:
    """Read all steps that can be repeated."""
    records = recorded_steps(table)
    steps: dict[str, Any] = {}
    for kind in REPEATABLE:
        values = records.get(kind.name)
        if values and kind.per_slot:
            slots = [slot for slot in values if slot != _VERSION]
            steps[kind.name] = {slot: _read(kind, values[slot]) for slot in slots}
        elif values:
            steps[kind.name] = _read(kind, values)
    return RecordedSteps(**steps)


def _read(kind: type[Step], values: dict[str, Any]) -> Any:
    names = {part.name for part in fields(kind)}  # other values are notes
    return parse(kind, {name: x for name, x in values.items() if name in names})


def forget_step(table: AnnData, kind: type[Step], slot: str) -> None:
    """Drop the record of a slot that another step has overwritten."""
    others = recorded(table, kind.name)
    if others.pop(slot, None) is not None:
        record(table, kind.name, **others)


def recorded_steps(table: AnnData) -> dict[str, Any]:
    """Read all records, in plain Python types."""
    return dict(_plain(table.uns.get(_keys.UNS, {})))


def recorded(table: AnnData, name: str) -> dict[str, Any]:
    """Read one record, in plain Python types; empty if the step was not run."""
    return dict(recorded_steps(table).get(name, {}))


def check_measured(table: AnnData, name: str) -> None:
    """Require a table whose expression was measured."""
    if recorded(table, "predict"):
        raise ValueError(
            f"tables[{name!r}] holds predictions, which would be taken for measured expression: "
            "give the table of the measured spots as table_name="
        )


def rows_to_score(table: AnnData) -> NDArray[np.bool_]:
    """Rows whose measured expression took no part in their prediction (`tl.adapt`), (n_obs,)."""
    if not recorded(table, _keys.ADAPT):
        return np.ones(table.n_obs, dtype=bool)
    return ~table.obs[_keys.MEASURED].to_numpy(dtype=bool)


def _plain(value: Any) -> Any:
    """Undo what a round trip through zarr does to numbers and lists."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return value
