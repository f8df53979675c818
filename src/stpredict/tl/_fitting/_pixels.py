"""Fit a network to the pixels of tiles."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from stpredict import _validate
from stpredict._sdata._pixels import cached_tiles, check_tiles
from stpredict._sdata._recipe import Recipe
from stpredict._sdata._steps import TilesStep
from stpredict.tl._fitting._runner import fit_inputs
from stpredict.tl._fitting._split import hold_out_group
from stpredict.tl._fitting._values import fit_targets, read_values
from stpredict.training import Augmentation, Pixels

if TYPE_CHECKING:
    from stpredict._sdata._spot_table import SpotTable
    from stpredict.models import Model
    from stpredict.tl._fitting._runner import Plan


def fit_pixels(spots: SpotTable, plan: Plan, *, tile_um: float, tile_px: int) -> Model:
    """Fit a network to the tiles of an opened table."""
    _validate.positive("tile_um", tile_um, unit="µm")
    augmentation = plan.hyperparameters.augmentation
    if not isinstance(augmentation, Augmentation):
        raise TypeError(
            f"augmentation must be a stp.tl.Augmentation, Augmentation() for none: {augmentation!r}"
        )
    with torch.random.fork_rng(devices=[]):  # bad sizes and weights raise before images are read
        plan.build(0, 1)
    sections = spots.normalized_sections
    check_tiles(sections, tile_um)
    values = read_values(spots, plan.task)
    rows = hold_out_group(spots, groups=plan.task.groups, seed=plan.task.seed)
    targets = fit_targets(values, plan.task, rows.training)
    step = TilesStep(tile_um=float(tile_um), tile_px=int(tile_px), stain=spots.stain)
    recipe = Recipe(plan.task.layer, values.layer_steps, tiles=step)
    with cached_tiles(sections, step) as tiles:
        inputs = Pixels(tiles, augmentation)
        return fit_inputs(plan, values, targets, rows, inputs=inputs, recipe=recipe)
