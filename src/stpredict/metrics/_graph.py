"""Row-normalised neighbourhood graphs."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import scipy.sparse as sp
from sklearn.preprocessing import normalize

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    #: (n_spots, n_spots) weights.
    Graph: TypeAlias = ArrayLike | sp.sparray | sp.spmatrix


def mean_of_neighbors(graph: Graph, n_spots: int) -> sp.csr_array:
    """Matrix that averages over neighbours; rows of spots without neighbours are empty.

    The diagonal is ignored: a spot is not its own neighbour.

    Raises
    ------
    ValueError
        If the graph is not (n_spots, n_spots), or a weight is negative or NaN.
    """
    weights = sp.coo_array(graph, dtype=np.float64)
    if weights.shape != (n_spots, n_spots):
        raise ValueError(f"the graph must be ({n_spots}, {n_spots}): {weights.shape}")
    n_bad = int(np.count_nonzero(~(weights.data >= 0) | np.isinf(weights.data)))
    if n_bad:
        raise ValueError(f"{n_bad} weights of the graph are negative, NaN or infinite")
    off_diagonal = weights.row != weights.col
    weights.data = np.where(off_diagonal, weights.data, 0)
    weights = weights.tocsr()
    weights.eliminate_zeros()  # an explicit 0 is not an edge
    return sp.csr_array(normalize(weights, norm="l1"))
