"""Prediction intervals: lower and upper offsets per gene."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Low, middle and high predictions have separate bounds, because high expression varies more. On
#: held-out sections of HER2ST C2-C5 and of phantoms, thirds had a better interval score than a
#: single pair of bounds and than bounds proportional to the prediction. Fifths were 1 % better on
#: HER2ST and 0.5 % worse on one phantom, and need more rows.
N_PARTS = 3


@dataclass(frozen=True, eq=False)
class Intervals:
    """Offsets that turn predictions into intervals, per gene.

    Created by :func:`stpredict.uncertainty.conformal`.

    Attributes
    ----------
    level
        Nominal coverage, the share of measured values inside the intervals, such as 0.9.
    edges
        (n_genes, 2) float32, limits between low, middle and high predictions, in the units of the
        genes. NaN for genes without intervals.
    lower, upper
        (n_genes, 3) float32, offsets of low, middle and high predictions. NaN for genes without
        intervals.

    Raises
    ------
    ValueError
        If shapes do not match, the level is not between 0 and 1, a bound is infinite, a lower bound
        exceeds its upper bound, or a gene has NaN in some of its values.
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
        missing = np.isnan(np.hstack([self.edges, self.lower, self.upper]))
        n_bad = int((missing.any(axis=1) & ~missing.all(axis=1)).sum())
        if n_bad:
            raise ValueError(f"{n_bad} genes have NaN in some of edges, lower and upper")
        if (self.lower > self.upper).any():
            raise ValueError("a lower bound exceeds its upper bound")

    def __repr__(self) -> str:
        n_genes = int(self.available.sum())
        return f"Intervals(level={self.level:g}, {n_genes} of {len(self.edges)} genes)"

    @property
    def available(self) -> NDArray[np.bool_]:
        """Genes with intervals, (n_genes,)."""
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
        Two arrays (n, n_genes) float32; NaN for genes without intervals. Bounds are not clipped:
        the lower bound of a ``log1p`` value can be negative, like its prediction.

        Raises
        ------
        ValueError
            If the number of genes differs.
        """
        if np.ndim(predicted) != 2 or np.shape(predicted)[1] != len(self.edges):
            raise ValueError(f"predicted must be (n, {len(self.edges)}), not {np.shape(predicted)}")
        predicted = np.asarray(predicted, dtype=np.float32)
        part = parts_of(predicted, self.edges)
        lower, upper = (
            predicted + np.take_along_axis(offsets.T, part, axis=0)
            for offsets in (self.lower, self.upper)
        )
        return lower, upper


def check_level(level: object) -> None:
    """Require a level between 0 and 1."""
    if isinstance(level, bool) or not isinstance(level, int | float) or not 0 < level < 1:
        raise ValueError(
            f"level={level!r} must be a share between 0 and 1 of values inside intervals, such as "
            "0.9"
        )


def parts_of(predicted: NDArray[np.float32], edges: NDArray[np.float32]) -> NDArray[np.intp]:
    """Low, middle or high part of predictions (n, n_genes): 0, 1 or 2."""
    part = np.zeros(predicted.shape, dtype=np.intp)
    for edge in edges.T:
        part += predicted > edge  # False for NaN
    return part
