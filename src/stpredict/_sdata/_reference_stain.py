"""The stain that images were normalised to, and how two of them differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import ConfigDict

from stpredict._sdata._parse import FORBID

#: Tables, channels or stains as nested tuples: they compare by value and survive JSON and zarr.
Vector = tuple[float, ...]
Matrix = tuple[Vector, ...]


@dataclass(frozen=True)
class ReferenceStain:
    """Stain that images were normalised to; which numbers it has depends on the method."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    method: Literal["macenko", "vahadane", "reinhard"]
    stain_matrix: Matrix | None = None
    max_concentrations: Vector | None = None
    white_point: Vector | None = None
    mu: Vector | None = None
    sigma: Vector | None = None


def stain_differences(model: ReferenceStain | None, recorded: ReferenceStain | None) -> list[str]:
    """How the stain of images differs from the one a model was trained on, in words."""
    if recorded == model:
        return []
    trained = "raw images" if model is None else f"normalised images ({model.method!r})"
    reference = "" if model is None else " to another reference"
    state = "raw" if recorded is None else f"normalised{reference} ({recorded.method!r})"
    return [f"the images are {state}, the model was trained on {trained}"]
