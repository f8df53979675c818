"""Check that the targets suit a loss, before training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stpredict.nn.losses._base import Loss


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
    >>> losses.check_counts(losses.make("poisson"), np.array([0, 1.5]), where="layers['log1p']")
    Traceback (most recent call last):
        ...
    ValueError: loss='poisson' is a likelihood of counts, but 1 of 2 values of layers['log1p'] ...
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
