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
        Whether it is a likelihood of untransformed counts. The network's outputs are then
        logarithms of rates, and the spots' library sizes are needed.
    needs_several_targets
        Whether it compares the targets of a spot with each other.
    progress
        Fraction of the training that is done, 0 to 1, set by the trainer at the start of each
        epoch. Losses without a schedule ignore it.

    Examples
    --------
    >>> import torch
    >>> from stpredict.nn import losses
    >>> class Worst(losses.Loss):
    ...     name = "worst"
    ...
    ...     def compute(self, predicted, target, log_library):
    ...         return (predicted - target).abs().amax(1).mean()
    >>> Worst()(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 5.0]]))
    tensor(3.)
    """

    name: ClassVar[str]
    needs_counts: ClassVar[bool] = False
    needs_several_targets: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        self.progress: float = 0.0

    @classmethod
    def options(cls) -> tuple[str, ...]:
        """Names of the arguments that the loss is made with."""
        return tuple(inspect.signature(cls).parameters)

    def forward(
        self, predicted: Tensor, target: Tensor, log_library: Tensor | None = None
    ) -> Tensor:
        """Loss of a batch.

        Parameters
        ----------
        predicted
            ``(n, g)`` floating point. Half precision, as under autocast, is converted to float32.
        target
            ``(n, g)``.
        log_library
            ``(n,)`` or ``(n, 1)``, logarithm of each spot's library size, for losses that need
            counts; the others ignore it.

        Returns
        -------
        Tensor
            Scalar, float32 or float64: the mean over the spots. For losses that compare spots
            with each other (``pearson``, ``cosine``), the value of the batch.

        Raises
        ------
        ValueError
            If shapes differ, the batch is empty, or a required library size is missing.
        """
        check_shape("predicted", predicted, (None, None))
        check_shape("target", target, tuple(predicted.shape))
        if predicted.numel() == 0:
            raise ValueError(
                f"predicted is {tuple(predicted.shape)}: a loss needs a spot and a target."
            )
        # half precision is too coarse for sums over a batch
        dtype = torch.promote_types(predicted.dtype, torch.float32)
        offset = predicted.new_zeros(len(predicted), 1)
        if self.needs_counts:
            offset = _offset(self.name, log_library, len(predicted))
        return self.compute(predicted.to(dtype), target.to(dtype), offset.to(dtype))

    def compute(self, predicted: Tensor, target: Tensor, log_library: Tensor) -> Tensor:
        """Compute the loss of ``(n, g)`` and ``(n, g)`` in float32 or float64.

        ``log_library`` is ``(n, 1)``, zeros unless ``needs_counts``.
        """
        raise NotImplementedError


def _offset(name: str, log_library: Tensor | None, n: int) -> Tensor:
    if log_library is None:
        raise ValueError(
            f"{name} needs log_library, the logarithm of each spot's library size (zeros if all "
            "are equal)."
        )
    if log_library.ndim == 1:
        log_library = log_library.unsqueeze(1)
    check_shape("log_library", log_library, (n, 1))
    return log_library
