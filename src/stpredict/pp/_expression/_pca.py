"""Principal components of the expression of one section."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scanpy as sc
import scipy.sparse as sp
from sklearn.utils.sparsefuncs import mean_variance_axis

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Components kept, as scanpy's default.
_N_COMPONENTS = 50


def section_pca(
    values: Any, rows: NDArray[np.intp], *, section: str, seed: int
) -> NDArray[np.float32]:
    """Components of some rows of a layer, (n, d), d at most 50.

    Parameters
    ----------
    values
        (n_obs, n_vars), dense or sparse, finite.
    rows
        Rows of the section, (n,).
    section
        Its name, for messages.
    seed
        Of the solver.
    """
    chosen = values[rows]
    if sp.issparse(chosen):  # scanpy 1.11 fails on scipy's sparse arrays
        chosen = sp.csr_matrix(chosen, dtype=np.float32, copy=True)
        chosen.sum_duplicates()
    else:
        chosen = np.asarray(chosen, dtype=np.float32)
    n_components = min(_N_COMPONENTS, min(chosen.shape) - 1)
    if n_components < 1 or not variance(chosen).any():
        raise ValueError(
            f"section {section!r} has no expression to compare: {len(rows)} spots and "
            f"{chosen.shape[1]} genes, of which {int(np.count_nonzero(variance(chosen)))} vary; "
            "it takes two of each that do"
        )
    return np.asarray(sc.pp.pca(chosen, n_comps=n_components, random_state=seed))


def variance(values: Any) -> NDArray[np.float64]:
    """Variance of every column, (n_vars,)."""
    if not sp.issparse(values):
        return np.asarray(values).var(axis=0, dtype=np.float64)
    # a copy: scipy sorts indices in place, and a conversion would share them with the layer
    sparse = sp.csr_matrix(values, dtype=np.float64, copy=True)
    sparse.sum_duplicates()
    _, found = mean_variance_axis(sparse, axis=0)
    return np.asarray(found)
