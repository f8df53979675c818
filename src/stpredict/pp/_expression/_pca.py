"""Principal components of the expression of one section."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scanpy as sc
import scipy.sparse as sp
from sklearn.utils.sparsefuncs import mean_variance_axis

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

#: Number of components, as scanpy's default.
_N_COMPONENTS = 50


def section_pca(
    values: Any, rows: NDArray[np.intp], *, section: str, seed: int
) -> NDArray[np.float32]:
    """Principal components of a section's rows (n,) of a finite layer, (n, d), d at most 50."""
    expression = canonical(values[rows], np.float32)
    n_components = min(_N_COMPONENTS, min(expression.shape) - 1)  # the most that arpack computes
    n_varying = int(np.count_nonzero(variance(expression)))
    if n_components < 1 or not n_varying:
        raise ValueError(
            f"section {section!r} has no expression to compare: of {expression.shape[1]} genes in "
            f"{len(rows)} spots, {n_varying} vary"
        )
    return np.asarray(sc.pp.pca(expression, n_comps=n_components, random_state=seed))


def variance(values: Any) -> NDArray[np.float64]:
    """Variance of every column, (n_vars,)."""
    if not sp.issparse(values):
        return np.asarray(values).var(axis=0, dtype=np.float64)
    return np.asarray(mean_variance_axis(canonical(values, np.float64), axis=0)[1])


def canonical(values: Any, dtype: DTypeLike = None) -> Any:
    """A copy as CSR matrix, sorted and without duplicates, if sparse; else an array."""
    if not sp.issparse(values):
        return np.asarray(values, dtype=dtype)
    # a matrix, as scanpy 1.11 fails on sparse arrays; a copy, as scipy sorts indices in place
    matrix = sp.csr_matrix(values, dtype=dtype, copy=True)
    matrix.sum_duplicates()
    return matrix
