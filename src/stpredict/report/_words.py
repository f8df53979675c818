"""What the page calls things."""

from __future__ import annotations

from stpredict.pl._drawing import _scores
from stpredict.results import (
    NEIGHBOR_MEAN,
    NOISE_CEILING,
    TRAINING_MEAN,
    TUNED_RIDGE,
)

#: What stands beside the methods.
REFERENCES = {
    TRAINING_MEAN: "Null: every spot gets the mean of the training rows.",
    TUNED_RIDGE: "Null: ridge regression on the same embedding, alpha tuned.",
    NEIGHBOR_MEAN: "Every spot gets what was measured in its neighbours.",
    NOISE_CEILING: "What a perfect model could reach, as counts are noisy.",
}
#: Settings of a cross-validation, in the order in which they are told.
SETTINGS = {
    "groups": "groups",
    "layer": "layer",
    "units": "units",
    "n_spots": "spots",
    "seed": "seed",
    "sections": "sections left out",
    "seconds": "seconds",
    "versions": "versions",
}


def method(name: str) -> str:
    """Name of a method or of a reference, as it is shown."""
    if name.startswith(f"{TUNED_RIDGE}_"):  # one of several, each on an embedding
        return f"{method(TUNED_RIDGE)}, {name.removeprefix(f'{TUNED_RIDGE}_')}"
    return " ".join(_scores.WORDS.get(name, name).split())


def note(name: str) -> str:
    """What a reference is; of a method nothing."""
    return REFERENCES.get(TUNED_RIDGE if name.startswith(TUNED_RIDGE) else name, "")


def metric(name: str) -> tuple[str, str]:
    """Label and description of a metric."""
    record = _scores.record_of(name)
    return record.label, record.description
