"""Networks on the predictions of other models, for stacking."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from stpredict.nn._check import check_choice, check_probabilities
from stpredict.nn._sets import SetNetwork
from stpredict.nn.linear import LinearSets, UnencodedSets

# a stack sees the predictions of a spot only
SPOT = {"spot": (False, False)}


class StackingMLP(UnencodedSets):
    """Two hidden layers over the concatenated predictions of other models, as in HEVisum.

    The network of [1]_. Each layer is linear, LeakyReLU, batch norm, dropout;
    the second has half the width of the first.

    Parameters
    ----------
    n_features, n_targets
        Number of models times number of targets, and number of targets.
    context
        Inputs of the network: the predictions of the spot.
    n_hidden
        Width of the first hidden layer, at least 2.
    dropout
        Dropout probability after each hidden layer, in [0, 1).

    References
    ----------
    .. [1] Wang, HEVisum, https://github.com/Dewey-Wang/HEVisum.

    Examples
    --------
    >>> import torch
    >>> from stpredict.nn import StackingMLP
    >>> StackingMLP(3 * 250, 250).eval()(torch.rand(5, 3 * 250)).shape
    torch.Size([5, 250])
    """

    contexts = SPOT
    # layers.8 is the last of nine: two hidden layers of four modules, then the output
    output_axes: ClassVar = {"layers.8.weight": 0, "layers.8.bias": 0}

    def __init__(
        self,
        n_features: int,
        n_targets: int,
        *,
        context: Literal["spot"] = "spot",
        n_hidden: int = 512,
        dropout: float = 0.2,
    ) -> None:
        super().__init__(n_features, n_targets, context=context)
        if n_hidden < 2:
            raise ValueError(f"n_hidden={n_hidden} must be at least 2.")
        check_probabilities(dropout=dropout)
        self.layers = nn.Sequential(
            *_hidden_layer(n_features, n_hidden, dropout),
            *_hidden_layer(n_hidden, n_hidden // 2, dropout),
            nn.Linear(n_hidden // 2, n_targets),
        )

    def head(self, pooled: Tensor) -> Tensor:
        """Map ``(n, n_features)`` to ``(n, n_targets)``."""
        return self.layers(pooled)


class MeanOfModels(UnencodedSets):
    """Mean over the concatenated predictions of other models.

    Parameters
    ----------
    n_features, n_targets
        Number of models times number of targets, and number of targets. A ValueError is raised
        unless the former is a multiple of the latter.
    context
        Inputs of the network: the predictions of the spot.

    Examples
    --------
    >>> import torch
    >>> from stpredict.nn import MeanOfModels
    >>> MeanOfModels(4, 2)(torch.tensor([[1.0, 2.0, 3.0, 6.0]]))
    tensor([[2., 4.]])
    """

    contexts = SPOT
    output_axes: ClassVar = {}

    def _build(self) -> None:
        if self.n_features % self.n_targets:
            remedy = f"must be a multiple of n_targets={self.n_targets}"
            raise ValueError(f"n_features={self.n_features} {remedy}.")

    def head(self, pooled: Tensor) -> Tensor:
        """Map ``(n, n_features)`` to ``(n, n_targets)``."""
        return pooled.unflatten(1, (-1, self.n_targets)).mean(1)


def stacking_network(
    n_features: int,
    n_targets: int,
    *,
    context: Literal["spot"],
    meta: Literal["mlp", "ridge", "mean", "rank_mean"],
    **options: Any,
) -> SetNetwork:
    """Make the network of a stack; ``options`` are those of `StackingMLP`."""
    check_choice("meta", meta, ("mlp", "ridge", "mean", "rank_mean"))
    if meta == "mlp":
        return StackingMLP(n_features, n_targets, context=context, **options)
    kind = LinearSets if meta == "ridge" else MeanOfModels
    return kind(n_features, n_targets, context=context)


class _BatchNorm(nn.BatchNorm1d):
    """Batch norm that uses its running statistics for a single row, which has no variance."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and len(x) == 1:
            mean, variance = self.running_mean, self.running_var
            return F.batch_norm(x, mean, variance, self.weight, self.bias, eps=self.eps)
        return super().forward(x)


def _hidden_layer(n_in: int, n_out: int, dropout: float) -> tuple[nn.Module, ...]:
    return nn.Linear(n_in, n_out), nn.LeakyReLU(), _BatchNorm(n_out), nn.Dropout(dropout)
