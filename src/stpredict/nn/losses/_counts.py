"""Likelihoods of counts: the network gives log-rates, library sizes are offsets."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stpredict.nn.losses._base import Loss

#: Dispersions stay between exp(-9) = 0.00012, which nobody tells from Poisson, and exp(9).
_MOST_LOG_DISPERSION = 9.0


class Poisson(Loss):
    """Negative log-likelihood of counts, averaged over spots and genes.

    The expected count is ``exp(predicted + log_library)``. The constant ``log(count!)`` is part
    of it.

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
    dispersion a of every gene is learnt with the network: it is a parameter of this module, which
    starts at 1, and predictions do not need it.

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
        if n_targets < 1:
            msg = f"n_targets={n_targets} must be at least 1."
            raise ValueError(msg)
        self.unbounded = nn.Parameter(torch.zeros(n_targets))

    @property
    def log_dispersion(self) -> Tensor:
        """Logarithm of every gene's dispersion, (g,), within ±9 and there never without slope."""
        return _MOST_LOG_DISPERSION * torch.tanh(self.unbounded / _MOST_LOG_DISPERSION)

    def compute(self, predicted: Tensor, target: Tensor, log_library: Tensor) -> Tensor:
        """``-log p(count)``, averaged."""
        if predicted.shape[1] != len(self.unbounded):
            msg = f"predicted has {predicted.shape[1]} targets, the loss {len(self.unbounded)}."
            raise ValueError(msg)
        # log-gamma of large numbers nearly cancel; of the devices, only Apple's has no doubles
        precise = predicted.dtype if predicted.device.type == "mps" else torch.float64
        log_mean = (predicted + log_library).to(precise)
        log_size = -self.log_dispersion.to(precise)
        counts, size = target.to(precise), log_size.exp()
        coefficient = torch.lgamma(counts + size) - torch.lgamma(size) - torch.lgamma(counts + 1)
        # the logarithms of size / (size + mean) and mean / (size + mean), for any mean
        zeros, ones = -F.softplus(log_mean - log_size), -F.softplus(log_size - log_mean)
        return -(coefficient + size * zeros + counts * ones).mean().to(predicted.dtype)

    def extra_repr(self) -> str:
        """Give the number of genes."""
        return f"n_targets={len(self.unbounded)}"
