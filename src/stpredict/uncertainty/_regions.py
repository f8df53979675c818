"""Means over regions of neighbouring spots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from scipy.spatial import KDTree

from stpredict import _validate
from stpredict._arguments import checked
from stpredict.uncertainty._intervals import check_shape

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stpredict.uncertainty._intervals import Floats


@checked
def region_means(
    values: Floats, positions: Floats, *, sections: NDArray[Any], n_spots: int
) -> NDArray[np.float64]:
    """Mean of the values in a region around each spot.

    Parameters
    ----------
    values
        (n, n_genes) measured or predicted values, or errors. NaN where a gene was not predicted.
    positions
        (n, 2) positions of the spots, in any unit.
    sections
        (n,) section of each row.
    n_spots
        Number of spots of a region: the spot and the nearest other spots of its section.

    Returns
    -------
    (n, n_genes) float64. NaN if a value of the region is NaN.

    Raises
    ------
    ValueError
        If shapes do not match, positions are not finite, or a section has fewer spots.

    Examples
    --------
    >>> import numpy as np
    >>> from stpredict import uncertainty
    >>> values, positions = np.array([[0.0], [3.0], [6.0], [1.0]]), np.eye(4)[:, :2] * 0
    >>> positions[:, 0] = [0, 1, 2, 9]
    >>> sections = np.repeat("S1", 4)
    >>> uncertainty.region_means(values, positions, sections=sections, n_spots=3).ravel()
    array([3.        , 3.        , 3.        , 3.33333333])
    """
    _validate.whole_number("n_spots", n_spots)
    check_shape("values", values, "n", "n_genes")
    check_shape("positions", positions, len(values), 2)
    check_shape("sections", sections, len(values))
    _validate.finite(positions, what="positions")
    means = np.array(values, dtype=np.float64)
    if n_spots == 1:
        return means
    for section in np.unique(sections):
        rows = np.flatnonzero(sections == section)
        if len(rows) < n_spots:
            raise ValueError(
                f"section {str(section)!r} has {len(rows)} spots, fewer than {n_spots=}: use "
                "smaller regions"
            )
        means[rows] = region_weights(positions[rows], n_spots) @ means[rows]
    return means


def region_weights(positions: Floats, n_spots: int) -> sp.csr_array:
    """Weights (n, n) of the mean over each spot and its nearest spots of one section."""
    n = len(positions)
    nearest = KDTree(positions).query(positions, k=[*range(1, n_spots + 1)])[1]
    # a dense (n, n_spots, n_genes) array of values would not fit in memory
    starts = np.arange(0, nearest.size + 1, n_spots)
    return sp.csr_array((np.full(nearest.size, 1 / n_spots), nearest.ravel(), starts), shape=(n, n))
