"""Scores of dense blocks in which every row is a gene or a spot."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import rankdata

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: A range below this share of the largest value is rounding error.
_ROUNDING = 1e-6


def center(values: NDArray[Any]) -> NDArray[np.float64]:
    """Rows minus their mean; exactly 0 if a row is constant up to rounding."""
    centered = values.astype(np.float64)
    constant = is_constant(values)  # rounding of the mean must not look like variation
    centered -= centered.mean(axis=1, keepdims=True)
    centered[constant] = 0
    return centered


def is_constant(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Rows that vary by no more than rounding error."""
    low = values.min(axis=1).astype(np.float64)
    high = values.max(axis=1).astype(np.float64)
    return high - low <= _ROUNDING * np.maximum(np.abs(low), np.abs(high))


def rank(values: NDArray[Any]) -> NDArray[np.float64]:
    """Ranks within rows, mean ranks for ties; all equal if a row is constant."""
    ranks = rankdata(values, axis=1)
    ranks[is_constant(values)] = (values.shape[1] + 1) / 2
    return ranks


def correlate(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cosine similarity of centred rows; 0 if one of them is all 0."""
    norm = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    products = np.einsum("ij,ij->i", x, y)
    cosine = np.divide(products, norm, out=np.zeros_like(norm), where=norm > 0)
    return np.clip(cosine, -1, 1)


class Pair:
    """Measured and predicted rows, with cached intermediate results that scores share."""

    def __init__(self, measured: NDArray[Any], predicted: NDArray[Any]) -> None:
        self.measured, self.predicted = measured, predicted

    @cached_property
    def centered(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Centred measured and predicted rows."""
        return center(self.measured), center(self.predicted)

    @cached_property
    def difference(self) -> NDArray[np.float64]:
        """Predicted minus measured values."""
        return self.predicted.astype(np.float64) - self.measured

    @cached_property
    def predicted_ranks(self) -> NDArray[np.float64]:
        """Ranks of the predicted values within rows."""
        return rank(self.predicted)

    def pcc(self) -> NDArray[np.float64]:
        """Pearson correlation."""
        return correlate(*self.centered)

    def spearman(self) -> NDArray[np.float64]:
        """Pearson correlation of ranks."""
        return correlate(center(rank(self.measured)), center(self.predicted_ranks))

    def rmse(self) -> NDArray[np.float64]:
        """Root mean squared error."""
        return np.sqrt(np.mean(self.difference**2, axis=1))

    def mae(self) -> NDArray[np.float64]:
        """Mean absolute error."""
        return np.mean(np.abs(self.difference), axis=1)

    def explained_variance(self) -> NDArray[np.float64]:
        """Share of the measured variance that is explained; 0 if there is no variance."""
        variance = np.mean(self.centered[0] ** 2, axis=1)
        unexplained = np.divide(
            self.difference.var(axis=1), variance, out=np.ones_like(variance), where=variance > 0
        )
        return 1 - unexplained

    def variance_ratio(self) -> NDArray[np.float64]:
        """Predicted variance divided by measured variance; NaN if the latter is 0."""
        measured, predicted = (np.mean(side**2, axis=1) for side in self.centered)
        return np.divide(
            predicted, measured, out=np.full_like(measured, np.nan), where=measured > 0
        )

    def auc(self) -> NDArray[np.float64]:
        """Area under the ROC curve of non-zero against zero; NaN if one of them is absent."""
        expressed = self.measured != 0
        n_expressed = expressed.sum(axis=1).astype(np.float64)
        n_zero = expressed.shape[1] - n_expressed
        # Mann-Whitney U: rank sum minus the ranks of expressed spots among themselves
        rank_sum = np.sum(self.predicted_ranks, axis=1, where=expressed)
        u = rank_sum - n_expressed * (n_expressed + 1) / 2
        pairs = n_expressed * n_zero
        return np.divide(u, pairs, out=np.full_like(pairs, np.nan), where=pairs > 0)
