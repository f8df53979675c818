"""The recipe of a model's inputs and layer: its steps, stored with the model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal, get_args

from pydantic import ConfigDict

from stpredict._sdata import _steps
from stpredict._sdata._parse import FORBID, parse_json
from stpredict._sdata._reference_stain import ReferenceStain


@dataclass(frozen=True)
class Recipe:
    """What has to be done to new sections before a model can predict them."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    layer: str | None  # layer that the model predicts; None is X
    layer_steps: tuple[_steps.LayerStep, ...] = ()  # they make the layer from counts, in order
    embedding: str | None = None  # slot in obsm; None for models on pixels and for stacks
    embed: _steps.EmbedStep | None = None
    # rows that the mean and standard deviation of a feature are taken over
    standardize: Literal["training", "section"] = "training"
    neighbors: _steps.NeighborsStep | None = None  # None for models that take no neighbours
    tiles: _steps.TilesStep | None = None  # None for models on embeddings

    @property
    def stain(self) -> ReferenceStain | None:
        """Stain that the images were normalised to; None for raw images."""
        step = self.tiles or self.embed
        return None if step is None else step.stain

    def steps(self) -> Iterator[_steps.Step]:
        """All steps, in the order in which they are run."""
        if self.stain is not None:
            yield _steps.NormalizeStainStep(reference=self.stain)
        yield from (step for step in (self.embed, self.neighbors) if step is not None)
        yield from self.layer_steps

    def to_plain(self) -> dict[str, Any]:
        """The recipe in types that JSON can hold."""
        plain = {
            part.name: value.to_plain() if isinstance(value, _steps.Step) else value
            for part in fields(self)
            if (value := getattr(self, part.name)) is not None
        }
        plain["layer_steps"] = [{"step": step.name, **step.to_plain()} for step in self.layer_steps]
        return plain

    @classmethod
    def from_plain(cls, values: Any) -> Recipe:
        """Read a recipe back; unknown names and wrong types raise ValueError."""
        if not isinstance(values, dict):
            raise ValueError(f"recipe: must be a dictionary, not {values!r:.80}")
        layer_steps = values.get("layer_steps", [])
        if not isinstance(layer_steps, list):
            raise ValueError(f"recipe.layer_steps: must be a list, not {layer_steps!r:.80}")
        others = {name: value for name, value in values.items() if name != "layer_steps"}
        recipe: Recipe = parse_json(cls, {"layer": None, **others}, name="recipe")
        return replace(recipe, layer_steps=tuple(map(_layer_step, layer_steps)))


def _layer_step(values: Any) -> _steps.LayerStep:
    kinds = {kind.name: kind for kind in get_args(_steps.LayerStep)}
    name = values.get("step") if isinstance(values, dict) else None
    if not isinstance(name, str) or name not in kinds:
        raise ValueError(f"recipe.layer_steps: unknown step {values!r:.80}")
    parameters = {key: value for key, value in values.items() if key != "step"}
    step: _steps.LayerStep = parse_json(kinds[name], parameters, name=f"recipe.layer_steps.{name}")
    return step
