"""Plain torch modules: tensors in, tensors out."""

from __future__ import annotations

from stpredict.nn._published import from_published_state
from stpredict.nn._sets import SetNetwork
from stpredict.nn.deepsets import DeepCell, DeepSets
from stpredict.nn.forest import ForestSets
from stpredict.nn.linear import LinearSets

__all__ = ["DeepCell", "DeepSets", "ForestSets", "LinearSets", "SetNetwork", "from_published_state"]
