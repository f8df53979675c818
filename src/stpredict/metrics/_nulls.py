"""What a model has to beat: measured neighbours, and predictions moved about the section."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stpredict.metrics._blocks import GENES, blocks, check_values
from stpredict.metrics._graph import mean_of_neighbors

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stpredict.metrics._blocks import Values
    from stpredict.metrics._graph import Graph


def neighbor_mean(values: Values, graph: Graph) -> NDArray[np.floating[Any]]:
    """Predict every spot by the mean of its measured neighbours.

    A null that knows the measured section and nothing of the image: a model that does not beat it
    has found no more than that expression is smooth.

    Parameters
    ----------
    values
        (n_spots, n_genes) measured values of one section: dense, scipy sparse, or dask.
    graph
        (n_spots, n_spots) weights, such as ``obsp["spatial_connectivities"]``; the mean is weighted
        by them. A spot is never its own neighbour: the diagonal is left out.

    Returns
    -------
    (n_spots, n_genes), dense; float32 where the values are, otherwise float64. A spot without
    neighbours gets the mean of the section.

    Raises
    ------
    ValueError
        If the graph is of another number of spots, a weight is negative, there are fewer than two
        spots, or a value is NaN.

    Examples
    --------
    >>> import numpy as np
    >>> import scipy.sparse as sp
    >>> from stpredict import metrics
    >>> line = sp.csr_array(np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]]))
    >>> metrics.neighbor_mean(np.array([[1.0], [2.0], [4.0]]), line)
    array([[2. ],
           [2.5],
           [2. ]])
    """
    values = check_values(values)
    mean = mean_of_neighbors(graph, values.shape[0])
    lone = np.diff(mean.indptr) == 0
    found = np.empty(values.shape, np.float32 if values.dtype == np.float32 else np.float64)
    for here, (piece,) in blocks(GENES, measured=values):
        of_genes = piece.astype(np.float64)
        found[:, here] = mean @ of_genes.T
        found[lone, here] = of_genes.mean(axis=1)
    return found
