"""Losses of single values."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from stpredict.nn.losses._base import Loss


class MSE(Loss):
    """Mean squared error over spots and targets.

    Examples
    --------
    >>> import torch
    >>> from stpredict.nn import losses
    >>> losses.MSE()(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 4.0]]))
    tensor(2.)
    """

    name = "mse"

    def compute(self, predicted: Tensor, target: Tensor, log_library: Tensor) -> Tensor:
        """Squared differences, averaged."""
        return F.mse_loss(predicted, target)


class L1(Loss):
    """Mean absolute error over spots and targets.

    Examples
    --------
    >>> import torch
    >>> from stpredict.nn import losses
    >>> losses.L1()(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 4.0]]))
    tensor(1.)
    """

    name = "l1"

    def compute(self, predicted: Tensor, target: Tensor, log_library: Tensor) -> Tensor:
        """Absolute differences, averaged."""
        return F.l1_loss(predicted, target)


class Huber(Loss):
    """Squared error up to ``delta``, linear beyond it (Huber 1964).

    Parameters
    ----------
    delta
        Error above which the loss is linear, in units of the targets, which training scales to a
        standard deviation of 1.

    Raises
    ------
    ValueError
        If ``delta`` is not above 0.

    References
    ----------
    Huber, Robust estimation of a location parameter, Ann. Math. Statist. 1964.

    Examples
    --------
    >>> import torch
    >>> from stpredict.nn import losses
    >>> losses.Huber()(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 4.0]]))
    tensor(0.7500)
    """

    name = "huber"

    def __init__(self, *, delta: float = 1.0) -> None:
        super().__init__()
        if not 0 < delta < float("inf"):
            raise ValueError(f"delta={delta!r} must be a finite number above 0.")
        self.delta = delta

    def compute(self, predicted: Tensor, target: Tensor, log_library: Tensor) -> Tensor:
        """``e²/2`` up to delta, ``delta (|e| - delta/2)`` beyond, averaged."""
        return F.huber_loss(predicted, target, delta=self.delta)
