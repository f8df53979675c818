"""Losses by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from stpredict.nn.losses._base import Loss
from stpredict.nn.losses._counts import NegativeBinomial, Poisson
from stpredict.nn.losses._errors import BCE, L1, MSE, Cosine, Huber, Pearson, PearsonSpot
from stpredict.nn.losses._pairs import (
    HuberCosine,
    L1Cosine,
    MSECosine,
    MSEPairwiseSpots,
    MSEPearson,
)
from stpredict.nn.losses._rank import HybridRank, PairwiseHinge, PairwiseLogistic, PairwiseSpots

_ERRORS: tuple[type[Loss], ...] = (MSE, L1, Huber, BCE, Cosine, Pearson, PearsonSpot)
_COUNTS: tuple[type[Loss], ...] = (Poisson, NegativeBinomial)
_PAIRS: tuple[type[Loss], ...] = (
    MSEPearson,
    MSECosine,
    L1Cosine,
    HuberCosine,
    MSEPairwiseSpots,
)
_RANKS: tuple[type[Loss], ...] = (PairwiseHinge, PairwiseLogistic, PairwiseSpots, HybridRank)

#: Class of each named loss.
LOSSES: Mapping[str, type[Loss]] = MappingProxyType(
    {loss.name: loss for loss in (*_ERRORS, *_COUNTS, *_PAIRS, *_RANKS)}
)


class _ModuleLoss(Loss):
    """A torch loss, called with predicted and measured targets only."""

    name = "module"

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def compute(self, predicted: Tensor, target: Tensor, log_library: Tensor) -> Tensor:
        """Call the module."""
        return self.module(predicted, target)


def make(loss: str | nn.Module, *, n_targets: int | None = None, **options: Any) -> Loss:
    """Make a loss from its name.

    Parameters
    ----------
    loss
        Name in `LOSSES`, or a module that maps predicted and measured targets, ``(n, g)`` both,
        to a scalar: a custom `Loss`, or for instance `torch.nn.SmoothL1Loss`.
    n_targets
        Number of targets, required for ``"negative_binomial"``. Losses that compare targets with
        each other refuse a single one.
    **options
        Options of the named loss.

    Returns
    -------
    Loss
        A new loss, or ``loss`` itself if it is a `Loss`.

    Raises
    ------
    ValueError, TypeError
        If the loss or an option is unknown, or ``n_targets`` is missing or too small.

    Examples
    --------
    >>> import torch
    >>> from stpredict.nn import losses
    >>> loss = losses.make("mse_cosine", cosine_weight=0.5)
    >>> measured = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> loss(measured, measured)
    tensor(0.)
    """
    if isinstance(loss, str):
        loss = _make_named(loss, n_targets, options)
    elif not isinstance(loss, nn.Module):
        raise TypeError(f"loss must be a name or an nn.Module, not {type(loss).__name__}.")
    elif options:
        raise TypeError(f"Options {', '.join(options)} need a loss by name; a module has its own.")
    elif not isinstance(loss, Loss):
        loss = _ModuleLoss(loss)
    if loss.needs_several_targets and n_targets is not None and n_targets < 2:
        raise ValueError(
            f"loss={loss.name!r} compares the targets of a spot, but n_targets={n_targets}. "
            "Predict two or more, or use a loss such as 'mse' or 'pearson'."
        )
    return loss


def _make_named(name: str, n_targets: int | None, options: dict[str, Any]) -> Loss:
    if name not in LOSSES:
        # names are lower case, so that "MSE" suggests 'mse'
        similar = difflib.get_close_matches(name.lower(), LOSSES, n=1)
        hint = f" did you mean {similar[0]!r}?" if similar else ""
        raise ValueError(f"No loss is named {name!r}:{hint} Losses: {', '.join(LOSSES)}.")
    loss: Callable[..., Loss] = LOSSES[name]
    names = [option for option in LOSSES[name].options() if option != "n_targets"]
    if unknown := [option for option in options if option not in names]:
        listed = f"{', '.join(unknown)}; its options are: {', '.join(names) or 'none'}"
        raise TypeError(f"{name} has no option {listed}.")
    # losses with a parameter per target take the number of targets
    if "n_targets" not in LOSSES[name].options():
        return loss(**options)
    if n_targets is None:
        raise ValueError(f"{name} learns a parameter per target: pass n_targets=.")
    return loss(n_targets=n_targets, **options)
