"""Scores of dense blocks: every row a gene (or a spot), scored on its own."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import rankdata

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Deviations below this share of the largest value are rounding, not variation.
_ROUNDING = 1e-6


def center(values: NDArray[Any]) -> NDArray[np.float64]:
    """Rows less their mean, exactly 0 where a row is constant up to rounding."""
    centered = values.astype(np.float64)
    constant = is_constant(values)
    centered -= centered.mean(axis=1, keepdims=True)
    centered[constant] = 0
    return centered


def is_constant(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Rows that do not vary by more than rounding."""
    least = values.min(axis=1).astype(np.float64)
    most = values.max(axis=1).astype(np.float64)
    return most - least <= _ROUNDING * np.maximum(np.abs(least), np.abs(most))


def rank(values: NDArray[Any]) -> NDArray[np.float64]:
    """Ranks within rows, ties sharing theirs; all the same where a row is constant."""
    ranks = rankdata(values, axis=1)
    ranks[is_constant(values)] = (values.shape[1] + 1) / 2
    return ranks


def correlate(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cosine of centred rows; 0 where one of them is all 0."""
    norm = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    products = np.einsum("ij,ij->i", x, y)
    return np.clip(np.divide(products, norm, out=np.zeros_like(norm), where=norm > 0), -1, 1)


class Pair:
    """Measured and predicted rows, and what several scores need of them, computed once."""

    def __init__(self, measured: NDArray[Any], predicted: NDArray[Any]) -> None:
        self.measured, self.predicted = measured, predicted

    @cached_property
    def centered(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Both sides less their mean."""
        return center(self.measured), center(self.predicted)

    @cached_property
    def difference(self) -> NDArray[np.float64]:
        """Predicted less measured."""
        return self.predicted.astype(np.float64) - self.measured

    @cached_property
    def ranks(self) -> NDArray[np.float64]:
        """Of the predicted values."""
        return rank(self.predicted)

    def pcc(self) -> NDArray[np.float64]:
        """Pearson correlation."""
        return correlate(*self.centered)

    def spearman(self) -> NDArray[np.float64]:
        """Pearson correlation of ranks."""
        return correlate(center(rank(self.measured)), center(self.ranks))

    def rmse(self) -> NDArray[np.float64]:
        """Root mean squared error."""
        return np.sqrt(np.mean(self.difference**2, axis=1))

    def mae(self) -> NDArray[np.float64]:
        """Mean absolute error."""
        return np.mean(np.abs(self.difference), axis=1)

    def explained_variance(self) -> NDArray[np.float64]:
        """Share of the measured variance that the error leaves out; 0 where there is none."""
        variance = np.mean(self.centered[0] ** 2, axis=1)
        left = np.divide(
            self.difference.var(axis=1), variance, out=np.ones_like(variance), where=variance > 0
        )
        return 1 - left

    def variance_ratio(self) -> NDArray[np.float64]:
        """Predicted variance over measured; NaN where there is none measured."""
        measured, predicted = (np.mean(side**2, axis=1) for side in self.centered)
        return np.divide(
            predicted, measured, out=np.full_like(measured, np.nan), where=measured > 0
        )

    def auc(self) -> NDArray[np.float64]:
        """Area under the ROC curve of non-zero against zero; NaN where there is only one."""
        expressed = self.measured != 0
        n_expressed = expressed.sum(axis=1).astype(np.float64)
        n_zero = expressed.shape[1] - n_expressed
        # Mann and Whitney's U, less the ranks that the expressed spots have among themselves
        above = np.sum(self.ranks, axis=1, where=expressed) - n_expressed * (n_expressed + 1) / 2
        pairs = n_expressed * n_zero
        return np.divide(above, pairs, out=np.full_like(pairs, np.nan), where=pairs > 0)
