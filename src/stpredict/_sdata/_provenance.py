"""How each step was run, in ``uns["stpredict"]``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from stpredict import _keys

if TYPE_CHECKING:
    from anndata import AnnData


def record(table: AnnData, step: str, **parameters: Any) -> None:
    """Write down in ``uns["stpredict"][step]`` how a step was run."""
    from stpredict import __version__

    known = {key: value for key, value in parameters.items() if value is not None}
    table.uns.setdefault(_keys.UNS, {})[step] = {**known, "stpredict_version": __version__}


def recorded_steps(table: AnnData) -> dict[str, Any]:
    """Read how each step was run, in plain Python types."""
    steps: dict[str, Any] = _plain(table.uns.get(_keys.UNS, {}))
    return steps


def recorded(table: AnnData, step: str) -> dict[str, Any]:
    """Read how a step was run, in plain Python types; empty if it was not."""
    return dict(recorded_steps(table).get(step, {}))


def _plain(value: Any) -> Any:
    """Undo what a round trip through zarr makes of numbers and lists."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return value
