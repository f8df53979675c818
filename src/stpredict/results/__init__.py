"""What a cross-validation found: tidy scores, their protocol, differences between methods."""

from __future__ import annotations

from stpredict.results._comparison import Comparison
from stpredict.results._cross_validation import (
    COLUMNS,
    NEIGHBOR_MEAN,
    NOISE_CEILING,
    NULLS,
    PCC_SHUFFLED,
    PCC_SPATIAL_NULL,
    REFERENCES,
    TRAINING_MEAN,
    TUNED_RIDGE,
    CrossValidation,
    Failure,
)

__all__ = [
    "COLUMNS",
    "NEIGHBOR_MEAN",
    "NOISE_CEILING",
    "NULLS",
    "PCC_SHUFFLED",
    "PCC_SPATIAL_NULL",
    "REFERENCES",
    "TRAINING_MEAN",
    "TUNED_RIDGE",
    "Comparison",
    "CrossValidation",
    "Failure",
]
