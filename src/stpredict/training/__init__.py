"""Datasets over arrays, the Lightning module and the runner that fits every network."""

from __future__ import annotations

from stpredict.training._augment import Augmentation
from stpredict.training._data import Batch, Inputs, Measured, in_order, pad_neighbors
from stpredict.training._fit import Fitted, Schedule, fit_network
from stpredict.training._pixels import Pixels, TileBatch, TileStream

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
    "in_order",
    "pad_neighbors",
]
