"""Fit a network to the pixels of tiles: what the doors have in common."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch

from stpredict import _validate
from stpredict._sdata import _recipe, _sections
from stpredict._sdata._pixels import cached_tiles, check_tiles, model_sections, tiles_recipe
from stpredict.tl._fitting._runner import fit_inputs
from stpredict.tl._fitting._split import split
from stpredict.tl._fitting._task import read_values, read_weights
from stpredict.training import Augmentation, Inputs, Pixels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    import numpy as np
    from numpy.typing import NDArray
    from spatialdata import SpatialData
    from torch import nn

    from stpredict._sdata._sections import Section
    from stpredict.models import Model
    from stpredict.models._methods import Method
    from stpredict.tl._fitting._task import Task
    from stpredict.training import Schedule

    #: What a network is trained on, and the embeddings that the ridge regression beside it sees.
    Ready = tuple[Inputs | Pixels, NDArray[np.float32]]

#: What tissue looks like from behind or turned is tissue; stain and focus vary between slides.
AUGMENTATION = Augmentation(flip=True, rotate=True, stain=0.1, color=0.1)


def fit_pixels(
    sdata: SpatialData,
    method: Method,
    task: Task,
    *,
    tile_um: float,
    network: dict[str, Any],
    schedule: Schedule,
    augmentation: Augmentation,
    average_symmetries: bool,
    start: Callable[[nn.Module], None] | None = None,
    noted: dict[str, Any] | None = None,
) -> Model:
    """Check a SpatialData, and fit a network to its tiles; the doors say what each argument is."""
    _validate.positive("tile_um", tile_um, unit="µm")
    if not isinstance(augmentation, Augmentation):
        raise TypeError(
            f"augmentation must be a stp.tl.Augmentation, Augmentation() for none: {augmentation!r}"
        )
    with torch.random.fork_rng(devices=[]):  # bad sizes and weights are told before images are read
        trial = method.network(0, 1, context=task.context, **network)
        if start is not None:
            start(trial)
        del trial
    table = _sections.table_of(sdata)
    found = _sections.sections(sdata, normalized=True)
    check_tiles(found, tile_um)
    values = read_values(table, task)
    rows = split(table, found, groups=task.groups, seed=task.seed)
    read_weights(table, task.sample_weight, rows.training)
    recipe = tiles_recipe(table, found, tile_um=tile_um, tile_px=network["tile_px"])
    with cached_tiles(found, recipe) as (tiles, center):
        return fit_inputs(
            table,
            method,
            task,
            values,
            rows,
            inputs=Pixels(tiles, augmentation),
            center=center,
            recipe={"tiles": recipe, **_recipe.layer_recipe(table, task.layer)},
            network=network,
            schedule=schedule,
            start=start,
            noted={
                "augmentation": asdict(augmentation),
                "average_symmetries": bool(average_symmetries),
                **(noted or {}),
            },
        )


def ready_inputs(sdata: SpatialData, model: Model) -> AbstractContextManager[Ready]:
    """Check the inputs of a fitted model; tiles are read when the context is entered."""
    if model.uses_pixels:
        return _cached(model_sections(sdata, model), model)
    inputs = _recipe.model_inputs(_sections.table_of(sdata), model)
    return nullcontext((inputs, inputs.center))


@contextmanager
def _cached(found: list[Section], model: Model) -> Iterator[Ready]:
    augmentation = Augmentation(**model.hyperparameters["augmentation"])
    with cached_tiles(found, model.recipe["tiles"]) as (tiles, center):
        yield Pixels(tiles, augmentation), center
