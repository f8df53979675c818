"""Plain torch modules: tensors in, tensors out."""

from __future__ import annotations

from stpredict.nn._published import from_published_state
from stpredict.nn.cnn import TileCNN
from stpredict.nn.deepsets import DeepSets
from stpredict.nn.multiscale import MultiScale

__all__ = ["DeepSets", "MultiScale", "TileCNN", "from_published_state"]
