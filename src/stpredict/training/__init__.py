"""Training of networks: datasets over arrays, options, and the function that fits a network."""

from stpredict.training._augment import Augmentation
from stpredict.training._data import (
    Batch,
    Inputs,
    Measured,
    pad_features,
    pad_neighbors,
    row_batches,
)
from stpredict.training._fit import Fitted, fit_network
from stpredict.training._pixels import Pixels, TileBatch, TileStream, reserve
from stpredict.training._schedule import Schedule
from stpredict.training._sections import (
    scaler_of_blocks,
    scaler_of_section,
    standardize_sections,
)

__all__ = [
    "Augmentation",
    "Batch",
    "Fitted",
    "Inputs",
    "Measured",
    "Pixels",
    "Schedule",
    "TileBatch",
    "TileStream",
    "fit_network",
    "pad_features",
    "pad_neighbors",
    "reserve",
    "row_batches",
    "scaler_of_blocks",
    "scaler_of_section",
    "standardize_sections",
]
