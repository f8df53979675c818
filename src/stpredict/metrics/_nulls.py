"""Nulls that a model must beat: measured neighbours, and predictions moved within the section."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.spatial import KDTree

from stpredict._arguments import checked
from stpredict.metrics._blocks import GENES, blocks, check_values
from stpredict.metrics._grid import check_positions
from stpredict.metrics._spatial import mean_of_neighbors

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from stpredict.metrics._blocks import Values
    from stpredict.metrics._spatial import Graph

#: Number of draws after which a motion that moves spots too little is accepted.
_MAX_DRAWS = 50


@checked
def neighbor_mean(values: Values, graph: Graph) -> NDArray[np.floating[Any]]:
    """Predict every spot by the mean of its measured neighbours.

    A model that does not beat this null has learnt no more than the smoothness of expression.

    Parameters
    ----------
    values
        (n_spots, n_genes) measured values of one section: dense, scipy sparse, or dask.
    graph
        (n_spots, n_spots) weights of the mean, such as ``obsp["spatial_connectivities"]``. The
        diagonal is ignored.

    Returns
    -------
    (n_spots, n_genes), dense, float32 for float32 values, otherwise float64. Spots without
    neighbours get the mean of the section.

    Raises
    ------
    ValueError
        If sizes differ, a weight is negative, a value is NaN, or there are fewer than two spots.

    Examples
    --------
    >>> from stpredict import metrics
    >>> line = [[0, 1, 0], [1, 0, 1], [0, 1, 0]]
    >>> metrics.neighbor_mean([[1.0], [2.0], [4.0]], line).ravel()
    array([2. , 2.5, 2. ])
    """
    values = check_values(values)
    weights = mean_of_neighbors(graph, values.shape[0])
    isolated = np.diff(weights.indptr) == 0  # rows without entries
    means = np.empty(values.shape, np.float32 if values.dtype == np.float32 else np.float64)
    for genes, (rows,) in blocks(GENES, values=values):
        rows = rows.astype(np.float64)
        means[:, genes] = weights @ rows.T
        means[isolated, genes] = rows.mean(axis=1)
    return means


@checked
def spatial_null(positions: ArrayLike, *, generator: np.random.Generator) -> NDArray[np.intp]:
    """Index that moves predictions within a section by a random motion.

    The section is rotated by a random angle about a random spot, mirrored with probability ½,
    shifted so that this spot lands on another random spot, and reflected at its bounding box. Every
    spot takes the prediction of the nearest spot. Maps keep their autocorrelation but lose their
    position: the null score is what smoothness alone achieves. Shuffled spots are noise, which is
    far too easy to beat. Motions with a median displacement below half the standard distance of the
    section are redrawn.

    Parameters
    ----------
    positions
        (n_spots, 2) positions of one section, in any unit.
    generator
        Random number generator. Every call draws another motion.

    Returns
    -------
    (n_spots,) integers, not all different. ``predicted[index]`` is the null prediction.

    Raises
    ------
    ValueError
        If positions are not (n_spots, 2), are NaN, or have fewer than two spots.

    References
    ----------
    Alexander-Bloch et al., On testing for spatial correspondence between maps of human brain
    structure and function, NeuroImage 2018; Harris, Nonsense correlations in neuroscience, 2020.

    Examples
    --------
    >>> import numpy as np
    >>> from stpredict import metrics
    >>> positions, generator = np.argwhere(np.ones((20, 20))), np.random.default_rng(0)
    >>> waves = np.sin(positions / 3)
    >>> nulls = [waves[metrics.spatial_null(positions, generator=generator)] for _ in range(100)]
    >>> bool(abs(np.mean([metrics.pcc(waves, null) for null in nulls])) < 0.05)
    True
    """
    points = check_positions(positions)
    tree = KDTree(points)
    min_distance = 0.5 * np.sqrt(points.var(axis=0).sum())
    for _ in range(_MAX_DRAWS):
        index = tree.query(_moved(points, generator))[1]
        if np.median(np.linalg.norm(points - points[index], axis=1)) >= min_distance:
            break
    return np.asarray(index, dtype=np.intp)


def _moved(points: NDArray[np.float64], generator: np.random.Generator) -> NDArray[np.float64]:
    """Rotate, mirror and shift at random, then reflect at the bounding box."""
    angle, mirror = generator.uniform(0, 2 * np.pi), generator.choice([-1, 1])
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    pivot, target = points[generator.integers(len(points), size=2)]
    low = points.min(axis=0)
    # spots on a line have an extent of 0 along one axis
    extent = np.maximum(np.ptp(points, axis=0), 1e-9 * np.ptp(points))
    moved = (((points - pivot) * [1, mirror]) @ rotation.T + target - low) % (2 * extent)
    # a period of twice the extent: the second half is the mirror image
    reflected: NDArray[np.float64] = low + np.minimum(moved, 2 * extent - moved)
    return reflected
