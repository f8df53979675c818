"""Mean, centre and scale of each gene, from dense or sparse values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stpredict.targets._matrix import Matrix, column_blocks
from stpredict.targets._standard import Standard

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Names of the scalings of genes.
SCALINGS = ("standard", "robust", "none")

#: Interquartile range of the standard normal distribution.
_NORMAL_IQR = 1.3489795


@dataclass(frozen=True, eq=False)
class ColumnStatistics:
    """Statistics of columns in training.

    Attributes
    ----------
    mean
        (n_columns,) float32.
    constant
        (n_columns,) bool.
    scaling
        Centre and scale of each column.
    """

    mean: NDArray[np.float32]
    constant: NDArray[np.bool_]
    scaling: Standard

    @property
    def varying_scale(self) -> NDArray[np.float32]:
        """(n_columns,) scale of each column, 0 if it is constant."""
        return np.where(self.constant, np.float32(0), self.scaling.scale)


def describe_columns(values: Matrix, scaling: str) -> ColumnStatistics:
    """Compute the statistics of columns.

    Parameters
    ----------
    values
        (n_rows, n_columns), dense or CSR.
    scaling
        ``"standard"``: mean and standard deviation. ``"robust"``: median, and interquartile range
        over 1.349, which equals the standard deviation for a normal distribution; the standard
        deviation if the range is 0. ``"none"``: 0 and 1. The scale of a constant column is 0,
        except with ``"none"``.
    """
    # percentiles need dense columns
    parts = [_describe_block(block, scaling) for block in column_blocks(values)]
    return ColumnStatistics(
        mean=np.concatenate([part.mean for part in parts]),
        constant=np.concatenate([part.constant for part in parts]),
        scaling=Standard(
            np.concatenate([part.scaling.mean for part in parts]),
            np.concatenate([part.scaling.scale for part in parts]),
        ),
    )


def _describe_block(block: NDArray[np.float32], scaling: str) -> ColumnStatistics:
    standard = Standard.fit(block)
    result = standard
    if scaling == "robust":
        low, median, high = np.percentile(block.astype(np.float64), [25, 50, 75], axis=0)
        scale = (high - low) / _NORMAL_IQR
        # the range is 0, up to rounding, for a gene detected in less than a quarter of the spots
        scale = np.where(scale <= 1e-6 * standard.scale, standard.scale, scale)
        result = Standard(
            np.where(standard.constant, standard.mean, median).astype(np.float32),
            np.where(standard.constant, 0, scale).astype(np.float32),
        )
    elif scaling == "none":
        result = Standard(np.zeros_like(standard.mean), np.ones_like(standard.scale))
    return ColumnStatistics(mean=standard.mean, constant=standard.constant, scaling=result)
