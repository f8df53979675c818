"""What a stack takes to be prepared: the inputs of its bases, each made once."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from stpredict import _validate
from stpredict.models._methods import METHODS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stpredict.models import Model


def apart(model: Model, *, own: bool) -> list[Model]:
    """Models to prepare for in turn, so that every base of a stack has its inputs.

    Of bases that share an embedding one stands for all, with sub-tiles and neighbours where any
    of them looks at these. ``own`` says whether an encoder or its weights are given.
    """
    pixels: list[Model] = []
    sharing: dict[str, list[Model]] = {}
    for base in _bases(model):
        (pixels if base.uses_pixels else sharing.setdefault(base.recipe["embedding"], [])).append(
            base
        )
    if own and len(sharing) > 1:
        raise ValueError(
            f"the bases of the stack stand on several embeddings ({_validate.listing(sharing)}), "
            "and encoder= or weights= can be given for one: prepare base by base, "
            "stp.pp.prepare(sdata, model.bases[0], encoder=…) and so on"
        )
    return [*pixels, *(_for_all(bases) for bases in sharing.values())]


def _bases(model: Model) -> Iterator[Model]:
    if not model.bases:
        yield model
    for base in model.bases:
        yield from _bases(base)


def _for_all(bases: list[Model]) -> Model:
    """Of models on one embedding, one that looks at all that any of them does."""
    uses = any(base.uses_subtiles for base in bases), any(base.uses_neighbors for base in bases)
    recipe = {name: part for base in bases for name, part in base.recipe.items()}
    for base in bases:
        for context, used in METHODS[base.method].contexts.items():
            if used == uses:
                return replace(base, context=context, recipe=recipe)
    return bases[0]
