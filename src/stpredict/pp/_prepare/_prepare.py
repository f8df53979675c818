"""Exactly the steps a model was trained with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stpredict import _keys, encoders
from stpredict._sdata import _sections
from stpredict._sdata._recipe import check_recipe
from stpredict.pp._embed import embed_with
from stpredict.pp._neighbors import neighbors
from stpredict.pp._prepare._layer import make_layer
from stpredict.pp._prepare._stack import apart
from stpredict.pp._stain._normalize_stain import normalize_stain

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import torch
    from spatialdata import SpatialData

    from stpredict.models import Model


def prepare(
    sdata: SpatialData,
    model: Model,
    *,
    encoder: torch.nn.Module | Callable[[torch.Tensor], torch.Tensor] | None = None,
    weights: str | Path | None = None,
    batch_size: int = 64,
    device: str = "auto",
    copy: bool = False,
) -> SpatialData | None:
    """Make a model's inputs on new sections, by the steps it was trained with.

    Normalises the stain to the model's reference if it was trained on normalised images, embeds
    the tiles and builds the neighbour graph as the model's recipe says. Where there are counts,
    makes the layer the model was trained on, so that predictions can be compared with it:
    normalised, smoothed, ranked. Says so where the new sections have not what that takes, such as
    the same genes to rank among. No spot is removed. Models on pixels read the tiles themselves:
    for them, the stain and the layer are all there is to prepare. For a stack, makes the inputs of
    every base; those that several share are made once.

    Parameters
    ----------
    sdata
        New sections.
    model
        The fitted model.
    encoder
        The encoder itself, where the model was trained with a module or function of yours. Stacks
        on several embeddings are then prepared base by base.
    weights
        Local file with the encoder's weights, instead of the hub.
    batch_size
        Tiles at a time.
    device
        ``"auto"``: cuda, then mps, then cpu.
    copy
        Return a changed copy instead of changing ``sdata``.

    Returns
    -------
    SpatialData | None
        Writes what :func:`stpredict.pp.normalize_stain`, :func:`stpredict.pp.embed`,
        :func:`stpredict.pp.neighbors`, :func:`stpredict.pp.normalize`,
        :func:`stpredict.pp.smooth` and :func:`stpredict.pp.rank_expression` write.

    Raises
    ------
    ValueError
        If the encoder or its weights are not the model's, or a step cannot be run.
    KeyError
        If the model was trained with a module or function of yours, and ``encoder`` is not given.

    Examples
    --------
    >>> import stpredict as stp
    >>> model = stp.models.load("deepspot_her2")  # doctest: +SKIP
    >>> stp.pp.prepare(sdata, model)  # doctest: +SKIP
    """
    _sections.table_of(sdata)
    # on a copy first: if one step fails, none is left behind
    prepared = _sections.copy_of(sdata)
    own = encoder is not None or weights is not None
    for each in apart(model, own=own) if model.bases else (model,):
        if each.uses_pixels:
            _normalize_stain(prepared, each.recipe["tiles"].get("stain"))
        else:
            loaded = _loaded(each, encoder, weights)
            _make_inputs(prepared, each, loaded, batch_size=batch_size, device=device)
        if _sections.table_of(prepared).n_vars:
            make_layer(prepared, each)
        if not each.uses_pixels:
            check_recipe(prepared.tables[_keys.TABLE], each)
    if copy:
        return prepared
    _keep(sdata, prepared)
    return None


def _loaded(
    model: Model,
    encoder: torch.nn.Module | Callable[[torch.Tensor], torch.Tensor] | None,
    weights: str | Path | None,
) -> encoders.Encoder:
    """Load a model's encoder, which must have the weights the model was trained with."""
    recipe = model.recipe["embed"]
    if "tile_um" not in recipe:
        raise ValueError(
            "a published release does not say how its inputs were made: run stp.pp.embed(sdata, "
            f"{recipe.get('encoder', '…')!r}, tile_um=…, n_subtiles=3) and stp.pp.neighbors(sdata) "
            f"as its paper did, with the result in obsm[{model.recipe['embedding']!r}], then "
            "stp.tl.predict"
        )
    loaded = _load(recipe["encoder"], encoder, weights)
    if loaded.weights_hash != recipe["weights_hash"]:
        raise ValueError(
            f"the encoder {loaded.name!r} has other weights than the model was trained with "
            f"({loaded.weights_hash[:12]}… instead of {recipe['weights_hash'][:12]}…): give the "
            "same file as weights="
        )
    return loaded


def _make_inputs(
    sdata: SpatialData, model: Model, loaded: encoders.Encoder, *, batch_size: int, device: str
) -> None:
    """Normalise the stain, embed tiles and link neighbours as a model's recipe says."""
    recipe = model.recipe["embed"]
    stain = recipe.get("stain")
    _normalize_stain(sdata, stain)
    embed_with(
        sdata,
        loaded,
        source=recipe["encoder"],
        tile_um=recipe["tile_um"],
        n_subtiles=recipe["n_subtiles"] if model.uses_subtiles else 1,
        batch_size=batch_size,
        device=device,
        key_added=model.recipe["embedding"],
        normalized=stain is not None,
    )
    if model.uses_neighbors:
        rule: dict[str, Any] = model.recipe["neighbors"]
        neighbors(sdata, **rule)


def _keep(sdata: SpatialData, prepared: SpatialData) -> None:
    """Take over what was prepared on a copy."""
    for name, image in prepared.images.items():
        if name not in sdata.images or sdata.images[name] is not image:
            sdata.images.pop(name, None)  # normalised to another reference
            sdata.images[name] = image
    sdata.tables[_keys.TABLE] = prepared.tables[_keys.TABLE]


def _normalize_stain(sdata: SpatialData, stain: dict[str, Any] | None) -> None:
    """Normalise the stain to a model's reference, where it has one and the images have not."""
    if stain and not _is_normalized(sdata, stain):
        normalize_stain(sdata, method=stain["method"], reference=stain)


def _is_normalized(sdata: SpatialData, stain: dict[str, Any]) -> bool:
    """Whether all is normalised to this reference already, sections left alone by choice too."""
    try:
        found = _sections.sections(sdata, normalized=True)
    except ValueError:  # half of it, or with another reference: to be done again
        return False
    return _sections.stain_of(_sections.table_of(sdata), found) == stain


def _load(
    name: str,
    encoder: torch.nn.Module | Callable[[torch.Tensor], torch.Tensor] | None,
    weights: str | Path | None,
) -> encoders.Encoder:
    """Load the encoder of that name, or the one given in its place."""
    if encoder is not None:
        return encoders.load(encoder, weights=weights, name=name)
    try:
        return encoders.load(name, weights=weights)
    except KeyError as error:
        raise KeyError(
            f"the model was trained with an encoder of your own, {name!r}: give it as encoder= "
            f"({error.args[0]})"
        ) from error
