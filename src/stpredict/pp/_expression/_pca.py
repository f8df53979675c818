"""Principal components of the expression of one section."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scanpy as sc
import scipy.sparse as sp
from sklearn.utils.sparsefuncs import mean_variance_axis

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Number of components, as scanpy's default.
_N_COMPONENTS = 50


def section_pca(
    values: Any, rows: NDArray[np.intp], *, section: str, seed: int
) -> NDArray[np.float32]:
    """Principal components of some rows of a layer, (n, d), d at most 50.

    Parameters
    ----------
    values
        Layer (n_obs, n_vars), dense or sparse, finite.
    rows
        Rows of the section, (n,).
    section
        Name of the section, for messages.
    seed
        Random seed of the solver.
    """
    expression = values[rows]
    if sp.issparse(expression):  # scanpy 1.11 fails on scipy's sparse arrays
        expression = sp.csr_matrix(expression, dtype=np.float32, copy=True)
        expression.sum_duplicates()
    else:
        expression = np.asarray(expression, dtype=np.float32)
    n_components = min(_N_COMPONENTS, min(expression.shape) - 1)  # the most that arpack computes
    n_varying = int(np.count_nonzero(variance(expression)))
    if n_components < 1 or not n_varying:
        raise ValueError(
            f"section {section!r} has no expression to compare: of its {expression.shape[1]} genes "
            f"in {len(rows)} spots, {n_varying} vary. At least two spots and genes are needed"
        )
    return np.asarray(sc.pp.pca(expression, n_comps=n_components, random_state=seed))


def variance(values: Any) -> NDArray[np.float64]:
    """Variance of every column, (n_vars,)."""
    if not sp.issparse(values):
        return np.asarray(values).var(axis=0, dtype=np.float64)
    # a copy: scipy sorts indices in place, and a conversion would share them with the layer
    sparse = sp.csr_matrix(values, dtype=np.float64, copy=True)
    sparse.sum_duplicates()
    return np.asarray(mean_variance_axis(sparse, axis=0)[1])
