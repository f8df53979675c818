"""Centre and spread of every gene, of dense and sparse values alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from stpredict.targets._base import dense
from stpredict.targets._standard import Standard

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

#: How genes can be scaled.
SCALINGS = ("standard", "robust", "none")

#: Interquartile range of a normal distribution of standard deviation 1.
_NORMAL_IQR = 1.3489795

#: Elements of a dense block: 32 MB as float64.
_BLOCK = 1 << 22


@dataclass(frozen=True, eq=False)
class Columns:
    """What is known of every column in training.

    Attributes
    ----------
    mean
        (n_columns,) float32.
    constant
        (n_columns,) bool.
    scaling
        Centre and spread by the chosen scaling.
    """

    mean: NDArray[np.float32]
    constant: NDArray[np.bool_]
    scaling: Standard


def describe(values: Any, scaling: str) -> Columns:
    """Describe columns.

    Parameters
    ----------
    values
        (n_rows, n_columns), dense or CSR.
    scaling
        ``"standard"``: mean and standard deviation. ``"robust"``: median, and interquartile range
        over 1.349, which is the standard deviation of what is normally distributed; where the
        range is 0, the standard deviation. ``"none"``: 0 and 1. The spread of a constant column
        is 0, except for ``"none"``.
    """
    parts = [_describe(block, scaling) for block in column_blocks(values)]
    return Columns(
        mean=np.concatenate([part.mean for part in parts]),
        constant=np.concatenate([part.constant for part in parts]),
        scaling=Standard(
            np.concatenate([part.scaling.mean for part in parts]),
            np.concatenate([part.scaling.scale for part in parts]),
        ),
    )


def _describe(block: NDArray[np.float32], scaling: str) -> Columns:
    standard = Standard.fit(block)
    if scaling == "robust":
        low, median, high = np.percentile(block.astype(np.float64), [25, 50, 75], axis=0)
        spread = (high - low) / _NORMAL_IQR
        # of a gene found in less than a quarter of the spots; or what rounding leaves of it
        spread = np.where(spread <= 1e-6 * standard.scale, standard.scale, spread)
        chosen = Standard(
            np.where(standard.constant, standard.mean, median).astype(np.float32),
            np.where(standard.constant, 0, spread).astype(np.float32),
        )
    elif scaling == "none":
        chosen = Standard(np.zeros_like(standard.mean), np.ones_like(standard.scale))
    else:
        chosen = standard
    return Columns(mean=standard.mean, constant=standard.constant, scaling=chosen)


def column_blocks(values: Any) -> Iterator[NDArray[np.float32]]:
    """Dense blocks of columns, all rows of each."""
    values = values.tocsc() if sp.issparse(values) else values
    step = max(1, _BLOCK // max(1, values.shape[0]))
    for start in range(0, values.shape[1], step):
        yield dense(values[:, start : start + step])


def row_blocks(values: Any) -> Iterator[tuple[slice, Any]]:
    """Blocks of rows as float64, dense or CSR as they are given, and where they lie."""
    step = max(1, _BLOCK // max(1, values.shape[1]))
    for start in range(0, values.shape[0], step):
        rows = slice(start, start + step)
        yield rows, values[rows].astype(np.float64)


def project(values: Any, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Matrix product (n, n_columns) with (n_columns, k), some rows at a time."""
    found = np.empty((values.shape[0], weights.shape[1]))
    for rows, block in row_blocks(values):
        found[rows] = block @ weights
    return found


def divided(values: Any, spread: NDArray[np.float32]) -> Any:
    """Columns over their spread, float64, dense or CSR as they are given; over 0 it is 0."""
    weights = inverted(spread)
    if not sp.issparse(values):
        return values * weights
    scaled = values.astype(np.float64, copy=True)
    scaled.data *= weights[scaled.indices]
    return scaled


def inverted(spread: NDArray[np.float32]) -> NDArray[np.float64]:
    """One over the spread, float64; over 0 it is 0."""
    spread = np.asarray(spread, dtype=np.float64)
    return np.where(spread > 0, 1 / np.where(spread > 0, spread, 1), 0.0)
