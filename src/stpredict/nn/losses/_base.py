"""What every loss keeps to: its call, its checks, its precision."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from stpredict.nn._check import check_shape


class Loss(nn.Module):
    """A loss of predicted and measured targets, averaged over the spots of a batch.

    A loss of your own gives ``compute``; checks and precision are done here.

    Attributes
    ----------
    name
        By which `make` knows it.
    needs_counts
        Whether it is a likelihood of untransformed counts: the network's outputs are then
        logarithms of rates, and the spots' library sizes are needed.
    needs_several_targets
        Whether it compares the targets of a spot with each other.
    progress
        Share of the training that is done, 0 to 1, told by the trainer at the start of every
        epoch. Losses without a schedule take no notice.

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

    def forward(
        self, predicted: Tensor, target: Tensor, log_library: Tensor | None = None
    ) -> Tensor:
        """Loss of a batch.

        Parameters
        ----------
        predicted
            ``(n, g)`` floating point. Half precision, as under autocast, is computed with in
            float32.
        target
            ``(n, g)``.
        log_library
            ``(n,)`` or ``(n, 1)``, logarithm of every spot's library size, for the losses that
            need counts; the others take no notice.

        Returns
        -------
        Tensor
            A number, float32 or float64: of n spots the mean over them. For losses that compare
            spots with each other (``pearson``, ``cosine``), that of the batch.

        Raises
        ------
        ValueError
            If shapes differ, there is no spot, or a library size is needed and missing.
        """
        check_shape("predicted", predicted, (None, None))
        check_shape("target", target, tuple(predicted.shape))
        if predicted.numel() == 0:
            msg = f"predicted is {tuple(predicted.shape)}: a loss needs a spot and a target."
            raise ValueError(msg)
        dtype = torch.promote_types(predicted.dtype, torch.float32)
        offset = predicted.new_zeros(len(predicted), 1)
        if self.needs_counts:
            offset = _offset(self.name, log_library, len(predicted))
        return self.compute(predicted.to(dtype), target.to(dtype), offset.to(dtype))

    def compute(self, predicted: Tensor, target: Tensor, log_library: Tensor) -> Tensor:
        """Give the loss of ``(n, g)`` and ``(n, g)`` in float32 or float64.

        ``log_library`` is ``(n, 1)``, zeros unless ``needs_counts``.
        """
        raise NotImplementedError


def _offset(name: str, log_library: Tensor | None, n: int) -> Tensor:
    if log_library is None:
        msg = (
            f"{name} needs log_library, the logarithm of every spot's library size "
            "(zeros if all are alike)."
        )
        raise ValueError(msg)
    if log_library.ndim == 1:
        log_library = log_library.unsqueeze(1)
    check_shape("log_library", log_library, (n, 1))
    return log_library


def check_weights(**weights: float) -> None:
    """Raise unless weights are finite, not negative, and not all zero."""
    for name, weight in weights.items():
        if not 0 <= weight < float("inf"):  # NaN is not
            msg = f"{name}={weight!r} must be a finite number of at least 0."
            raise ValueError(msg)
    if not any(weights.values()):
        msg = f"{' and '.join(weights)} are all 0: nothing would be learnt."
        raise ValueError(msg)
