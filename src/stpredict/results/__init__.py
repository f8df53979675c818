"""Results of `tl.evaluate` and `tl.cross_validate`: tidy scores, protocol, comparisons."""

from stpredict.results._comparison import Comparison
from stpredict.results._ladder import (
    BLOCKS,
    PATIENTS,
    RANDOM_SPOTS,
    SECTIONS,
    Rung,
    SplitLadder,
)
from stpredict.results._protocol import Protocol
from stpredict.results._scores import (
    COLUMNS,
    NEIGHBOR_MEAN,
    NOISE_CEILING,
    PCC_SHUFFLED,
    PCC_SPATIAL_NULL,
    REFERENCES,
    TRAINING_MEAN,
    TUNED_RIDGE,
    Failure,
    Scores,
)

__all__ = [
    "BLOCKS",
    "COLUMNS",
    "NEIGHBOR_MEAN",
    "NOISE_CEILING",
    "PATIENTS",
    "PCC_SHUFFLED",
    "PCC_SPATIAL_NULL",
    "RANDOM_SPOTS",
    "REFERENCES",
    "SECTIONS",
    "TRAINING_MEAN",
    "TUNED_RIDGE",
    "Comparison",
    "Failure",
    "Protocol",
    "Rung",
    "Scores",
    "SplitLadder",
]


def __dir__() -> list[str]:
    return sorted(__all__)
