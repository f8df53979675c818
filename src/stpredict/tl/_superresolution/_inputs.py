"""What super-resolution reads: whether a model can be run at new positions, and spot values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from spatialdata.models import get_table_keys

from stpredict import _keys, _validate
from stpredict._sdata._layer_steps import check_same_units
from stpredict._sdata._links import FINER
from stpredict._sdata._provenance import recorded, rows_to_score
from stpredict._sdata._spot_table import open_table, require_key
from stpredict.tl._adaptation._table import Correction
from stpredict.tl._fitting._values import genes_of_model
from stpredict.tl._superresolution._positions import COARSEST

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData
    from numpy.typing import NDArray

    from stpredict._sdata._spacing import Spacing
    from stpredict._sdata._spot_table import SpotTable
    from stpredict._sdata._steps import NeighborsStep
    from stpredict.models import Model

#: More positions than this suggest that the resolution is in the wrong unit.
_MOST_POSITIONS = 5_000_000


def check_resolution(
    resolution_um: float, spacings: Mapping[str, Spacing], n_spots: Mapping[str, int]
) -> None:
    """Require a resolution below the pitch of each section that gives not too many positions."""
    n_positions = 0.0
    for name, spacing in spacings.items():
        if not spacing.pitch_um > 0:
            raise ValueError(
                f"section {name!r} has {n_spots[name]} spots, too few to measure their pitch: "
                "place positions with stp.pp.grid(sdata, image, pitch_um=…)"
            )
        if resolution_um > COARSEST * spacing.pitch_um:
            raise ValueError(
                f"resolution_um={resolution_um:g} is too coarse for section {name!r}, whose spots "
                f"are {spacing.pitch_um:.4g} µm apart: use at most "
                f"{COARSEST * spacing.pitch_um:.3g}, or stp.tl.predict for the spots themselves"
            )
        n_positions += n_spots[name] * (spacing.pitch_um / resolution_um) ** 2
    if n_positions > _MOST_POSITIONS:
        raise ValueError(
            f"resolution_um={resolution_um:g} would give about {n_positions:,.0f} positions; the "
            f"maximum is {_MOST_POSITIONS:,}"
        )


def check_model(model: Model, resolution_um: float) -> None:
    """Require a model whose inputs can be computed at new positions."""
    for base in model.bases.values():
        check_model(base, resolution_um)
    slot, step = model.recipe.embedding, model.recipe.embed
    if step is not None and not step.is_complete:
        source = "were computed by another tool" if step.registered else "are not reported in full"
        raise ValueError(
            f"the model's features obsm[{slot!r}] {source}, so that they cannot be computed at new "
            "positions: fit a model on features of stp.pp.embed"
        )
    if model.recipe.neighbors is not None:
        _check_neighbors(model.recipe.neighbors, resolution_um)


def _check_neighbors(step: NeighborsStep, resolution_um: float) -> None:
    if not step.is_by_rings or step.pitch_um is None:
        rule = step.rule or "a rule that is not reported"
        raise ValueError(
            f"the model's neighbours are defined by {rule}, not by their distance on a grid: fit a "
            "model on neighbours of stp.pp.neighbors(sdata), or one without neighbours"
        )
    if resolution_um > FINER * step.pitch_um:
        raise ValueError(
            f"resolution_um={resolution_um:g} is too coarse for the model's neighbours, "
            f"{step.pitch_um:g} µm apart: use at most {FINER * step.pitch_um:.3g}"
        )


def read_match(
    spots: SpotTable, model: Model, match: str, *, device: str
) -> NDArray[np.float64] | Correction:
    """Measured or predicted values of the model's genes, (n_obs, n_genes).

    Rows of spots that the table lacks are NaN. For tables that measured spots have corrected, the
    correction by these spots.
    """
    require_key(match, spots.sdata.tables, what="tables")
    other = open_table(spots.sdata, match)
    record = recorded(other.table, "predict")
    rows = _names(other.table).get_indexer(_names(spots.table))
    if (rows < 0).all():
        raise ValueError(f"match={match!r}: tables[{match!r}] has none of the spots")
    if recorded(other.table, _keys.ADAPT):
        measured = (rows >= 0) & ~rows_to_score(other.table)[rows]
        return Correction.read(spots, model, measured, device=device)
    if not record:  # a measured table
        training = {"units": model.units, "layer": model.recipe.layer}
        check_same_units(other.table, {**training, "training_sections": model.training.sections})
        values = genes_of_model(other, model).dense()
    else:
        units = record.get("units")
        if units != model.units:
            raise ValueError(
                f"match={match!r}: tables[{match!r}] holds {units}, but the model predicts "
                f"{model.units}. Predict it with this model"
            )
        _validate.present(model.genes, other.table.var_names)
        values = np.asarray(other.table[:, list(model.genes)].X)
        _validate.finite(values, what=f"tables[{match!r}].X")
    return np.where(rows[:, None] >= 0, values[rows], np.nan).astype(np.float64)


def _names(table: AnnData) -> pd.MultiIndex:
    """Section and id of each spot."""
    _, region_key, instance_key = get_table_keys(table)
    return pd.MultiIndex.from_arrays([table.obs[region_key].astype(str), table.obs[instance_key]])
