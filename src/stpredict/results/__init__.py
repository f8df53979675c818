"""Results of `tl.evaluate` and `tl.cross_validate`: tidy scores, protocol, comparisons."""

from stpredict.results._comparison import Comparison
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
    "COLUMNS",
    "NEIGHBOR_MEAN",
    "NOISE_CEILING",
    "PCC_SHUFFLED",
    "PCC_SPATIAL_NULL",
    "REFERENCES",
    "TRAINING_MEAN",
    "TUNED_RIDGE",
    "Comparison",
    "Failure",
    "Protocol",
    "Scores",
]


def __dir__() -> list[str]:
    return sorted(__all__)
