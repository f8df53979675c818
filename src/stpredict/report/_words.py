"""Labels and notes of the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stpredict.pl._drawing import _scores
from stpredict.results import NEIGHBOR_MEAN, NOISE_CEILING, TRAINING_MEAN, TUNED_RIDGE

if TYPE_CHECKING:
    from stpredict.results import Scores

#: Notes on baselines and references.
NOTES = {
    TRAINING_MEAN: "Reference: every spot gets the mean of the training rows.",
    TUNED_RIDGE: "Baseline: ridge regression on the same embedding, with tuned alpha.",
    NEIGHBOR_MEAN: "Reference: every spot gets the mean of its measured neighbours.",
    NOISE_CEILING: "Best score that a model can reach, given the noise of the counts.",
}


def method_label(name: str) -> str:
    """Label of a method, baseline or reference, on one line."""
    return " ".join(_scores.label_of(name).split())


def facts(scores: Scores) -> dict[str, str]:
    """Conditions of the scores, by label; unknown ones are left out."""
    protocol = scores.protocol
    training = {
        name: ", ".join(sections) for name, sections in protocol.trained_on.items() if sections
    }
    values = {
        "left out": protocol.group_kind,
        "folds": "; ".join(
            # groups that a fold left out are named if they differ from the fold
            name if groups == (name,) else f"{name}: {', '.join(groups)}"
            for name, groups in protocol.folds.items()
        ),
        "trained on": "; ".join(f"{name}: {sections}" for name, sections in training.items()),
        "layer": protocol.layer or "X",
        "units": protocol.units,
        "spots": f"{protocol.n_spots:,}",
        "random seed": str(protocol.seed),
        "seconds": ", ".join(f"{name}: {value:.3g}" for name, value in scores.seconds.items()),
        "versions": ", ".join(f"{name}: {value}" for name, value in protocol.versions.items()),
    }
    return {label: value for label, value in values.items() if value}
