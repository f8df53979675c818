"""A linear map over the means of sets: what ridge regression fits."""

from __future__ import annotations

from torch import Tensor, nn

from stpredict.nn._sets import SetNetwork
from stpredict.nn.deepsets import CONTEXTS


class LinearSets(SetNetwork):
    """Linear in the embeddings of a spot, and in the means of its sub-tiles and neighbours.

    Parameters
    ----------
    n_features
        Width of an embedding.
    n_targets
        Number of targets.
    context
        What is looked at beside the spot, as of `DeepSets`.

    Raises
    ------
    ValueError
        If the context is unknown or a size is below 1.

    Examples
    --------
    >>> import torch
    >>> from stpredict.nn import LinearSets
    >>> LinearSets(84, 250, context="spot")(torch.rand(5, 84)).shape
    torch.Size([5, 250])
    """

    def __init__(self, n_features: int, n_targets: int, *, context: str = "spot") -> None:
        super().__init__(
            n_features,
            n_targets,
            n_encoded=n_features,
            context=context,
            contexts=CONTEXTS,
            aggregation="mean",
        )
        self.linear = nn.Linear(self.n_pooled, n_targets)

    def head(self, pooled: Tensor) -> Tensor:
        """Map ``(n, n_pooled)`` to ``(n, n_targets)``."""
        predicted: Tensor = self.linear(pooled)
        return predicted

    def _encode(self, tiles: Tensor) -> Tensor:
        return tiles
