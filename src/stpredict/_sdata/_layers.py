"""How a layer came about: the steps behind it, in order, and the units of its values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stpredict import _keys, _validate
from stpredict._sdata import _provenance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

#: Steps that make one layer of another, under a name of one's own.
_STEPS = ("rank_expression", "smooth")


def _made_by(table: AnnData, step: str) -> dict[str, dict[str, Any]]:
    """How a step made each of its layers."""
    known = _provenance.recorded(table, step)
    return {key: how for key, how in known.items() if isinstance(how, dict)}


def steps_of(table: AnnData, layer: str | None) -> list[dict[str, Any]]:
    """Steps that make a layer from ``log1p`` or ``X``, in order.

    Each is its parameters, and its name as ``step``.
    """
    steps: list[dict[str, Any]] = []
    seen: set[str] = set()
    while layer is not None and layer not in seen:
        seen.add(layer)
        for step in _STEPS:
            how = _made_by(table, step).get(layer)
            if how is not None:
                steps.insert(0, {"step": step, "layer": None, **how, "key_added": layer})
                layer = how.get("layer")
                break
    return steps


def base_of(table: AnnData, layer: str | None) -> str | None:
    """Layer that the first of those steps starts from; None is X."""
    steps = steps_of(table, layer)
    return steps[0]["layer"] if steps else layer


def units_of(table: AnnData, layer: str | None) -> str:
    """Units of a layer in words, as far as it is known how it was made."""
    base = base_of(table, layer)
    normalized = _provenance.recorded(table, "normalize")
    units = "X" if base is None else base
    if base == _keys.LOG1P and normalized:
        units = f"log(1 + counts per {normalized['target_sum']:,.0f})"
    smoothed = False
    for step in steps_of(table, layer):
        if step["step"] == "smooth":
            units, smoothed = f"{units}, smoothed", True
            continue
        among = f"/ {step['n_genes']}" if step["normalize"] else f"among {step['n_genes']}"
        of = " of smoothed values" if smoothed else ""
        units = f"rank{of} {among} (ties: {step['method']})"
    return units


def check_ranked(table: AnnData, layer: str | None, genes: Sequence[str]) -> None:
    """Require that genes take part in the ranks, where a layer is of ranks."""
    for step in steps_of(table, layer):
        ranked = step.get("genes")
        if ranked is None:  # all columns
            continue
        absent = sorted(set(genes) - set(ranked))
        if absent:
            raise ValueError(
                f"{len(absent)} of {len(genes)} genes have no rank in layers[{layer!r}], which "
                f"ranks {len(ranked)} genes: {_validate.listing(absent)}: run "
                "stp.pp.rank_expression with genes= that hold them"
            )
