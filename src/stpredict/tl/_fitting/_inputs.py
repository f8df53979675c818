"""Inputs of a fitted model, read from an opened table."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from stpredict._sdata._inputs import check_recipe, read_embeddings
from stpredict._sdata._pixels import (
    cached_tiles,
    describe_tiles,
    sections_for_tiles,
    stream_tiles,
)
from stpredict.models._stack import StackInputs, first_base
from stpredict.training import Augmentation, Inputs, Pixels, TileStream

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    import numpy as np
    from numpy.typing import NDArray

    from stpredict._sdata._sections import Section
    from stpredict._sdata._spot_table import SpotTable
    from stpredict._sdata._steps import TilesStep
    from stpredict.models import Model
    from stpredict.models._rows import RowInputs


def prediction_inputs(spots: SpotTable, model: Model) -> Inputs | TileStream | StackInputs:
    """What a model reads to predict all rows; for a stack, what each base reads."""
    if model.bases:
        bases: dict[str, RowInputs] = {
            name: prediction_inputs(spots, base) for name, base in model.bases.items()
        }
        return StackInputs(model, bases, spots.section_of_row)
    if model.recipe.tiles is None:
        return embedding_inputs(spots, model)
    tiles = stream_tiles(
        sections_for_tiles(spots, model.recipe.tiles), model.recipe.tiles, description="predict"
    )
    symmetries = model.hyperparameters.average_symmetries
    return TileStream(tiles, n_tiles=spots.table.n_obs, symmetries=symmetries)


def training_inputs(spots: SpotTable, model: Model) -> AbstractContextManager[Inputs | Pixels]:
    """What a model reads to be trained further; tiles are read when the context is entered."""
    step = model.recipe.tiles
    if step is None:
        return nullcontext(embedding_inputs(spots, model))
    sections = sections_for_tiles(spots, step)  # checked before anything slow
    return _cached_pixels(sections, step, model.hyperparameters.augmentation or Augmentation())


def embedding_inputs(spots: SpotTable, model: Model) -> Inputs:
    """Inputs of a model on embeddings, checked against its recipe."""
    check_recipe(spots, model.recipe, subtiles=model.uses_subtiles)
    embedding = str(model.recipe.embedding)
    embeddings = read_embeddings(
        spots,
        embedding,
        subtiles=model.uses_subtiles,
        neighbors=model.uses_neighbors,
        standardize=model.recipe.standardize,
    )
    if model.inputs is None:
        raise ValueError(f"the model of {model.method} has no scaling of embeddings")
    # a published release does not report its encoder, so only the width can be compared
    if embeddings.center.shape[1] != len(model.inputs.mean):
        raise ValueError(
            f"obsm[{embedding!r}] has {embeddings.center.shape[1]} features, the model was trained "
            f"on {len(model.inputs.mean)}: embed with the encoder it was trained on"
        )
    return Inputs(
        center=embeddings.center,
        scaler=model.inputs,
        subtiles=embeddings.subtiles,
        subtile_scaler=model.subtiles,
        neighbors=embeddings.neighbors,
    )


@contextmanager
def _cached_pixels(
    sections: Sequence[Section], step: TilesStep, augmentation: Augmentation
) -> Iterator[Pixels]:
    with cached_tiles(sections, step) as tiles:
        yield Pixels(tiles, augmentation)


def tile_embedding(spots: SpotTable, model: Model) -> NDArray[np.float32]:
    """Scaled embeddings of the tiles that a model reads, (n_obs, d), to judge familiarity.

    For a stack, those of its first base; for a model on pixels, those of the texture encoder.
    """
    model = first_base(model)
    if model.recipe.tiles is None:
        inputs = embedding_inputs(spots, model)
        return inputs.scaler.transform(inputs.center)
    step = model.recipe.tiles
    embedding = describe_tiles(sections_for_tiles(spots, step), step)
    return embedding if model.inputs is None else model.inputs.transform(embedding)
