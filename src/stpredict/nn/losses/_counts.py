"""Likelihoods of counts, with log-rates from the network and library sizes as offsets."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stpredict.nn._check import check_sizes
from stpredict.nn.losses._base import Loss

#: Dispersions stay between exp(-9) = 0.00012, practically Poisson, and exp(9).
_MAX_LOG_DISPERSION = 9.0


class Poisson(Loss):
    """Negative log-likelihood of counts, averaged over spots and genes.

    The expected count is ``exp(predicted + log_library)``. The constant ``log(count!)`` is
    included.

    Examples
    --------
    >>> import torch
    >>> from stpredict.nn import losses
    >>> log_rate, counts = torch.tensor([[0.0, 0.0]]), torch.tensor([[0, 1]])
    >>> losses.Poisson()(log_rate, counts, log_library=torch.tensor([0.0]))
    tensor(1.)
    """

    name = "poisson"
    needs_counts = True

    def compute(self, predicted: Tensor, target: Tensor, log_library: Tensor) -> Tensor:
        """``mean - count log(mean) + log(count!)``, averaged."""
        log_mean = predicted + log_library
        return (log_mean.exp() - target * log_mean + torch.lgamma(target + 1)).mean()


class NegativeBinomial(Loss):
    """Negative log-likelihood of overdispersed counts, averaged over spots and genes.

    The expected count is ``m = exp(predicted + log_library)``, the variance ``m + a m²``. The
    dispersion ``a`` of each gene is learnt with the network. It is a parameter of this module,
    starts at 1 and is not used in prediction.

    Parameters
    ----------
    n_targets
        Number of genes.

    Raises
    ------
    ValueError
        If ``n_targets`` is below 1.

    Examples
    --------
    >>> import torch
    >>> from stpredict.nn import losses
    >>> loss = losses.NegativeBinomial(2)
    >>> log_rate, counts = torch.tensor([[0.0, 0.0]]), torch.tensor([[0, 0]])
    >>> loss(log_rate, counts, log_library=torch.tensor([0.0])).detach()
    tensor(0.6931)
    """

    name = "negative_binomial"
    needs_counts = True

    def __init__(self, n_targets: int) -> None:
        super().__init__()
        check_sizes(n_targets=n_targets)
        self.unbounded = nn.Parameter(torch.zeros(n_targets))

    @property
    def log_dispersion(self) -> Tensor:
        """Logarithm of each gene's dispersion, (g,), within ±9."""
        # tanh, unlike clamping, has a gradient everywhere
        return _MAX_LOG_DISPERSION * torch.tanh(self.unbounded / _MAX_LOG_DISPERSION)

    def compute(self, predicted: Tensor, target: Tensor, log_library: Tensor) -> Tensor:
        """``-log p(count)``, averaged."""
        if predicted.shape[1] != len(self.unbounded):
            raise ValueError(
                f"predicted has {predicted.shape[1]} targets, the loss {len(self.unbounded)}."
            )
        # log-gammas of large numbers nearly cancel, so use doubles (which mps lacks)
        precise = predicted.dtype if predicted.device.type == "mps" else torch.float64
        log_mean = (predicted + log_library).to(precise)
        log_size = -self.log_dispersion.to(precise)
        counts, size = target.to(precise), log_size.exp()
        coefficient = torch.lgamma(counts + size) - torch.lgamma(size) - torch.lgamma(counts + 1)
        # the logarithms of size / (size + mean) and mean / (size + mean), for any mean
        zeros, ones = -F.softplus(log_mean - log_size), -F.softplus(log_size - log_mean)
        return -(coefficient + size * zeros + counts * ones).mean().to(predicted.dtype)

    def extra_repr(self) -> str:
        """Number of genes in the printed module."""
        return f"n_targets={len(self.unbounded)}"
