"""Exactly the steps a model was trained with."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from stpredict import _keys, _sections, _validate, encoders
from stpredict._log import tell
from stpredict._recipe import check_recipe
from stpredict.pp._embed import embed_with
from stpredict.pp._neighbors import neighbors
from stpredict.pp._normalize import normalize
from stpredict.pp._rank import rank_expression
from stpredict.pp._smooth import smooth

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import torch
    from anndata import AnnData
    from spatialdata import SpatialData

    from stpredict.models import Model

#: Steps that make one layer of another.
_STEPS: dict[str, Callable[..., Any]] = {"rank_expression": rank_expression, "smooth": smooth}


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

    Embeds the tiles and builds the neighbour graph as the model's recipe says. Where there are
    counts, makes the layer the model was trained on, so that predictions can be compared with it:
    normalised, smoothed, ranked. Says so where the new sections have not what that takes, such as
    the same genes to rank among. No spot is removed.

    Parameters
    ----------
    sdata
        New sections.
    model
        The fitted model.
    encoder
        The encoder itself, where the model was trained with a module or function of yours.
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
        Writes what :func:`stpredict.pp.embed`, :func:`stpredict.pp.neighbors`,
        :func:`stpredict.pp.normalize`, :func:`stpredict.pp.smooth` and
        :func:`stpredict.pp.rank_expression` write.

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
    table = _sections.table_of(sdata)
    recipe = model.recipe["embed"]
    loaded = _load(recipe["encoder"], encoder, weights)
    if loaded.weights_hash != recipe["weights_hash"]:
        raise ValueError(
            f"the encoder {loaded.name!r} has other weights than the model was trained with "
            f"({loaded.weights_hash[:12]}… instead of {recipe['weights_hash'][:12]}…): give the "
            "same file as weights="
        )
    # on a copy first: if one step fails, none is left behind
    prepared = _sections.copy_of(sdata)
    embed_with(
        prepared,
        loaded,
        source=recipe["encoder"],
        tile_um=recipe["tile_um"],
        n_subtiles=recipe["n_subtiles"] if model.uses_subtiles else 1,
        batch_size=batch_size,
        device=device,
        key_added=model.recipe["embedding"],
    )
    if model.uses_neighbors:
        rule: dict[str, Any] = model.recipe["neighbors"]
        neighbors(prepared, **rule)
    if table.n_vars:
        _make_layer(prepared, model)
    check_recipe(prepared.tables[_keys.TABLE], model)
    if copy:
        return prepared
    sdata.tables[_keys.TABLE] = prepared.tables[_keys.TABLE]
    return None


def _make_layer(sdata: SpatialData, model: Model) -> None:
    """Make the layer the model was trained on, as far as the table has what it takes."""
    if model.recipe.get("normalize"):
        normalize(sdata, target_sum=model.recipe["normalize"]["target_sum"])
    for how in model.recipe.get("layer_steps", []):
        options = {name: value for name, value in how.items() if name not in ("step", "n_genes")}
        lacking = _lacking(sdata.tables[_keys.TABLE], how)
        if lacking:
            tell(
                f"prepare: layers[{how['key_added']!r}], which the model predicts, is not made of "
                f"what was measured: {lacking}"
            )
            return
        _STEPS[how["step"]](sdata, **options)


def _lacking(table: AnnData, how: dict[str, Any]) -> str:
    """What keeps a step from being repeated; empty if nothing does."""
    if how["layer"] is not None and how["layer"] not in table.layers:
        return f"there is no layers[{how['layer']!r}]"
    return _lacking_to_smooth(table, how) if how["step"] == "smooth" else _lacking_ranks(table, how)


def _lacking_to_smooth(table: AnnData, how: dict[str, Any]) -> str:
    if how["by"] == "space":
        lacks_graph = _keys.CONNECTIVITIES not in table.obsp
        return "it takes a neighbour graph, run stp.pp.neighbors first" if lacks_graph else ""
    sections = Counter(_sections.region_of(table))
    few = [name for name, n_spots in sections.items() if n_spots <= how["n_neighbors"]]
    if few:
        return f"too few spots for {how['n_neighbors']} neighbours in {_validate.listing(few)}"
    return ""


def _lacking_ranks(table: AnnData, how: dict[str, Any]) -> str:
    genes = how.get("genes")
    if genes is not None:
        absent = [gene for gene in genes if gene not in table.var_names]
        if absent:
            return (
                f"{len(absent)} of the {len(genes)} genes that were ranked are not in the table "
                f"({_validate.listing(absent)})"
            )
    elif table.n_vars != how["n_genes"]:
        return (
            f"training ranked {how['n_genes']} columns, the table has {table.n_vars}, and ranks "
            "among others do not compare. Ranks among genes that both have do: give genes= to "
            "stp.pp.rank_expression before fitting"
        )
    return ""


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
