"""Plain torch modules: tensors in, tensors out."""

from __future__ import annotations

from stpredict.nn import losses
from stpredict.nn._published import from_published_state
from stpredict.nn.deepsets import DeepSets

__all__ = ["DeepSets", "from_published_state", "losses"]
