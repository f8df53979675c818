"""Maps of predicted and measured expression: how alike they look, how smooth they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from skimage.metrics import structural_similarity

from stpredict.metrics._blocks import GENES, apply, check_pair, check_values
from stpredict.metrics._graph import mean_of_neighbors
from stpredict.metrics._grid import check_positions, rasterize
from stpredict.metrics._scores import center, is_constant

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from stpredict.metrics._blocks import Values
    from stpredict.metrics._graph import Graph

#: Side of the window in pixels, as in scikit-image and in Wang et al.'s mean over uniform windows.
_WINDOW = 7


def ssim(measured: Values, predicted: Values, positions: ArrayLike) -> NDArray[np.float64]:
    """Structural similarity of the measured and the predicted map of every gene.

    The spots of a section become a picture with a pixel for each: square lattices (legacy ST, bins)
    and hexagonal ones (Visium; every other row moved by half a pixel) in any orientation, and cells
    on square pixels as wide as the median distance between neighbours, every pixel showing the
    nearest. Each gene is scaled to [0, 1] on its own, measured and predicted apart, so that the
    score compares patterns, not levels. Windows of 7 × 7 pixels (fewer on smaller sections) are
    averaged over the pixels on the section; beyond its outline, which both maps share and which
    must not count as agreement, pixels show the nearest spot.

    Parameters
    ----------
    measured, predicted
        (n_spots, n_genes) numbers each: dense, scipy sparse, or dask; see `per_gene`.
    positions
        (n_spots, 2) of one section, in any unit.

    Returns
    -------
    (n_genes,) float64 in [-1, 1], 1 where the scaled maps are the same; 0 where either side is
    constant, as for `pcc`; NaN if the section is less than three spots wide or high.

    Raises
    ------
    ValueError
        If the shapes differ, a value is NaN, or spots share a position.

    References
    ----------
    Wang et al., Image quality assessment: from error visibility to structural similarity, IEEE
    Transactions on Image Processing 2004.

    Examples
    --------
    >>> import numpy as np
    >>> from stpredict import metrics
    >>> positions = np.argwhere(np.ones((8, 8)))
    >>> stripes = (positions[:, :1] // 2) % 2
    >>> metrics.ssim(stripes, 3 * stripes + 1, positions)
    array([1.])
    """
    measured, predicted = check_pair(measured, predicted)
    grid = rasterize(check_positions(positions, measured.shape[0]))
    narrow = min(grid.spot.shape)
    if narrow < 3:
        return np.full(measured.shape[1], np.nan)
    window = min(_WINDOW, narrow - 1 + narrow % 2)

    def of_genes(*sides: NDArray[Any]) -> NDArray[np.float64]:
        scores = np.zeros(len(sides[0]))
        for gene in np.flatnonzero(~is_constant(sides[0]) & ~is_constant(sides[1])):
            first, second = (_unit(side[gene])[grid.spot] for side in sides)
            _, local = structural_similarity(
                first, second, win_size=window, data_range=1, full=True
            )
            scores[gene] = local[grid.inside].mean()
        return scores

    return apply(of_genes, GENES, measured=measured, predicted=predicted)


def _unit(values: NDArray[Any]) -> NDArray[np.float64]:
    shifted = values.astype(np.float64) - values.min()
    return shifted / shifted.max()


def morans_i(values: Values, graph: Graph) -> NDArray[np.float64]:
    """Moran's I of every gene: how much neighbouring spots are alike.

    That of predicted beside that of measured values tells a model that paints smoother (or rougher)
    maps than there are. Noise lowers the measured one.

    Parameters
    ----------
    values
        (n_spots, n_genes) of one section: dense, scipy sparse, or dask; see `per_gene`.
    graph
        (n_spots, n_spots) weights, such as ``obsp["spatial_connectivities"]``. The weights of a
        spot's neighbours are made to sum to 1, as in squidpy, and the diagonal is left out.

    Returns
    -------
    (n_genes,) float64: 1 where neighbours are the same, near 0 (``-1 / (n_spots - 1)``) without
    spatial structure, negative where they differ more than by chance; mostly in [-1, 1]. 0 where a
    gene is constant, or no spot has a neighbour.

    Raises
    ------
    ValueError
        If the graph is of another number of spots, a weight is negative, there are fewer than two
        spots, or a value is NaN.

    References
    ----------
    Moran, Notes on continuous stochastic phenomena, Biometrika 1950.

    Examples
    --------
    >>> import numpy as np
    >>> import scipy.sparse as sp
    >>> from stpredict import metrics
    >>> ring = sp.csr_array(np.roll(np.eye(4), 1, axis=1) + np.roll(np.eye(4), -1, axis=1))
    >>> metrics.morans_i(np.array([[1.0], [0.0], [1.0], [0.0]]), ring)
    array([-1.])
    """
    values = check_values(values)
    mean = mean_of_neighbors(graph, values.shape[0])
    total = mean.sum()

    def of_genes(piece: NDArray[Any]) -> NDArray[np.float64]:
        centered = center(piece)
        alike = np.einsum("ij,ij->i", centered, (mean @ centered.T).T)
        variance = total * np.mean(centered**2, axis=1)
        return np.divide(alike, variance, out=np.zeros_like(alike), where=variance > 0)

    return apply(of_genes, GENES, values=values)
