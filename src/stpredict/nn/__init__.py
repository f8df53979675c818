"""Plain torch modules: tensors in, tensors out."""

from __future__ import annotations

from stpredict.nn._published import from_published_state
from stpredict.nn.autoencoder import Autoencoder
from stpredict.nn.deepsets import DeepSets

__all__ = ["Autoencoder", "DeepSets", "from_published_state"]
