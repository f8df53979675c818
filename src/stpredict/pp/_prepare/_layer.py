"""The layer a model was trained on, made again of what was measured."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from stpredict import _keys, _validate
from stpredict._log import tell
from stpredict._sdata import _sections
from stpredict.pp._normalize import normalize
from stpredict.pp._rank_expression import rank_expression
from stpredict.pp._smooth import smooth

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData
    from spatialdata import SpatialData

    from stpredict.models import Model

#: Steps that make one layer of another.
_STEPS: dict[str, Callable[..., Any]] = {"rank_expression": rank_expression, "smooth": smooth}


def make_layer(sdata: SpatialData, model: Model) -> None:
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
