"""The base of all losses: call, checks and precision."""

from __future__ import annotations

import inspect
from typing import ClassVar

import torch
from torch import Tensor, nn

from stpredict.nn._check import check_shape


class Loss(nn.Module):
    """A loss of predicted and measured targets, averaged over the spots of a batch.

    A custom loss defines ``compute``; checks and precision are handled here.

    Attributes
    ----------
    name
        Name for `make`.
    needs_counts
        Whether it is a likelihood of raw counts; outputs are then logarithms of rates.
    needs_several_targets
        Whether it compares the targets of a spot with each other.
    needs_binary
        Whether it is a likelihood of targets of 0 and 1; outputs are then logarithms of odds.
    within_sections
        Whether it compares spots, but only those of the same section.
    progress
        Fraction of the training that is done, 0 to 1, set at the start of each epoch.

    Examples
    --------
    >>> import torch
    >>> from stpredict.nn import losses
    >>> class Worst(losses.Loss):
    ...     def compute(self, predicted, target, log_library):
    ...         return (predicted - target).abs().amax(1).mean()
    >>> Worst()(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 5.0]]))
    tensor(3.)
    """

    name: ClassVar[str]
    needs_counts: ClassVar[bool] = False
    needs_several_targets: ClassVar[bool] = False
    needs_binary: ClassVar[bool] = False
    within_sections: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        self.progress: float = 0.0

    @classmethod
    def options(cls) -> tuple[str, ...]:
        """Names of the arguments that the loss is made with."""
        return tuple(inspect.signature(cls).parameters)

    def forward(
        self,
        predicted: Tensor,
        target: Tensor,
        log_library: Tensor | None = None,
        section: Tensor | None = None,
    ) -> Tensor:
        """Loss of a batch.

        Parameters
        ----------
        predicted, target
            ``(n, g)`` floating point. Half precision, as under autocast, is converted to float32.
        log_library
            ``(n,)`` or ``(n, 1)``, logarithm of each spot's library size, for losses of counts.
        section
            ``(n,)``, number of each spot's section, for losses within sections: these are computed
            for every section, and averaged with the numbers of spots as weights. By default all
            spots are of one section.

        Returns
        -------
        Tensor
            Scalar, float32 or float64.

        Raises
        ------
        ValueError
            If shapes differ, the batch is empty, or a required library size is missing.
        """
        check_shape("predicted", predicted, (None, None))
        check_shape("target", target, tuple(predicted.shape))
        if predicted.numel() == 0:
            raise ValueError(f"A loss needs a spot and a target, not {tuple(predicted.shape)}.")
        # half precision is too coarse for sums over a batch
        dtype = torch.promote_types(predicted.dtype, torch.float32)
        offset = predicted.new_zeros(len(predicted), 1)
        if self.needs_counts:
            if log_library is None:
                raise ValueError(f"{self.name} needs log_library: pass the sizes, or zeros.")
            offset = log_library.unsqueeze(1) if log_library.ndim == 1 else log_library
            check_shape("log_library", offset, (len(predicted), 1))
        values = predicted.to(dtype), target.to(dtype), offset.to(dtype)
        if section is None or not self.within_sections:
            return self.compute(*values)
        check_shape("section", section, (len(predicted),))
        masks = [section == number for number in section.unique()]
        costs = [self.compute(*(part[mask] for part in values)) * mask.sum() for mask in masks]
        return torch.stack(costs).sum() / len(predicted)

    def compute(self, predicted: Tensor, target: Tensor, log_library: Tensor) -> Tensor:
        """Loss of ``(n, g)`` each; ``log_library`` is ``(n, 1)``, 0 unless ``needs_counts``."""
        raise NotImplementedError
