"""Likelihoods of counts, with log-rates from the network and library sizes as offsets."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from stpredict.nn._check import check_sizes
from stpredict.nn.losses._base import Loss

# Dispersions stay between exp(-9) = 0.00012, practically Poisson, and exp(9).
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
        Number of genes, at least 1, else a ValueError is raised.
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


def check_counts(loss: Loss, values: NDArray[np.number], *, where: str) -> None:
    """Require whole counts for a loss that is a likelihood of counts.

    Parameters
    ----------
    loss
        Loss from `make`.
    values
        Targets before any scaling, of any shape; for a sparse matrix, its ``data``.
    where
        Source of the values, such as ``"layers['log1p']"``, for the message.

    Raises
    ------
    ValueError
        If the loss needs counts, and a value is negative, not whole, or not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from stpredict.nn import losses
    >>> losses.check_counts(losses.make("poisson"), np.array([0, 3]), where="X")
    """
    if not loss.needs_counts:
        return
    values = np.asarray(values)
    is_wrong = ~(values >= 0) | (values != np.floor(values)) | ~np.isfinite(values)
    n_wrong = int(np.count_nonzero(is_wrong))
    if n_wrong:
        raise ValueError(
            f"loss={loss.name!r} is a likelihood of counts, but {n_wrong} of {values.size} values "
            f"of {where} are not whole numbers of at least 0, such as {values[is_wrong][0]:.4g}. "
            "Pass the raw counts (layer=None if they are in X), or use a loss such as 'mse'."
        )
