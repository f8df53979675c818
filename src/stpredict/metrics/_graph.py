"""Spatial graphs, checked and normalised."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import scipy.sparse as sp
from sklearn.preprocessing import normalize

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    #: (n_spots, n_spots) weights.
    Graph: TypeAlias = ArrayLike | sp.sparray | sp.spmatrix


def mean_of_neighbors(graph: Graph, n_spots: int) -> sp.csr_array:
    """Matrix that takes the weighted mean over neighbours; rows of lone spots are empty.

    A spot is not its own neighbour: the diagonal is left out.

    Raises
    ------
    ValueError
        If the graph is not (n_spots, n_spots), or a weight is negative or NaN.
    """
    weights: Any = graph if sp.issparse(graph) else np.asarray(graph)
    shape = weights.shape
    if shape != (n_spots, n_spots):
        raise ValueError(
            f"the graph must be (n_spots, n_spots), here ({n_spots}, {n_spots}): {shape}"
        )
    weights = sp.coo_array(weights, dtype=np.float64)
    n_bad = int(np.count_nonzero(~(weights.data >= 0) | np.isinf(weights.data)))
    if n_bad:
        raise ValueError(f"{n_bad} weights of the graph are negative, NaN or infinite")
    apart = weights.row != weights.col
    entries = (weights.data[apart], (weights.row[apart], weights.col[apart]))
    to_others = sp.csr_array(entries, shape=shape)
    to_others.eliminate_zeros()  # a weight of 0 makes no neighbour
    return sp.csr_array(normalize(to_others, norm="l1"))
