"""Prediction intervals: what is added to predictions on both sides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Low, middle and high predictions have errors of their own: expression that is predicted high
#: varies more. On sections left out of HER2ST C2-C5 and of phantoms, thirds had a better interval
#: score than one pair of bounds for all, and than bounds that grow with the prediction. Fifths were
#: 1 % better on HER2ST and 0.5 % worse on one phantom, and need more rows.
N_PARTS = 3


@dataclass(frozen=True, eq=False)
class Intervals:
    """What is added to a prediction to make an interval of it, gene by gene.

    Made by :func:`stpredict.uncertainty.conformal`.

    Attributes
    ----------
    level
        Share of the measured values that the intervals are to hold, such as 0.9.
    edges
        (n_genes, 2) float32, between low and middle, and middle and high predictions, in the units
        of the genes. NaN for genes that have no intervals.
    lower, upper
        (n_genes, 3) float32, what is added to low, middle and high predictions. NaN for genes that
        have no intervals.

    Raises
    ------
    ValueError
        If shapes do not fit each other, the level is none, a bound is infinite, a lower bound lies
        above its upper one, or a gene has only some of its numbers.
    """

    level: float
    edges: NDArray[np.float32]
    lower: NDArray[np.float32]
    upper: NDArray[np.float32]

    def __post_init__(self) -> None:
        check_level(self.level)
        n_genes = len(self.edges)
        for name, width in (("edges", N_PARTS - 1), ("lower", N_PARTS), ("upper", N_PARTS)):
            array = getattr(self, name)
            if array.shape != (n_genes, width):
                raise ValueError(f"{name} must be ({n_genes}, {width}), not {array.shape}")
            if np.isinf(array).any():
                raise ValueError(f"{name} has infinite values")
        numbers = np.hstack([self.edges, self.lower, self.upper])
        n_bad = int((np.isnan(numbers).any(axis=1) & ~np.isnan(numbers).all(axis=1)).sum())
        if n_bad:
            raise ValueError(f"{n_bad} genes have only some of the numbers that an interval needs")
        if (self.lower > self.upper).any():
            raise ValueError("a lower bound lies above its upper one")

    @property
    def known(self) -> NDArray[np.bool_]:
        """Genes that have intervals, (n_genes,)."""
        return np.asarray(~np.isnan(self.edges).any(axis=1))

    def around(
        self, predicted: NDArray[np.floating[Any]]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Lower and upper bounds around predictions.

        Parameters
        ----------
        predicted
            (n, n_genes), in the units of the genes.

        Returns
        -------
        Two arrays (n, n_genes) float32; NaN for genes that have no intervals. Nothing is cut off:
        the lower bound of a ``log1p`` value can lie below 0, as its prediction can.

        Raises
        ------
        ValueError
            If the number of genes is another.
        """
        if np.ndim(predicted) != 2 or np.shape(predicted)[1] != len(self.edges):
            raise ValueError(f"predicted must be (n, {len(self.edges)}), not {np.shape(predicted)}")
        predicted = np.asarray(predicted, dtype=np.float32)
        part = parts_of(predicted, self.edges)
        added = (np.take_along_axis(side.T, part, axis=0) for side in (self.lower, self.upper))
        lower, upper = (predicted + side for side in added)
        return lower, upper


def check_level(level: object) -> None:
    """Require a level between 0 and 1."""
    if isinstance(level, bool) or not isinstance(level, int | float) or not 0 < level < 1:
        raise ValueError(
            f"level={level!r} must be the share of values that intervals are to hold, between 0 "
            "and 1, such as 0.9"
        )


def parts_of(predicted: NDArray[np.float32], edges: NDArray[np.float32]) -> NDArray[np.intp]:
    """Whether predictions (n, n_genes) are low, middle or high: 0, 1, 2."""
    part = np.zeros(predicted.shape, dtype=np.intp)
    for edge in edges.T:
        part += predicted > edge  # never of NaN
    return part
