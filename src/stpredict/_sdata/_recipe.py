"""The recipe of a model's inputs and layer: its steps, stored with the model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, ClassVar, get_args

from pydantic import ConfigDict

from stpredict._sdata import _steps


@dataclass(frozen=True)
class Recipe:
    """What has to be done to new sections before a model can predict them."""

    __pydantic_config__: ClassVar[ConfigDict] = _steps.FORBID
    layer: str | None  # layer that the model predicts; None is X
    layer_steps: tuple[_steps.LayerStep, ...] = ()  # they make the layer from counts, in order
    embedding: str | None = None  # slot in obsm; None for models on pixels and for stacks
    embed: _steps.EmbedStep | None = None
    neighbors: _steps.NeighborsStep | None = None  # None for models that take no neighbours
    tiles: _steps.TilesStep | None = None  # None for models on embeddings

    @property
    def stain(self) -> _steps.ReferenceStain | None:
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
    def from_plain(cls, values: dict[str, Any]) -> Recipe:
        """Read a recipe back; unknown names and wrong types raise ValueError."""
        values = dict(values)
        layer_steps = [dict(step) for step in values.pop("layer_steps", ())]
        kinds = {kind.name: kind for kind in get_args(_steps.LayerStep)}
        unknown = [step.get("step") for step in layer_steps if step.get("step") not in kinds]
        if unknown:
            raise ValueError(f"unknown layer steps: {unknown}")
        steps = tuple(_steps.parse(kinds[step.pop("step")], step) for step in layer_steps)
        values.setdefault("layer", None)
        return _steps.parse(cls, {**values, "layer_steps": steps})
