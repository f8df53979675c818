"""Losses by name."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from stpredict.nn.losses._base import Loss
from stpredict.nn.losses._check import check_several_targets
from stpredict.nn.losses._correlation import Cosine, Pearson, PearsonSpot
from stpredict.nn.losses._counts import NegativeBinomial, Poisson
from stpredict.nn.losses._pairs import HuberCosine, L1Cosine, MSECosine, MSEPearson
from stpredict.nn.losses._pointwise import L1, MSE, Huber
from stpredict.nn.losses._rank import HybridRank, PairwiseHinge, PairwiseLogistic


@dataclass(frozen=True)
class LossRecord:
    """One loss, described by data.

    Attributes
    ----------
    name
        By which `make` knows it.
    factory
        Makes the loss, taking its options by keyword.
    description
        What it computes, in a line.
    counts
        Whether it needs untransformed counts as targets, and ``log_library`` in its call.
    several_targets
        Whether it needs two targets or more.
    per_target
        Whether it has a parameter for every target, and its factory so takes ``n_targets``.

    Examples
    --------
    >>> from stpredict.nn import losses
    >>> losses.LOSSES["poisson"].counts
    True
    """

    name: str
    factory: Callable[..., Loss]
    description: str
    counts: bool = False
    several_targets: bool = False
    per_target: bool = False

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the options that `make` takes for it."""
        names = inspect.signature(self.factory).parameters
        return tuple(name for name in names if name != "n_targets")


def _record(factory: type[Loss], description: str) -> LossRecord:
    return LossRecord(
        factory.name,
        factory,
        description,
        counts=factory.needs_counts,
        several_targets=factory.needs_several_targets,
        per_target="n_targets" in inspect.signature(factory).parameters,
    )


#: Every loss that has a name.
LOSSES: Mapping[str, LossRecord] = MappingProxyType(
    {
        record.name: record
        for record in (
            _record(MSE, "mean squared error"),
            _record(L1, "mean absolute error"),
            _record(Huber, "squared error up to delta, linear beyond"),
            _record(Cosine, "1 - cosine of a gene over the batch"),
            _record(Pearson, "1 - correlation of a gene over the batch"),
            _record(PearsonSpot, "1 - correlation of a spot over its genes"),
            _record(Poisson, "-log likelihood of counts"),
            _record(NegativeBinomial, "-log likelihood of counts, dispersion per gene"),
            _record(MSEPearson, "mse and pearson, weighted"),
            _record(MSECosine, "mse and cosine, weighted"),
            _record(L1Cosine, "l1 and cosine, weighted"),
            _record(HuberCosine, "huber and cosine, weighted"),
            _record(PairwiseHinge, "hinge over the pairs of a spot's targets"),
            _record(PairwiseLogistic, "logistic over the pairs of a spot's targets"),
            _record(HybridRank, "mse and a rank loss, by a scheduled weight"),
        )
    }
)


class _Plain(Loss):
    """A module from elsewhere, which takes predicted and measured targets only."""

    name = "plain"

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def compute(self, predicted: Tensor, target: Tensor, log_library: Tensor) -> Tensor:
        """Call the module."""
        loss: Tensor = self.module(predicted, target)
        return loss


def make(loss: str | nn.Module, *, n_targets: int | None = None, **options: Any) -> Loss:
    """Make a loss by its name.

    Parameters
    ----------
    loss
        A name of `LOSSES`, or a module that takes predicted and measured targets, ``(n, g)``
        both, and gives a number: a `Loss` of your own, or for instance `torch.nn.SmoothL1Loss`.
    n_targets
        Number of targets, needed by ``"negative_binomial"``. Where given, losses that compare
        targets with each other are refused for a single one.
    **options
        Of the loss that is named.

    Returns
    -------
    Loss
        New, unless a `Loss` was given.

    Raises
    ------
    ValueError
        If the name is unknown, ``n_targets`` is needed and missing, or too small for the loss.
    TypeError
        If ``loss`` is neither a name nor a module, or an option is not one of the loss.

    Examples
    --------
    >>> import torch
    >>> from stpredict.nn import losses
    >>> loss = losses.make("mse_cosine", cosine_weight=0.5)
    >>> measured = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> loss(measured, measured)
    tensor(0.)
    >>> losses.make("mse_pearsen")
    Traceback (most recent call last):
        ...
    ValueError: no loss is named 'mse_pearsen': did you mean 'mse_pearson'? Losses: mse, l1, ...
    """
    if isinstance(loss, str):
        made = _make_named(loss, n_targets, options)
    elif not isinstance(loss, nn.Module):
        msg = f"loss must be a name or an nn.Module, not {type(loss).__name__}: {loss!r}"
        raise TypeError(msg)
    elif options:
        msg = f"{', '.join(options)}: a loss given as a module has its options already."
        raise TypeError(msg)
    else:
        made = loss if isinstance(loss, Loss) else _Plain(loss)
    if n_targets is not None:
        check_several_targets(made, n_targets)
    return made


def _make_named(name: str, n_targets: int | None, options: dict[str, Any]) -> Loss:
    if name not in LOSSES:
        near = difflib.get_close_matches(name.lower(), LOSSES, n=1)
        hint = f" did you mean {near[0]!r}?" if near else ""
        msg = f"no loss is named {name!r}:{hint} Losses: {', '.join(LOSSES)}."
        raise ValueError(msg)
    record = LOSSES[name]
    unknown = [option for option in options if option not in record.options]
    if unknown:
        msg = (
            f"{name} has no option {', '.join(unknown)}; it has "
            f"{', '.join(record.options) or 'none'}."
        )
        raise TypeError(msg)
    if not record.per_target:
        return record.factory(**options)
    if n_targets is None:
        msg = f"{name} learns a parameter per target: give n_targets=."
        raise ValueError(msg)
    return record.factory(n_targets=n_targets, **options)
