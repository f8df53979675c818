"""How the parameters of a recorded step differ from those that a model was trained with."""

from __future__ import annotations

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


def is_close(first: float, second: float, tolerance: float) -> bool:
    """Whether the ratio of two lengths is at most the tolerance."""
    return max(first, second) <= tolerance * min(first, second)
