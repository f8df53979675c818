"""A section's spots as the pixels of a picture, one pixel a spot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import KDTree

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

#: Directions in which a lattice has neighbours, and how far its rows lie apart, in pitches.
_SQUARE, _HEXAGONAL = (4, 1.0), (6, np.sqrt(3) / 2)
#: Two spots are neighbours up to this many pitches: a square's diagonals lie at 1.41.
_REACH = 1.2
#: Directions of cells agree on less; those of spots a tenth of the pitch off their place on more.
_AGREEMENT = 0.5
#: A pixel shows a spot up to this many pitches away: pixels at 0.75 are those beside the outline of
#: a hexagonal lattice.
_NEAR = 0.6
#: Pixels per spot, beyond which some spots must lie far off.
_MOST_PIXELS = 100


@dataclass(frozen=True, eq=False)
class Grid:
    """Which spot every pixel shows.

    Attributes
    ----------
    spot
        (n_rows, n_columns): the spot nearest to the pixel's centre.
    inside
        (n_rows, n_columns): whether that spot is near; the rest is off the section.
    """

    spot: NDArray[np.intp]
    inside: NDArray[np.bool_]


def check_positions(positions: ArrayLike, n_spots: int | None = None) -> NDArray[np.float64]:
    """Require positions (n_spots, 2) that are numbers and differ."""
    points = np.asarray(positions, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) != (n_spots or len(points)):
        wanted = "n_spots" if n_spots is None else f"{n_spots}"
        raise ValueError(f"positions must be ({wanted}, 2): {points.shape}")
    if len(points) < 2:
        raise ValueError(f"positions of at least two spots are needed, found {len(points)}")
    n_bad = int(np.count_nonzero(~np.isfinite(points).all(axis=1)))
    if n_bad:
        raise ValueError(f"positions of {n_bad} spots are NaN or infinite")
    if not np.ptp(points, axis=0).any():
        raise ValueError(f"all {len(points)} spots lie at one position")
    return points


def rasterize(points: NDArray[np.float64]) -> Grid:
    """Lay a grid on the spots, along their rows, such that a regular lattice has a pixel a spot.

    The pitch is the median distance to the nearest spot. Square lattices get square pixels;
    hexagonal ones pixels as wide as the pitch and as high as their rows lie apart, every other row
    moved by half a pixel. Cells, which lie on no lattice, get square pixels, some of which show
    the same cell, while others hide one.
    """
    steps = _steps(points)
    n_directions, row_height, angle = _lattice(steps)
    along = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    straight = points @ along.T
    pitch = float(np.median(np.linalg.norm(steps, axis=1)))
    straight /= pitch
    # A quarter aside, the pixels of both kinds of hexagonal rows have one nearest spot each.
    aside = 0.25 if n_directions == 6 else 0.0
    period = np.array([0.5 if aside else 1, row_height])
    low = straight.min(axis=0)
    low -= (low - _phase(straight, period) + period / 2) % period - period / 2
    width, height = (straight.max(axis=0) - low) / [1, row_height]
    columns, rows = np.floor([width + 0.5 - aside, height + 0.5]).astype(int) + 1
    if columns * rows > _MOST_PIXELS * len(points):
        raise ValueError(
            f"{len(points)} spots, {pitch:g} apart, spread over {rows:,} × {columns:,} pixels: are "
            "some far from the others?"
        )
    centers = np.stack(np.meshgrid(np.arange(columns) + aside, np.arange(rows) * row_height), -1)
    apart, spot = KDTree(straight).query(centers + low)
    return Grid(spot=spot, inside=apart < _NEAR)


def _phase(straight: NDArray[np.float64], period: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where rows and columns lie that repeat with a period: a circular mean over spots."""
    turns = np.exp(2j * np.pi * straight / period).mean(axis=0)
    return np.angle(turns) / (2 * np.pi) * period


def _steps(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """From spots to their neighbours on the lattice."""
    tree = KDTree(points)
    distance = tree.query(points, k=2)[0][:, 1]
    if not distance.all():
        raise ValueError(
            f"{np.count_nonzero(distance == 0)} spots share their position with another"
        )
    first, second = tree.query_pairs(_REACH * np.median(distance), output_type="ndarray").T
    return points[second] - points[first]


def _lattice(steps: NDArray[np.float64]) -> tuple[int, float, float]:
    """Directions, row height and angle of the lattice that the neighbours agree on."""
    directions = np.arctan2(steps[:, 1], steps[:, 0])
    # Every neighbour tells the angle, up to a turn that maps the lattice onto itself.
    turns = {kind: np.exp(1j * kind[0] * directions).mean() for kind in (_SQUARE, _HEXAGONAL)}
    kind = max(turns, key=lambda kind: abs(turns[kind]))
    if abs(turns[kind]) < _AGREEMENT:
        return *_SQUARE, 0.0
    return *kind, float(np.angle(turns[kind]) / kind[0])
