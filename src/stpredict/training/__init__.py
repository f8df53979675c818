"""Datasets over arrays, the Lightning module and the runner that fits every network."""

from __future__ import annotations

from stpredict.training._batches import Measured
from stpredict.training._data import Batch, Inputs, in_order, pad_neighbors
from stpredict.training._fit import Fitted, Schedule, fit_network

__all__ = [
    "Batch",
    "Fitted",
    "Inputs",
    "Measured",
    "Schedule",
    "fit_network",
    "in_order",
    "pad_neighbors",
]
