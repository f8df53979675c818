"""What a model has to beat: measured neighbours, and predictions moved about the section."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.spatial import KDTree

from stpredict.metrics._blocks import GENES, blocks, check_values
from stpredict.metrics._graph import mean_of_neighbors
from stpredict.metrics._grid import check_positions

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from stpredict.metrics._blocks import Values
    from stpredict.metrics._graph import Graph

#: Motions that are drawn before one that moves spots too little is taken after all.
_MOST_DRAWS = 50


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
    for here, (piece,) in blocks(GENES, values=values):
        of_genes = piece.astype(np.float64)
        found[:, here] = mean @ of_genes.T
        found[lone, here] = of_genes.mean(axis=1)
    return found


def spatial_null(positions: ArrayLike, *, generator: np.random.Generator) -> NDArray[np.intp]:
    """Which spot's prediction every spot is given instead, after a random motion of the section.

    The section is turned by a random angle about one random spot, mirrored or not, shifted so that
    this spot comes to lie on another, and folded back at its bounding box; every spot is given the
    nearest. Neighbours mostly stay neighbours, so that a map keeps its autocorrelation and loses
    its place: what a smooth prediction scores by smoothness alone. A shuffle of spots, which breaks
    maps to noise, is a null far too easy to beat. Motions by less than half the section's standard
    distance (in the median over spots) are drawn anew.

    Some spots are taken more than once, others not at all.

    Parameters
    ----------
    positions
        (n_spots, 2) of one section, in any unit.
    generator
        Randomness; every call draws another motion.

    Returns
    -------
    (n_spots,) integers: ``predicted[index]`` is the null prediction.

    Raises
    ------
    ValueError
        If positions are not (n_spots, 2), or NaN, or there are fewer than two.

    References
    ----------
    Rotations as in Alexander-Bloch et al., On testing for spatial correspondence between maps of
    human brain structure and function, NeuroImage 2018; shifts as in Harris, Nonsense correlations
    in neuroscience, bioRxiv 2020.

    Examples
    --------
    >>> import numpy as np
    >>> from stpredict import metrics
    >>> positions = np.argwhere(np.ones((20, 20)))
    >>> waves = np.sin(positions / 3)
    >>> generator = np.random.default_rng(0)
    >>> moved = [waves[metrics.spatial_null(positions, generator=generator)] for _ in range(100)]
    >>> bool(abs(np.mean([metrics.pcc(waves, null) for null in moved])) < 0.05)
    True
    """
    points = check_positions(positions)
    tree = KDTree(points)
    least = 0.5 * np.sqrt(points.var(axis=0).sum())
    for _ in range(_MOST_DRAWS):
        index = tree.query(_moved(points, generator))[1]
        if np.median(np.linalg.norm(points - points[index], axis=1)) >= least:
            break
    return np.asarray(index, dtype=np.intp)


def _moved(points: NDArray[np.float64], generator: np.random.Generator) -> NDArray[np.float64]:
    """Turn, perhaps mirror, and shift, then fold back into the bounding box."""
    angle, mirror = generator.uniform(0, 2 * np.pi), generator.choice([-1, 1])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    pivot, onto = points[generator.integers(len(points), size=2)]
    low = points.min(axis=0)
    extent = np.maximum(np.ptp(points, axis=0), 1e-9 * np.ptp(points))  # spots on a line
    moved = (((points - pivot) * [1, mirror]) @ turn.T + onto - low) % (2 * extent)
    folded: NDArray[np.float64] = low + np.minimum(moved, 2 * extent - moved)
    return folded
