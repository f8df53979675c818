"""How a layer was made: its steps in order, and the units of its values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stpredict import _keys, _validate
from stpredict._sdata._provenance import forget_step, record_step
from stpredict._sdata._slots import check_slot
from stpredict._sdata._steps import NormalizeStep, RankStep, SmoothStep

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from stpredict._sdata._steps import LayerStep


def check_new_layer(table: AnnData, key_added: str, layer: str | None) -> None:
    """Require a name for a new layer that overwrites none that it is computed from."""
    check_slot(table, "layers", key_added)
    if key_added in (layer, _keys.LOG1P):
        raise ValueError(
            f"key_added={key_added!r} would overwrite the layer it is computed from or that of "
            "stp.pp.normalize"
        )


def record_layer_step(table: AnnData, step: RankStep | SmoothStep) -> None:
    """Record how a layer was made, instead of how an older layer of that name was."""
    forget_layer_steps(table, step.key_added)
    record_step(table, step, slot=step.key_added)


def forget_layer_steps(table: AnnData, layer: str) -> None:
    """Drop the records of a layer that is overwritten."""
    forget_step(table, RankStep, layer)
    forget_step(table, SmoothStep, layer)


def units_of(layer: str | None, steps: Sequence[LayerStep]) -> str:
    """Units of a layer in words, as far as its steps are recorded."""
    derived = [step for step in steps if not isinstance(step, NormalizeStep)]
    base = derived[0].layer if derived else layer
    units = "X" if base is None else base
    smoothed = False
    for step in steps:
        if isinstance(step, NormalizeStep):
            units = f"log(1 + counts per {step.target_sum:,.0f})"
        elif isinstance(step, SmoothStep):
            units, smoothed = f"{units}, smoothed", True
        else:
            scale = "/" if step.normalize else "among"
            source = " of smoothed values" if smoothed else ""
            units = f"rank{source} {scale} {step.n_genes} (ties: {step.method})"
    return units


def check_ranked(layer: str | None, steps: Sequence[LayerStep], genes: Sequence[str]) -> None:
    """Require that genes take part in the ranks, where a layer holds ranks."""
    for step in steps:
        if not isinstance(step, RankStep) or step.genes is None:  # None: all columns are ranked
            continue
        absent = sorted(set(genes) - set(step.genes))
        if absent:
            raise ValueError(
                f"{len(absent)} of {len(genes)} genes have no rank in layers[{layer!r}], which "
                f"ranks {len(step.genes)} genes: {_validate.listing(absent)}"
            )
