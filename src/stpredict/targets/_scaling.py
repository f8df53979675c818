"""Mean, centre and scale of each gene, from dense or sparse values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpredict.targets._matrix import Matrix, column_blocks
from stpredict.targets._standard import Standard

#: Names of the scalings of genes.
SCALINGS = ("standard", "robust", "none")

#: Interquartile range of the standard normal distribution.
_NORMAL_IQR = 1.3489795


@dataclass(frozen=True, eq=False)
class ColumnStatistics:
    """Statistics of columns in training."""

    mean: NDArray[np.float32]
    constant: NDArray[np.bool_]
    scaling: Standard

    @property
    def varying_scale(self) -> NDArray[np.float32]:
        """(n_columns,) scale of each column, 0 if it is constant."""
        return np.where(self.constant, np.float32(0), self.scaling.scale)


def describe_columns(values: Matrix, scaling: str) -> ColumnStatistics:
    """Statistics of columns (n_rows, n_columns); see `fit` for the scalings.

    The scale of a constant column is 0, except with ``"none"``.
    """
    # percentiles need dense columns
    parts = [_describe_block(block, scaling) for block in column_blocks(values)]
    mean, constant, center, scale = (np.concatenate(part) for part in zip(*parts, strict=True))
    return ColumnStatistics(mean, constant, Standard(center, scale))


def _describe_block(block: NDArray[np.float32], scaling: str) -> tuple[NDArray[Any], ...]:
    """Mean, constancy, centre and scale of each column."""
    standard = Standard.fit(block)
    center, scale = standard.mean, standard.scale
    if scaling == "robust":
        low, median, high = np.percentile(block.astype(np.float64), [25, 50, 75], axis=0)
        spread = (high - low) / _NORMAL_IQR
        # the range is 0, up to rounding, for a gene detected in less than a quarter of the spots
        spread = np.where(spread <= 1e-6 * scale, scale, spread)
        center = np.where(standard.constant, center, median).astype(np.float32)
        scale = np.where(standard.constant, 0, spread).astype(np.float32)
    elif scaling == "none":
        center, scale = np.zeros_like(center), np.ones_like(scale)
    return standard.mean, standard.constant, center, scale
