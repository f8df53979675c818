"""Ridge regression as a network: a linear map of the means of sets."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor, nn

from stpredict.nn._sets import SetNetwork
from stpredict.nn.deepsets import CONTEXTS


class UnencodedSets(SetNetwork):
    """Base of networks that pool embeddings as they are, without encoding them first."""

    contexts = CONTEXTS

    def __init__(
        self,
        n_features: int,
        n_targets: int,
        *,
        context: Literal[
            "spot", "spot_subspot", "spot_neighbors", "spot_subspot_neighbors"
        ] = "spot",
    ) -> None:
        super().__init__(
            n_features, n_targets, n_encoded=n_features, context=context, aggregation="mean"
        )
        self._build()

    def _build(self) -> None:
        """Add the layers."""

    def _encode(self, tiles: Tensor) -> Tensor:
        return tiles


class LinearSets(UnencodedSets):
    """Linear map of a spot's embedding, and of the means of its sub-tiles and neighbours.

    Parameters
    ----------
    n_features, n_targets
        Width of an embedding, and number of targets.
    context
        Inputs of the network, as in `DeepSets`.

    Examples
    --------
    >>> import torch
    >>> from stpredict.nn import LinearSets
    >>> LinearSets(84, 250, context="spot")(torch.rand(5, 84)).shape
    torch.Size([5, 250])
    """

    output_axes: ClassVar = {"linear.weight": 0, "linear.bias": 0}

    def _build(self) -> None:
        self.linear = nn.Linear(self.n_pooled, self.n_targets)

    def head(self, pooled: Tensor) -> Tensor:
        """Map ``(n, n_pooled)`` to ``(n, n_targets)``."""
        return self.linear(pooled)
