"""How each step was run, in ``uns["stpredict"]``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from stpredict import _keys

if TYPE_CHECKING:
    from anndata import AnnData

    from stpredict._sdata._steps import Step

StepKind = TypeVar("StepKind", bound="Step")

_VERSION = "stpredict_version"


def record(table: AnnData, name: str, /, **parameters: Any) -> None:
    """Write ``uns["stpredict"][name]``; parameters that are None are left out."""
    from stpredict import __version__

    given = {key: value for key, value in parameters.items() if value is not None}
    table.uns.setdefault(_keys.UNS, {})[name] = {**given, _VERSION: __version__}


def record_step(table: AnnData, step: Step, *, slot: str | None = None, **notes: Any) -> None:
    """Record a step that can be repeated, under its slot where there is one record per slot.

    ``notes`` are stored next to the parameters and never read back.
    """
    values = {**step.to_plain(), **notes}
    if step.per_slot:
        others = recorded(table, step.name)
        others.pop(_VERSION, None)
        values = {**others, str(slot): values}
    record(table, step.name, **values)


def read_step(table: AnnData, kind: type[StepKind], slot: str | None = None) -> StepKind | None:
    """Read how a step was run; None if it was not."""
    values = recorded(table, kind.name)
    if kind.per_slot:
        values = values.get(str(slot), {})
    names = {part.name for part in fields(kind)}
    parameters = {name: value for name, value in values.items() if name in names}
    if not values:
        return None
    step: StepKind = kind.from_plain(parameters)
    return step


def read_steps(table: AnnData, kind: type[StepKind]) -> dict[str, StepKind]:
    """Read how a step was run for each slot."""
    slots = [slot for slot in recorded(table, kind.name) if slot != _VERSION]
    steps = {slot: read_step(table, kind, slot) for slot in slots}
    return {slot: step for slot, step in steps.items() if step is not None}


def forget_step(table: AnnData, kind: type[Step], slot: str) -> None:
    """Drop the record of a slot that another step has overwritten."""
    others = recorded(table, kind.name)
    if others.pop(slot, None) is not None:
        others.pop(_VERSION, None)
        record(table, kind.name, **others)


def recorded_steps(table: AnnData) -> dict[str, Any]:
    """Read all records, in plain Python types."""
    steps: dict[str, Any] = _plain(table.uns.get(_keys.UNS, {}))
    return steps


def recorded(table: AnnData, name: str) -> dict[str, Any]:
    """Read one record, in plain Python types; empty if the step was not run."""
    return dict(recorded_steps(table).get(name, {}))


def _plain(value: Any) -> Any:
    """Undo what a round trip through zarr does to numbers and lists."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return value
