"""Inputs of networks on embeddings: read from a table, and compared with a recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stpredict import _keys, _validate
from stpredict._sdata._steps import EmbedStep, NeighborsStep, Recipe
from stpredict.training import pad_neighbors

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stpredict._sdata._spot_table import SpotTable

_PREPARE = "run stp.pp.prepare(sdata, model)"


def embed_step(spots: SpotTable, embedding: str) -> EmbedStep:
    """How an embedding was made; it must be in ``obsm``, with its record."""
    steps = spots.steps.embed
    if embedding not in spots.table.obsm:
        available = _validate.listing(slot for slot in steps if slot in spots.table.obsm)
        raise KeyError(
            f"obsm has no embedding {embedding!r}; embeddings: {available}: run stp.pp.embed first"
        )
    if embedding not in steps:
        raise KeyError(
            f"obsm[{embedding!r}] has no record of how it was made: register it with "
            "stp.pp.register_embedding"
        )
    return steps[embedding]


def neighbors_step(spots: SpotTable) -> NeighborsStep:
    """How the neighbourhood graph was made."""
    step = spots.steps.neighbors
    if _keys.CONNECTIVITIES not in spots.table.obsp or step is None:
        raise KeyError(
            f"obsp has no neighbourhood graph {_keys.CONNECTIVITIES!r}: run stp.pp.neighbors "
            'first, or fit with context="spot"'
        )
    return step


def recipe_of(spots: SpotTable, embedding: str, layer: str | None, *, neighbors: bool) -> Recipe:
    """What has to be done to new sections before a model on this table can predict them."""
    return Recipe(
        layer=layer,
        layer_steps=spots.steps.layer(layer),
        embedding=embedding,
        embed=embed_step(spots, embedding),
        neighbors=neighbors_step(spots) if neighbors else None,
    )


def read_inputs(
    spots: SpotTable, embedding: str, *, subtiles: bool, neighbors: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None, NDArray[np.int64] | None]:
    """Read embeddings (n, d), sub-tiles (n, s, d) and padded neighbours (n, k), checked."""
    embed_step(spots, embedding)
    center = _embedding(spots, embedding)
    parts = None
    if subtiles:
        slot = _keys.subtiles(embedding)
        if slot not in spots.table.obsm:
            raise KeyError(
                f"obsm has no sub-tiles {slot!r}: run stp.pp.embed with n_subtiles=3, or fit with "
                'a context without sub-tiles ("spot", "spot_neighbors")'
            )
        parts = _embedding(spots, slot)
    padded = None
    if neighbors:
        neighbors_step(spots)
        padded = pad_neighbors(spots.graph)
    return center, parts, padded


def check_recipe(spots: SpotTable, recipe: Recipe, *, subtiles: bool) -> None:
    """Require that a table's embedding and graph were made as a model's were."""
    differences = {}
    try:
        if recipe.embed is not None and recipe.embedding is not None:
            step = embed_step(spots, recipe.embedding)
            differences["embed"] = recipe.embed.differences(step, subtiles=subtiles)
        if recipe.neighbors is not None:
            differences["neighbors"] = recipe.neighbors.differences(neighbors_step(spots))
    except KeyError as error:
        raise KeyError(f"{error.args[0]}; or {_PREPARE}") from error
    for name, different in differences.items():
        if different:
            raise ValueError(
                f"the {name} step was run differently: {'; '.join(different)}: {_PREPARE}"
            )


def _embedding(spots: SpotTable, slot: str) -> NDArray[np.float32]:
    values = np.asarray(spots.table.obsm[slot], dtype=np.float32)
    _validate.finite(values, what=f"obsm[{slot!r}]")
    return values
