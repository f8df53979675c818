"""How a model's inputs are made: read from a table, and compared with a model's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stpredict import _keys, _validate
from stpredict._sdata import _layers, _provenance
from stpredict.training import Inputs, pad_neighbors

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from stpredict.models import Model

#: Written with every step, but no part of how it was run.
_PROVENANCE = "stpredict_version"


def embed_recipe(table: AnnData, embedding: str) -> dict[str, Any]:
    """How an embedding was made."""
    known = _provenance.recorded(table, "embed")
    if embedding not in table.obsm or embedding not in known:
        raise KeyError(
            f"there is no embedding obsm[{embedding!r}]; embeddings: "
            f"{_validate.listing(k for k in known if k in table.obsm)}: run stp.pp.embed first"
        )
    return dict(known[embedding])


def neighbors_recipe(table: AnnData) -> dict[str, Any]:
    """How the neighbour graph was made."""
    known = _provenance.recorded(table, "neighbors")
    if _keys.CONNECTIVITIES not in table.obsp or not known:
        raise KeyError(
            f"there is no neighbour graph obsp[{_keys.CONNECTIVITIES!r}]: run stp.pp.neighbors "
            'first, or fit with context="spot" or "spot_subspot"'
        )
    known.pop(_PROVENANCE, None)
    return known


def recipe_of(
    table: AnnData, embedding: str, layer: str | None, *, neighbors: bool
) -> dict[str, Any]:
    """What has to be done to new sections before a model can predict them."""
    recipe: dict[str, Any] = {"embedding": embedding, "embed": embed_recipe(table, embedding)}
    if neighbors:
        recipe["neighbors"] = neighbors_recipe(table)
    return recipe | layer_recipe(table, layer)


def layer_recipe(table: AnnData, layer: str | None) -> dict[str, Any]:
    """How the layer that a model predicts was made."""
    recipe: dict[str, Any] = {"layer": layer}
    normalized = _provenance.recorded(table, "normalize")
    if _layers.base_of(table, layer) == _keys.LOG1P and normalized:
        normalized.pop(_PROVENANCE)
        recipe["normalize"] = normalized
    steps = _layers.steps_of(table, layer)
    if steps:
        recipe["layer_steps"] = steps
    return recipe


def completed(table: AnnData, model: Model) -> dict[str, Any]:
    """A model's recipe; what a published release does not say of its inputs, a table does."""
    recipe = dict(model.recipe)
    if not model.uses_pixels and "tile_um" not in recipe["embed"]:
        recipe["embed"] = embed_recipe(table, recipe["embedding"])
        if model.uses_neighbors:
            recipe["neighbors"] = neighbors_recipe(table)
    return recipe


def read_inputs(
    table: AnnData, embedding: str, *, subtiles: bool, neighbors: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None, NDArray[np.int64] | None]:
    """Read embeddings, sub-tiles and neighbours from a table, checked."""
    embed_recipe(table, embedding)
    center = np.asarray(table.obsm[embedding], dtype=np.float32)
    _validate.finite(center, what=f"obsm[{embedding!r}]")
    parts = None
    if subtiles:
        slot = _keys.subtiles(embedding)
        if slot not in table.obsm:
            raise KeyError(
                f"there is no obsm[{slot!r}]: run stp.pp.embed with n_subtiles=3, or fit with a "
                'context without sub-tiles ("spot", "spot_neighbors")'
            )
        parts = np.asarray(table.obsm[slot], dtype=np.float32)
        _validate.finite(parts, what=f"obsm[{slot!r}]")
    padded = None
    if neighbors:
        neighbors_recipe(table)
        padded = pad_neighbors(table.obsp[_keys.CONNECTIVITIES])
    return center, parts, padded


def check_recipe(table: AnnData, model: Model) -> None:
    """Require that a table's inputs were made as the model's were."""
    mend = "run stp.pp.prepare(sdata, model)"
    key = model.recipe["embedding"]
    try:
        found = {"embed": embed_recipe(table, key)}
        if model.uses_neighbors:
            found["neighbors"] = neighbors_recipe(table)
    except KeyError as error:
        raise KeyError(f"{error.args[0]}; or {mend}") from error
    for step, made in found.items():
        differences = [
            f"{name} is {made.get(name)!r}, the model was trained with {wanted!r}"
            for name, wanted in model.recipe[step].items()
            if made.get(name) != wanted
            and name != "stain"
            and not (name == "n_subtiles" and not model.uses_subtiles)
        ]
        differences += stain_difference(made.get("stain"), model.recipe[step].get("stain"))
        if differences:
            raise ValueError(
                f"the {step} step was run differently: {'; '.join(differences)}: {mend}"
            )


def stain_difference(made: dict[str, Any] | None, wanted: dict[str, Any] | None) -> list[str]:
    """How the stain of the images differs from a model's, without its numbers."""
    if made == wanted:
        return []
    if wanted is None:
        return [
            "the stain of its images was normalised (stp.pp.normalize_stain), the model was "
            "trained on raw images"
        ]
    normalized = f"images normalised by stp.pp.normalize_stain (method {wanted['method']!r})"
    if made is None:
        return [f"its images are raw, the model was trained on {normalized}"]
    return [
        f"the stain of its images was normalised to another reference (method {made['method']!r}), "
        f"the model was trained on {normalized}"
    ]


def model_inputs(table: AnnData, model: Model) -> Inputs:
    """Inputs of a model, from a table that holds them."""
    check_recipe(table, model)
    center, parts, padded = read_inputs(
        table,
        model.recipe["embedding"],
        subtiles=model.uses_subtiles,
        neighbors=model.uses_neighbors,
    )
    if center.shape[1] != len(model.inputs.mean):  # a published release does not say its encoder
        raise ValueError(
            f"obsm[{model.recipe['embedding']!r}] has {center.shape[1]} features, the model was "
            f"trained on {len(model.inputs.mean)}: embed with the encoder it was trained on"
        )
    return Inputs(
        center=center,
        scaler=model.inputs,
        subtiles=parts,
        subtile_scaler=model.subtiles,
        neighbors=padded,
    )
