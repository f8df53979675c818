"""Networks on top of other models: what a stack makes of their predictions."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from stpredict.nn._sets import SetNetwork
from stpredict.nn.linear import LinearSets

Meta = Literal["mlp", "ridge", "mean", "rank_mean"]
METAS: tuple[Meta, ...] = ("mlp", "ridge", "mean", "rank_mean")

#: Predictions of a spot are all there is to see.
SPOT = {"spot": (False, False)}


class _OfPredictions(SetNetwork):
    """What networks on predictions share: they are encoded already."""

    def __init__(self, n_features: int, n_targets: int, *, context: str = "spot") -> None:
        super().__init__(
            n_features,
            n_targets,
            n_encoded=n_features,
            context=context,
            contexts=SPOT,
            aggregation="mean",
        )

    def _encode(self, tiles: Tensor) -> Tensor:
        return tiles


class StackingMLP(_OfPredictions):
    """Two hidden layers over the predictions of other models, side by side.

    Each layer is linear, LeakyReLU, batch norm, dropout; the second has half the width of the
    first. With its defaults, the layers of HEVisum's ``StackingMLP``.

    Parameters
    ----------
    n_features
        Models times targets.
    n_targets
        Number of targets.
    context
        ``"spot"``.
    n_hidden
        Width of the first hidden layer, at least 2.
    dropout
        Probability of dropout after each hidden layer, in [0, 1).

    Raises
    ------
    ValueError
        If a size or the probability is out of its range.

    References
    ----------
    Wang, HEVisum, https://github.com/Dewey-Wang/HEVisum.

    Examples
    --------
    >>> import torch
    >>> from stpredict.nn import StackingMLP
    >>> StackingMLP(3 * 250, 250).eval()(torch.rand(5, 3 * 250)).shape
    torch.Size([5, 250])
    """

    def __init__(
        self,
        n_features: int,
        n_targets: int,
        *,
        context: str = "spot",
        n_hidden: int = 512,
        dropout: float = 0.2,
    ) -> None:
        super().__init__(n_features, n_targets, context=context)
        if n_hidden < 2:
            msg = f"n_hidden={n_hidden} must be at least 2."
            raise ValueError(msg)
        if not 0 <= dropout < 1:
            msg = f"dropout={dropout} must be at least 0 and below 1."
            raise ValueError(msg)
        widths = (n_features, n_hidden, n_hidden // 2)
        self.layers = nn.Sequential(
            *_hidden(widths[0], widths[1], dropout),
            *_hidden(widths[1], widths[2], dropout),
            nn.Linear(widths[2], n_targets),
        )

    def head(self, pooled: Tensor) -> Tensor:
        """Map ``(n, n_features)`` to ``(n, n_targets)``."""
        predicted: Tensor = self.layers(pooled)
        return predicted


class MeanOfModels(_OfPredictions):
    """The mean over the predictions of other models, side by side.

    Parameters
    ----------
    n_features
        Models times targets.
    n_targets
        Number of targets.
    context
        ``"spot"``.

    Raises
    ------
    ValueError
        If ``n_features`` is no multiple of ``n_targets``.

    Examples
    --------
    >>> import torch
    >>> from stpredict.nn import MeanOfModels
    >>> MeanOfModels(4, 2)(torch.tensor([[1.0, 2.0, 3.0, 6.0]]))
    tensor([[2., 4.]])
    """

    def __init__(self, n_features: int, n_targets: int, *, context: str = "spot") -> None:
        super().__init__(n_features, n_targets, context=context)
        if n_features % n_targets:
            msg = f"n_features={n_features} must be a multiple of n_targets={n_targets}."
            raise ValueError(msg)

    def head(self, pooled: Tensor) -> Tensor:
        """Map ``(n, n_features)`` to ``(n, n_targets)``."""
        return pooled.unflatten(1, (-1, self.n_targets)).mean(1)


def of_stack(
    n_features: int, n_targets: int, *, context: str, meta: Meta, **options: Any
) -> SetNetwork:
    """Make the network of a stack; ``options`` are those of `StackingMLP`."""
    if meta not in METAS:
        msg = f"meta={meta!r} is unknown; choose one of {', '.join(METAS)}."
        raise ValueError(msg)
    if meta == "mlp":
        return StackingMLP(n_features, n_targets, context=context, **options)
    kind = LinearSets if meta == "ridge" else MeanOfModels
    return kind(n_features, n_targets, context=context)


class _BatchNorm(nn.BatchNorm1d):
    """Batch norm that takes a single row as evaluation does: it has no spread of its own."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and len(x) == 1:
            mean, variance = self.running_mean, self.running_var
            return F.batch_norm(x, mean, variance, self.weight, self.bias, eps=self.eps)
        return super().forward(x)


def _hidden(n_in: int, n_out: int, dropout: float) -> tuple[nn.Module, ...]:
    return nn.Linear(n_in, n_out), nn.LeakyReLU(), _BatchNorm(n_out), nn.Dropout(dropout)
