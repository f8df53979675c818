"""Training of networks: datasets over arrays, options, and the function that fits a network."""

from typing import TYPE_CHECKING, Any

from stpredict.training._augment import Augmentation
from stpredict.training._data import (
    Batch,
    Inputs,
    Measured,
    pad_features,
    pad_neighbors,
    row_batches,
)
from stpredict.training._fitted import Fitted
from stpredict.training._pixels import Pixels, TileBatch, TileStream, reserve
from stpredict.training._schedule import Schedule
from stpredict.training._sections import (
    scaler_of_blocks,
    scaler_of_section,
    standardize_sections,
)

if TYPE_CHECKING:
    from stpredict.training._fit import fit_network

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


def __getattr__(name: str) -> Any:
    if name == "fit_network":  # Lightning takes seconds to import, and predictions do not need it
        from stpredict.training import _fit

        return _fit.fit_network
    raise AttributeError(f"module 'stpredict.training' has no attribute {name!r}")
