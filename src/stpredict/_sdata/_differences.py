"""How the parameters of a recorded step differ from those that a model was trained with."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Largest ratio of two pitches that are the same: µm per pixel are known to about 10 %.
PITCH_TOLERANCE = 1.2
#: Largest ratio of two neighbour distances of cells, whose density differs between tissues.
CELL_TOLERANCE = 2.0


def differences_of(model: object, recorded: object, *, ignored: set[str]) -> list[str]:
    """Differing parameters, in words; None stands for not reported, or not part of the rule."""
    trained = {name: x for name, x in vars(model).items() if name not in ignored and x is not None}
    return [
        f"{name} is {getattr(recorded, name)!r}, the model was trained with {value!r}"
        for name, value in trained.items()
        if value != getattr(recorded, name)
    ]


def length_differences(model: object, recorded: object, name: str, tolerance: float) -> list[str]:
    """A length in µm that differs by more than a factor, in words; not compared if unknown."""
    trained, length = getattr(model, name), getattr(recorded, name)
    if trained is None or (length is not None and is_close(trained, length, tolerance)):
        return []
    value = "not recorded" if length is None else f"{length:g}"
    return [f"{name} is {value}, the model was trained with {trained:g}"]


def response_differences(
    model: Sequence[float] | None, recorded: Sequence[float] | None
) -> list[str]:
    """Whether encoders of the user differ in the embedding of a fixed tile, in words."""
    # devices and versions of torch differ by less than 1 % of the norm
    if model is None or recorded is None:
        return []
    if max(abs(a - b) for a, b in zip(model, recorded, strict=True)) <= 0.01 * abs(model[0]):
        return []
    return ["the encoder computes other values than the one that the model was trained with"]


def is_close(first: float, second: float, tolerance: float) -> bool:
    """Whether the ratio of two lengths is at most the tolerance."""
    return max(first, second) <= tolerance * min(first, second)
