"""Losses of single values, cosines and correlations."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from stpredict.nn.losses._base import Loss

# Vectors with no larger value are zero: their direction would be noise with a huge gradient.
_ZERO = 1e-12
# Deviations below this fraction of the largest value are rounding, as in `metrics.pcc`.
_ROUNDING = 1e-6


class MSE(Loss):
    """Squared error, ``e²``, averaged over spots and targets."""

    name = "mse"

    def compute(self, predicted: Tensor, target: Tensor, log_library: Tensor) -> Tensor:
        """Squared differences, averaged."""
        return F.mse_loss(predicted, target)


class L1(Loss):
    """Absolute error, ``|e|``, averaged over spots and targets."""

    name = "l1"

    def compute(self, predicted: Tensor, target: Tensor, log_library: Tensor) -> Tensor:
        """Absolute differences, averaged."""
        return F.l1_loss(predicted, target)


class Huber(Loss):
    """``e²/2`` up to ``delta``, ``delta (|e| - delta/2)`` beyond, averaged.

    Huber's function [1]_ of the error ``e``.

    Parameters
    ----------
    delta
        Error above which the loss is linear, in units of the targets, which training scales to a
        standard deviation of 1. Finite and above 0, else a ValueError is raised.

    References
    ----------
    .. [1] Huber, Robust estimation of a location parameter, Ann. Math. Statist. 1964.
    """

    name = "huber"

    def __init__(self, *, delta: float = 1.0) -> None:
        super().__init__()
        if not 0 < delta < float("inf"):
            raise ValueError(f"{delta=} must be a finite number above 0.")
        self.delta = delta

    def compute(self, predicted: Tensor, target: Tensor, log_library: Tensor) -> Tensor:
        """Huber's function of the differences, averaged."""
        return F.huber_loss(predicted, target, delta=self.delta)


class BCE(Loss):
    """Binary cross-entropy, ``-log p(target)``, averaged over spots and targets.

    For targets of 0 and 1; predictions are the logarithms of the odds of 1.
    """

    name = "bce"
    needs_binary = True

    def compute(self, predicted: Tensor, target: Tensor, log_library: Tensor) -> Tensor:
        """``log(1 + exp(predicted)) - target predicted``, averaged."""
        return F.binary_cross_entropy_with_logits(predicted, target)


class Cosine(Loss):
    """One minus the cosine of predicted and measured values of a gene over the spots of a section.

    Only spots in the batch count. Averaged over genes, and over sections with their numbers of
    spots as weights. A gene that is zero in all spots, predicted or measured, has a cosine of
    0, so a loss of 1 without gradient. For a single spot, the cosine is the sign of the product,
    also without gradient.
    """

    name = "cosine"
    within_sections = True

    def compute(self, predicted: Tensor, target: Tensor, log_library: Tensor) -> Tensor:
        """``1 - cos``, averaged over genes."""
        return (1 - _cosine(predicted, target, dim=0, centered=False)).mean()


class Pearson(Loss):
    """One minus Pearson's correlation of a gene over the spots of a section.

    Only spots in the batch count. Averaged over genes, as in `metrics.pcc`, and over sections with
    their numbers of spots as weights. A gene that is constant, predicted or measured, has a
    correlation of 0, so a loss of 1 without gradient. The same holds for a single spot.
    """

    name = "pearson"
    within_sections = True

    def compute(self, predicted: Tensor, target: Tensor, log_library: Tensor) -> Tensor:
        """``1 - r``, averaged over genes."""
        return (1 - _cosine(predicted, target, dim=0, centered=True)).mean()


class PearsonSpot(Loss):
    """One minus Pearson's correlation of a spot over its genes, averaged over spots.

    A spot that is constant, predicted or measured, has a correlation of 0, so a loss of 1 without
    gradient.
    """

    name = "pearson_spot"
    needs_several_targets = True

    def compute(self, predicted: Tensor, target: Tensor, log_library: Tensor) -> Tensor:
        """``1 - r``, averaged over spots."""
        return (1 - _cosine(predicted, target, dim=1, centered=True)).mean()


def _cosine(x: Tensor, y: Tensor, *, dim: int, centered: bool) -> Tensor:
    """Cosine along a dimension, optionally of deviations from the mean; 0 where undefined."""
    x, x_is_defined = _unit(x, dim=dim, centered=centered)
    y, y_is_defined = _unit(y, dim=dim, centered=centered)
    return torch.where(x_is_defined & y_is_defined, (x * y).sum(dim), 0)


def _unit(x: Tensor, *, dim: int, centered: bool) -> tuple[Tensor, Tensor]:
    """Vectors of length 1 along a dimension, and where they are defined."""
    low, high = x.detach().aminmax(dim=dim, keepdim=True)
    largest = torch.maximum(low.abs(), high.abs())
    is_defined = largest > _ZERO
    if centered:
        is_defined &= high - low > _ROUNDING * largest
    # the cosine is independent of the scale; this one keeps squares within the range of floats
    x = x / torch.where(is_defined, largest, 1)
    if centered:
        x = x - x.mean(dim, keepdim=True)
    # the root has no gradient at 0, and a NaN would pass through the branch not selected
    squared = torch.where(is_defined, x.square().sum(dim, keepdim=True), 1)
    return x / squared.sqrt(), is_defined.squeeze(dim)
