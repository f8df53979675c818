"""Prediction intervals: lower and upper offsets per gene."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from stpredict._arguments import checked

if TYPE_CHECKING:
    from numpy.typing import NDArray

    #: Measured values, predictions, embeddings or bounds.
    Floats: TypeAlias = NDArray[np.floating[Any]]

#: Low, middle and high predictions have separate bounds, because high expression varies more. On
#: held-out sections of HER2ST C2-C5 and of phantoms, thirds had a better interval score than one
#: pair of bounds or bounds proportional to the prediction. Fifths, which need more rows, were 1 %
#: better on HER2ST and 0.5 % worse on one phantom.
N_PARTS = 3


@dataclass(frozen=True, eq=False)
class Intervals:
    """Offsets from predictions to intervals, as returned by `conformal`; NaN for genes without.

    Attributes
    ----------
    level
        Nominal coverage, the share of measured values inside the intervals, such as 0.9.
    edges
        (n_genes, 2) float32, limits between low, middle and high predictions.
    lower, upper
        (n_genes, 3) float32, offsets of low, middle and high predictions.

    Raises
    ------
    ValueError
        If shapes or NaN do not match, the level is not between 0 and 1, a bound is infinite, or a
        lower bound exceeds its upper bound.
    """

    level: float
    edges: NDArray[np.float32]
    lower: NDArray[np.float32]
    upper: NDArray[np.float32]

    def __post_init__(self) -> None:
        check_level(self.level)
        for name, width in (("edges", N_PARTS - 1), ("lower", N_PARTS), ("upper", N_PARTS)):
            check_shape(name, getattr(self, name), len(self.edges), width)
        values = np.hstack([self.edges, self.lower, self.upper])
        if np.isinf(values).any():
            raise ValueError("edges, lower or upper have infinite values")
        missing = np.isnan(values)  # of genes with too few rows
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
        self, predicted: Floats, width: Floats | float = 1.0
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Lower and upper bounds around predictions.

        Parameters
        ----------
        predicted
            (n, n_genes), in the units of the genes.
        width
            Factor of the distances between predictions and bounds, at least 1, or one per
            prediction, (n, 1); NaN for predictions without intervals.

        Returns
        -------
        Two arrays (n, n_genes) float32; NaN for genes without intervals. Bounds are not clipped.

        Raises
        ------
        ValueError
            If the number of genes differs.
        """
        check_shape("predicted", predicted, "n", len(self.edges))
        predicted = np.asarray(predicted, dtype=np.float32)
        part = parts_of(predicted, self.edges)
        # the offset of the part of each prediction
        lower, upper = (np.take_along_axis(x.T, part, axis=0) for x in (self.lower, self.upper))
        # both bounds may lie on one side of the prediction
        more = np.asarray(width, dtype=np.float32) - np.float32(1)
        return (
            predicted + (lower - more * np.abs(lower)),
            predicted + (upper + more * np.abs(upper)),
        )


@checked
def coverage(measured: Floats, lower: Floats, upper: Floats) -> NDArray[np.float64]:
    """Share of the measured values of every gene inside their intervals, including the bounds.

    Parameters
    ----------
    measured
        (n, n_genes) measured values. May be NaN for genes without intervals.
    lower, upper
        (n, n_genes) bounds, such as ``layers["lower"]`` and ``layers["upper"]`` of predictions.

    Returns
    -------
    (n_genes,) float64 in [0, 1]; NaN for genes without intervals, and without rows.

    Raises
    ------
    ValueError
        If shapes differ, measured values are NaN, or a gene has intervals in some rows only.

    Examples
    --------
    >>> import numpy as np
    >>> from stpredict import uncertainty
    >>> measured = np.array([[0.0], [1.0], [2.0], [9.0]])
    >>> uncertainty.coverage(measured, np.zeros((4, 1)), np.full((4, 1), 2.0))
    array([0.75])
    """
    shapes = [np.shape(array) for array in (measured, lower, upper)]
    if len(shapes[0]) != 2 or len(set(shapes)) > 1:
        listed = ", ".join(map(str, shapes))
        raise ValueError(f"measured, lower and upper must all be (n, n_genes): {listed}")
    missing = np.isnan(lower) | np.isnan(upper)
    n_bad = int(np.count_nonzero(~np.isfinite(measured) & ~missing))
    if n_bad:
        raise ValueError(f"{n_bad} measured values are NaN or infinite")
    n_partial = int((missing.any(axis=0) & ~missing.all(axis=0)).sum())
    if n_partial:
        raise ValueError(f"{n_partial} genes have intervals in some rows only")
    inside = (lower <= measured) & (measured <= upper)
    shares = inside.sum(axis=0) / (len(inside) or np.nan)  # NaN without rows
    return np.where(missing.any(axis=0), np.nan, shares)


def check_level(level: object) -> None:
    """Require a level between 0 and 1."""
    if isinstance(level, bool) or not isinstance(level, int | float) or not 0 < level < 1:
        raise ValueError(f"level must be a share between 0 and 1, such as 0.9: {level!r}")


def check_shape(name: str, array: NDArray[Any], *shape: int | str) -> None:
    """Require a shape; the length of an axis that is given by a letter is free."""
    actual = np.shape(array)
    lengths = tuple(a if isinstance(n, str) else n for n, a in zip(shape, actual, strict=False))
    if actual != lengths or len(actual) != len(shape):
        expected = str(shape).replace("'", "")
        raise ValueError(f"{name} must be {expected}, not {actual}")


def parts_of(predicted: NDArray[np.float32], edges: NDArray[np.float32]) -> NDArray[np.intp]:
    """Low, middle or high part of predictions (n, n_genes): 0, 1 or 2."""
    part = np.zeros(predicted.shape, dtype=np.intp)
    for edge in edges.T:
        part += predicted > edge  # False for NaN
    return part
