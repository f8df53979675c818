"""What was measured of a fitted model's genes, in the units that it predicts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from stpredict import _validate
from stpredict._sdata import _layers, _recipe, _sections
from stpredict.targets._counts import COUNTS_UNITS, Counts
from stpredict.targets._matrix import as_matrix
from stpredict.tl._fitting._task import Values, library_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from numpy.typing import NDArray

    from stpredict.models import Model


#: Parts of a recipe that say how the layer is made.
_LAYER = ("layer", "normalize", "layer_steps")


def of_layer(table: AnnData, model: Model, layer: str | None) -> Model:
    """The model with the layer it is to learn, which its own must be in the units of."""
    counts = isinstance(model.targets, Counts)
    wanted = model.recipe["layer"] if layer is None else layer
    _sections.layer_of(table, wanted)
    units = COUNTS_UNITS if counts else _layers.units_of(table, wanted)
    if layer is None and units != model.units:
        name = "X" if wanted is None else f"layers[{wanted!r}]"
        raise ValueError(
            f"{name} holds {units}, the model predicts {model.units}: run "
            "stp.pp.prepare(sdata, model), or name the layer to learn with layer="
        )
    _layers.check_ranked(table, wanted, model.genes)
    recipe = {name: part for name, part in model.recipe.items() if name not in _LAYER}
    return replace(model, recipe=recipe | _recipe.layer_recipe(table, wanted), units=units)


def values_of_genes(table: AnnData, model: Model) -> Values:
    """What was measured of the genes that a model predicts."""
    return _read(table, model, model.genes, np.arange(len(model.genes)))


def values_of_targets(table: AnnData, model: Model) -> Values:
    """What was measured of the genes that a model's targets are made of: of factors, all."""
    if model.targets.outputs is None:
        return _read(table, model, model.genes, model.targets.columns)
    if "target_genes" not in model.training:
        raise ValueError(
            "the model does not tell which genes its factors are made of: fit it again"
        )
    return _read(table, model, model.training["target_genes"], model.targets.columns)


def _read(table: AnnData, model: Model, names: Sequence[str], columns: NDArray[np.intp]) -> Values:
    _validate.present(names, table.var_names)
    values = as_matrix(_sections.layer_of(table, model.recipe["layer"]))
    library = None
    if isinstance(model.targets, Counts):
        library = library_of(values)
        n_empty = int((library <= 0).sum())
        if n_empty:
            raise ValueError(f"{n_empty} spots have no counts: drop them with stp.pp.filter_spots")
    places = table.var_names.get_indexer(list(names))
    return Values(list(model.genes), values[:, places], columns, library)
