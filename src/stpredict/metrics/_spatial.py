"""Similarity and spatial autocorrelation of expression maps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import scipy.sparse as sp
from skimage.metrics import structural_similarity
from sklearn.preprocessing import normalize

from stpredict._arguments import checked
from stpredict.metrics._blocks import GENES, check_pair, check_values, score_blocks
from stpredict.metrics._grid import check_positions, rasterize
from stpredict.metrics._scores import center, is_constant

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from stpredict.metrics._blocks import Values

    #: (n_spots, n_spots) weights.
    Graph: TypeAlias = ArrayLike | sp.sparray | sp.spmatrix

#: Side of the window in pixels, the default of scikit-image (uniform windows of Wang et al. 2004).
_WINDOW = 7


@checked
def ssim(measured: Values, predicted: Values, positions: ArrayLike) -> NDArray[np.float64]:
    """Structural similarity of the measured and the predicted map of every gene.

    The section is rasterised with one pixel per spot: square lattices (legacy ST, bins) and
    hexagonal lattices (Visium; every other row shifted by half a pixel) in any orientation. For
    cells, pixels are as wide as the median distance to the nearest cell, and show the nearest cell.
    Both maps are scaled to [0, 1] per gene, so that the score compares patterns, not levels. The
    local similarity, in windows of 7 × 7 pixels (smaller on small sections), is averaged over
    pixels on the section. Pixels outside show the nearest spot, so that the shared outline does not
    count as agreement.

    Parameters
    ----------
    measured, predicted
        (n_spots, n_genes) values each: dense, scipy sparse, or dask; see `per_gene`.
    positions
        (n_spots, 2) of one section, in any unit.

    Returns
    -------
    (n_genes,) float64 in [-1, 1]; 1 if the scaled maps are equal, 0 if either side is constant, NaN
    if the section is less than three spots wide or high.

    Raises
    ------
    ValueError
        If the shapes differ, a value is NaN, or spots share a position.

    References
    ----------
    Wang et al., Image quality assessment: from error visibility to structural similarity, 2004.

    Examples
    --------
    >>> import numpy as np
    >>> from stpredict import metrics
    >>> positions = np.argwhere(np.ones((8, 8)))
    >>> stripes = positions[:, :1] // 2 % 2
    >>> metrics.ssim(stripes, 3 * stripes + 1, positions)
    array([1.])
    """
    measured, predicted = check_pair(measured, predicted)
    grid = rasterize(check_positions(positions, measured.shape[0]))
    shortest = min(grid.spot.shape)
    if shortest < 3:
        return np.full(measured.shape[1], np.nan)
    window = min(_WINDOW, shortest - 1 + shortest % 2)  # scikit-image needs odd windows

    def ssim_rows(measured: NDArray[Any], predicted: NDArray[Any]) -> NDArray[np.float64]:
        scores = np.zeros(len(measured))
        for gene in np.flatnonzero(~is_constant(measured) & ~is_constant(predicted)):
            maps = (_min_max_scaled(side[gene])[grid.spot] for side in (measured, predicted))
            # local values, because the mean over the image would include the background
            _, local = structural_similarity(*maps, win_size=window, data_range=1, full=True)
            scores[gene] = local[grid.inside].mean()
        return scores

    return score_blocks(ssim_rows, GENES, measured=measured, predicted=predicted)


def _min_max_scaled(values: NDArray[Any]) -> NDArray[np.float64]:
    shifted = values.astype(np.float64) - values.min()
    return shifted / shifted.max()


@checked
def morans_i(values: Values, graph: Graph) -> NDArray[np.float64]:
    """Moran's I of every gene: the spatial autocorrelation between neighbouring spots.

    A comparison with measured values, which noise lowers, shows whether predicted maps are too
    smooth or too rough.

    Parameters
    ----------
    values
        (n_spots, n_genes) of one section: dense, scipy sparse, or dask; see `per_gene`.
    graph
        (n_spots, n_spots) weights, such as ``obsp["spatial_connectivities"]``. Rows are normalised
        to sum to 1, as in squidpy, and the diagonal is ignored.

    Returns
    -------
    (n_genes,) float64, usually in [-1, 1]: 1 if neighbours are equal, ``-1 / (n_spots - 1)``
    without spatial structure. 0 if a gene is constant or no spot has neighbours.

    Raises
    ------
    ValueError
        If sizes differ, a weight is negative, a value is NaN, or there are fewer than two spots.

    References
    ----------
    Moran, Notes on continuous stochastic phenomena, Biometrika 1950.

    Examples
    --------
    >>> from stpredict import metrics
    >>> ring = [[0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0]]
    >>> metrics.morans_i([[1.0], [0.0], [1.0], [0.0]], ring)
    array([-1.])
    """
    values = check_values(values)
    weights = mean_of_neighbors(graph, values.shape[0])
    total = weights.sum()  # the number of spots with neighbours

    def morans_i_rows(rows: NDArray[Any]) -> NDArray[np.float64]:
        centered = center(rows)
        covariance = np.einsum("ij,ij->i", centered, (weights @ centered.T).T)
        variance = total * np.mean(centered**2, axis=1)
        return np.divide(covariance, variance, out=np.zeros_like(variance), where=variance > 0)

    return score_blocks(morans_i_rows, GENES, values=values)


def mean_of_neighbors(graph: Graph, n_spots: int) -> sp.csr_array:
    """Matrix that averages over neighbours; rows of spots without neighbours are empty."""
    weights = sp.coo_array(graph, dtype=np.float64)
    if weights.shape != (n_spots, n_spots):
        raise ValueError(f"graph must be ({n_spots}, {n_spots}), as values: {weights.shape}")
    n_bad = int(np.count_nonzero(~(weights.data >= 0) | np.isinf(weights.data)))
    if n_bad:
        raise ValueError(f"{n_bad} weights of the graph are negative, NaN or infinite")
    # the diagonal is ignored: a spot is not its own neighbour
    weights.data = np.where(weights.row != weights.col, weights.data, 0)
    weights = weights.tocsr()
    weights.eliminate_zeros()  # an explicit 0 is not an edge
    return sp.csr_array(normalize(weights, norm="l1"))
