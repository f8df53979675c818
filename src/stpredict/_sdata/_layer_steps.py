"""How a layer was made: its steps in order, and the units of its values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from stpredict import _keys, _validate
from stpredict._sdata._provenance import forget_step, read_steps, record_step
from stpredict._sdata._slots import check_slot
from stpredict._sdata._steps import NormalizeStep, RankStep, SmoothStep
from stpredict.targets._counts import COUNTS_UNITS, RAW_COUNTS_UNITS
from stpredict.targets._high import HIGH_UNITS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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


def units_of(table: AnnData, layer: str | None) -> str:
    """Units of a layer in words, as far as its steps are recorded."""
    steps = read_steps(table).layer(layer)
    derived = [step for step in steps if not isinstance(step, NormalizeStep)]
    base = derived[0].layer if derived else layer
    units = base or (RAW_COUNTS_UNITS if holds_counts(table.X) else "X")
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


def check_same_units(table: AnnData, record: Mapping[str, Any]) -> None:
    """Require the layer of a record of predictions in the units that it had in training."""
    units, layer = record.get("units"), record.get("layer")
    # published models do not report their units; counts per 10,000 are computed from counts
    if not record.get("training_sections") or units in (COUNTS_UNITS, _keys.UNKNOWN_UNITS):
        return
    measured_units = units_of(table, layer)
    # high and low are those of the layer
    if measured_units != str(units).removeprefix(HIGH_UNITS):
        label = "X" if layer is None else f"layers[{layer!r}]"
        raise ValueError(
            f"{label} holds {measured_units}, but the predictions are in {units}. Make the layer "
            "again with stp.pp.prepare(sdata, model)"
        )


def holds_counts(matrix: Any) -> bool:
    """Whether all values are whole numbers of at least 0."""
    values = matrix.data if sp.issparse(matrix) else np.asarray(matrix)
    return bool((values >= 0).all() and (values == np.rint(values)).all())


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
