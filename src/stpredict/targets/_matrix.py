"""Operations on matrices of rows by genes, dense or sparse, in blocks of bounded size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

#: A dense array or a CSR matrix, (n_rows, n_columns); scipy has no types.
Matrix: TypeAlias = Any

#: Elements of a block, 32 MB as float64.
BLOCK = 1 << 22


def as_matrix(values: Matrix) -> Matrix:
    """Convert to a two-dimensional array or CSR, without a copy if possible."""
    if sp.issparse(values):
        return sp.csr_matrix(values)
    values = np.asarray(values)
    if values.ndim != 2:
        raise ValueError(f"values must be a matrix of rows by genes, not of shape {values.shape}")
    return values


def dense(values: Matrix) -> NDArray[np.float32]:
    """Dense float32 values in C order."""
    values = values.toarray() if sp.issparse(values) else values
    return np.ascontiguousarray(values, dtype=np.float32)


def column_blocks(values: Matrix) -> Iterator[NDArray[np.float32]]:
    """Dense blocks of columns with all rows."""
    # slicing columns of CSR is slow
    values = values.tocsc() if sp.issparse(values) else values
    step = max(1, BLOCK // max(1, values.shape[0]))
    for start in range(0, values.shape[1], step):
        yield dense(values[:, start : start + step])


def project(values: Matrix, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Product of (n, n_columns) and (n_columns, k) in float64, in blocks of rows."""
    projected = np.empty((values.shape[0], weights.shape[1]))
    step = max(1, BLOCK // max(1, values.shape[1]))
    for start in range(0, len(projected), step):
        rows = slice(start, start + step)
        projected[rows] = values[rows].astype(np.float64) @ weights
    return projected


def scale_columns(values: Matrix, weights: NDArray[np.float64]) -> Matrix:
    """Multiply columns by weights, in float64; sparse values stay sparse."""
    if not sp.issparse(values):
        return values * weights
    scaled = values.astype(np.float64, copy=True)
    scaled.data *= weights[scaled.indices]
    return scaled


def reciprocal(scale: NDArray[np.float32]) -> NDArray[np.float64]:
    """1 / scale in float64, and 0 for a scale of 0."""
    scale = np.asarray(scale, dtype=np.float64)
    return np.divide(1, scale, out=np.zeros_like(scale), where=scale > 0)
