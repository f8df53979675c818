"""Checks of what a loss is to be trained on, before training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stpredict.nn.losses._base import Loss


def check_several_targets(loss: Loss, n_targets: int) -> None:
    """Require two targets or more for a loss that compares the targets of a spot.

    Parameters
    ----------
    loss
        Made by `make`.
    n_targets
        Number of targets.

    Raises
    ------
    ValueError
        If the loss needs several targets and there are fewer than two.

    Examples
    --------
    >>> from stpredict.nn import losses
    >>> losses.check_several_targets(losses.make("mse"), 1)
    >>> losses.check_several_targets(losses.make("pairwise_hinge"), 1)
    Traceback (most recent call last):
        ...
    ValueError: loss='pairwise_hinge' compares the targets of a spot with each other, ...
    """
    if loss.needs_several_targets and n_targets < 2:
        raise ValueError(
            f"loss={loss.name!r} compares the targets of a spot with each other, but n_targets="
            f"{n_targets}: predict two or more, or take a loss such as 'mse' or 'pearson'"
        )


def check_counts(loss: Loss, values: NDArray[np.number], *, where: str) -> None:
    """Require whole counts for a loss that is a likelihood of counts.

    Parameters
    ----------
    loss
        Made by `make`.
    values
        The targets before any scaling, of any shape; of a sparse matrix, its ``data``.
    where
        Where they come from, such as ``"layers['log1p']"``.

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
    wrong = ~(values >= 0) | (values != np.floor(values)) | ~np.isfinite(values)
    n_wrong = int(np.count_nonzero(wrong))
    if n_wrong:
        raise ValueError(
            f"loss={loss.name!r} is a likelihood of counts, but {n_wrong} of {values.size} values "
            f"of {where} are no whole numbers of at least 0, such as {values[wrong][0]:.4g}: give "
            "the layer of untransformed counts, layer=None for X as the readers leave it, or take "
            "a loss such as 'mse'"
        )


def log_library(totals: NDArray[np.number], reference: float) -> NDArray[np.float32]:
    """Logarithm of every spot's library size over that of a reference.

    Parameters
    ----------
    totals
        (n,) counts of every spot, over all genes, not only over those to predict.
    reference
        Library size in counts that stands for 1, such as the median over training spots: the
        network's outputs are then log-counts of such a spot.

    Returns
    -------
    (n,) float32.

    Raises
    ------
    ValueError
        If a spot has no counts, or the reference is not above 0.

    Examples
    --------
    >>> import numpy as np
    >>> from stpredict.nn import losses
    >>> losses.log_library(np.array([1000, 2000]), 1000)
    array([0.       , 0.6931472], dtype=float32)
    """
    totals = np.asarray(totals, dtype=np.float64)
    if not 0 < reference < np.inf:
        raise ValueError(f"reference={reference!r} must be a finite number of counts above 0")
    n_empty = int(np.count_nonzero(~((totals > 0) & np.isfinite(totals))))
    if n_empty:
        raise ValueError(
            f"{n_empty} of {len(totals)} spots have no counts, so no library size: run "
            "stp.pp.filter_spots(sdata, min_counts=1) first"
        )
    return np.log(totals / reference).astype(np.float32)
