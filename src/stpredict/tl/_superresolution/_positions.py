"""Fine positions over the area that spots cover."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stpredict._sdata._spacing import Spacing

#: Distance from a spot to the farthest place that is nearest to it, as a share of the pitch.
_REACH = {"hexagonal": 1 / np.sqrt(3), "square": 1 / np.sqrt(2)}
#: Real spots are off their grid by a few per cent.
_SLACK = 1.05
#: Coarsest resolution, as a share of the pitch, at which every spot has a position of its own.
COARSEST = 1 / np.sqrt(2)


@dataclass(frozen=True, eq=False)
class FinePositions:
    """Positions on a square lattice, each with the spot that is nearest to it."""

    index: NDArray[np.int64]  # (n, 2): column and row on the lattice, which starts at the corner
    centers_um: NDArray[np.float64]  # (n, 2): x and y from the corner of the image
    spot: NDArray[np.intp]  # (n,): row of the nearest spot
    distance_um: NDArray[np.float64]  # (n,): distance to it

    def subset(self, rows: NDArray[np.intp]) -> tuple[FinePositions, NDArray[np.intp]]:
        """Some positions, and the spots nearest to them, of which they have the row."""
        spots, spot = np.unique(self.spot[rows], return_inverse=True)
        distance_um = self.distance_um[rows]
        return FinePositions(self.index[rows], self.centers_um[rows], spot, distance_um), spots


def fine_positions(
    centers_um: NDArray[np.float64],
    spacing: Spacing,
    resolution_um: float,
    *,
    size_um: NDArray[np.floating],  # (2,) width and height of the image
) -> FinePositions:
    """Place positions over the area of all spots, in the order of rows and columns.

    The lattice is that of the image, so that blocks of spots have the positions of the whole
    section, if they come with all spots within two pitches.
    """
    reach = _SLACK * _REACH.get(str(spacing.layout), _REACH["square"]) * spacing.pitch_um
    n_steps = int(np.ceil(reach / resolution_um))
    steps = np.mgrid[-n_steps : n_steps + 1, -n_steps : n_steps + 1].reshape(2, -1).T
    home = np.floor(centers_um / resolution_um).astype(np.int64)
    near = []
    for step in steps:  # all candidates of a large slide at once would not fit in memory
        candidates = home + step
        offset = (candidates + 0.5) * resolution_um - centers_um
        near.append(candidates[np.hypot(*offset.T) <= reach])
    index = np.unique(np.concatenate(near)[:, ::-1], axis=0)[:, ::-1]  # by row, then by column
    positions = (index + 0.5) * resolution_um
    inside = ((positions >= 0) & (positions <= size_um)).all(axis=1)
    index, positions = index[inside], positions[inside]
    spot, distance = _nearest(positions, centers_um, tolerance=1e-6 * spacing.pitch_um)
    return FinePositions(index, positions, spot, distance)


def _nearest(
    positions: NDArray[np.float64], centers_um: NDArray[np.float64], *, tolerance: float
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Nearest spot of each position, (n,), and its distance; of equally near ones the upper left.

    Without that rule, a position halfway between two spots could change its spot from block to
    block.
    """
    k = min(4, len(centers_um))  # a corner of a square grid is equally far from four spots
    distance, spots = cKDTree(centers_um).query(positions, k=range(1, k + 1))
    rank = np.empty(len(centers_um), dtype=np.intp)
    rank[np.lexsort(centers_um.T)] = np.arange(len(centers_um))
    is_nearest = distance <= distance[:, :1] + tolerance
    first = np.where(is_nearest, rank[spots], len(centers_um)).argmin(axis=1)
    rows = np.arange(len(positions))
    return spots[rows, first], distance[rows, first]
