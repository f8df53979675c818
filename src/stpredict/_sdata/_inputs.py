"""Inputs of networks on embeddings: read from a table, and compared with a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from stpredict import _keys, _validate
from stpredict._sdata._links import require_spacing
from stpredict.training import pad_neighbors, standardize_sections

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stpredict._sdata._recipe import Recipe
    from stpredict._sdata._recorded_steps import RecordedSteps
    from stpredict._sdata._spot_table import SpotTable
    from stpredict._sdata._steps import EmbedStep, NeighborsStep

_PREPARE = "run stp.pp.prepare(sdata, model)"


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Inputs of networks on embeddings, and how they were made."""

    center: NDArray[np.float32]  # (n_obs, d)
    subtiles: NDArray[np.float32] | None  # (n_obs, s, d)
    neighbors: NDArray[np.int64] | None  # (n_obs, k), padded
    embed: EmbedStep
    graph: NeighborsStep | None


def read_embeddings(
    spots: SpotTable,
    embedding: str,
    *,
    subtiles: bool,
    neighbors: bool,
    standardize: Literal["training", "section"],
) -> Embeddings:
    """Read an embedding, its sub-tiles and the neighbourhood graph, checked.

    With ``standardize="section"``, the features have mean 0 and standard deviation 1 in the tiles
    of each section.
    """
    steps = recorded_inputs(spots, embedding, neighbors=neighbors)
    slots = {"center": embedding, **({"subtiles": _keys.subtiles(embedding)} if subtiles else {})}
    arrays = {}
    for name, slot in slots.items():
        if slot not in spots.table.obsm:
            hint = 'run stp.pp.embed with n_subtiles=3, or fit with context="spot_neighbors"'
            raise KeyError(f"obsm has no sub-tiles {slot!r}: {hint}")
        if name == "subtiles" and steps[0].n_subtiles == 1:
            register = f"stp.pp.register_embedding(sdata, {embedding!r}, n_subtiles=…)"
            raise KeyError(f"obsm[{slot!r}] is not registered as sub-tiles: run {register} first")
        arrays[name] = np.asarray(spots.table.obsm[slot], dtype=np.float32)
        _validate.finite(arrays[name], what=f"obsm[{slot!r}]")
    center, parts = arrays["center"], arrays.get("subtiles")
    if standardize == "section":
        scalers = spots.section_scalers.get(embedding, {})
        center, parts = standardize_sections(center, parts, spots.section_rows, scalers)
    return Embeddings(
        center=center,
        subtiles=parts,
        neighbors=pad_neighbors(spots.graph) if neighbors else None,
        embed=steps[0],
        graph=steps[1],
    )


def recorded_inputs(
    spots: SpotTable, embedding: str, *, neighbors: bool
) -> tuple[EmbedStep, NeighborsStep | None]:
    """How an embedding and the neighbourhood graph were made; both must exist."""
    steps = spots.steps
    obsm = spots.table.obsm
    if embedding in obsm and embedding not in steps.embed:
        raise KeyError(
            f"obsm[{embedding!r}] is not registered as an embedding: run "
            f"stp.pp.register_embedding(sdata, {embedding!r}, encoder=…, tile_um=…) first"
        )
    if embedding not in obsm:
        slots = _validate.listing(slot for slot in steps.embed if slot in obsm)
        own = [slot for slot in obsm if slot not in {_keys.SPATIAL, *_recorded_slots(steps)}]
        register = f", or stp.pp.register_embedding for {_validate.listing(own)}" if own else ""
        raise KeyError(
            f"obsm has no embedding {embedding!r}; embeddings: {slots}: run stp.pp.embed first"
            f"{register}"
        )
    if neighbors and (_keys.CONNECTIVITIES not in spots.table.obsp or steps.neighbors is None):
        raise KeyError(
            f"obsp has no neighbourhood graph {_keys.CONNECTIVITIES!r}: run stp.pp.neighbors first"
        )
    return steps.embed[embedding], steps.neighbors if neighbors else None


def _recorded_slots(steps: RecordedSteps) -> list[str]:
    return [name for slot in steps.embed for name in (slot, _keys.subtiles(slot))]


def check_recipe(spots: SpotTable, recipe: Recipe, *, subtiles: bool) -> None:
    """Require that a table's embedding and graph were made as a model's were."""
    if recipe.embed is None or recipe.embedding is None:
        return
    uses_graph = recipe.neighbors is not None
    try:
        embed, graph = recorded_inputs(spots, recipe.embedding, neighbors=uses_graph)
    except KeyError as error:
        raise KeyError(f"{error.args[0]}; or {_PREPARE}") from error
    differences = {"embed": recipe.embed.differences(embed, subtiles=subtiles)}
    if recipe.neighbors is not None and graph is not None:
        require_spacing(recipe.neighbors, graph)
        differences["neighbors"] = recipe.neighbors.differences(graph)
    for name, different in differences.items():
        if different:
            changes = "; ".join(different)
            raise ValueError(f"the {name} step was run differently: {changes}: {_PREPARE}")
