"""Rasterisation of a section with one pixel per spot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import KDTree

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

#: Number of neighbour directions of a lattice, and the distance between its rows in pitches.
_SQUARE, _HEXAGONAL = (4, 1.0), (6, np.sqrt(3) / 2)
#: Largest distance of neighbours in pitches; the diagonal of a square is 1.41.
_REACH = 1.2
#: Least agreement of neighbour directions on a lattice. Cells have less; spots displaced by a tenth
#: of the pitch have more.
_AGREEMENT = 0.5
#: Largest distance in pitches between a pixel and its spot. Pixels just outside the outline of a
#: hexagonal lattice are at 0.75.
_NEAR = 0.6
#: Pixels per spot above which some spots must be outliers.
_MAX_PIXELS = 100


@dataclass(frozen=True, eq=False)
class Raster:
    """The spot that every pixel shows."""

    spot: NDArray[np.intp]  # (n_rows, n_columns), the spot nearest to the centre of the pixel
    inside: NDArray[np.bool_]  # (n_rows, n_columns), whether the pixel is on the section


def check_positions(positions: ArrayLike, n_spots: int | None = None) -> NDArray[np.float64]:
    """Require finite positions (n_spots, 2) that are not all equal."""
    points = np.asarray(positions, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) != (n_spots or len(points)):
        raise ValueError(f"positions must be ({n_spots or 'n_spots'}, 2): {points.shape}")
    if len(points) < 2:
        raise ValueError(f"positions of at least two spots are needed, found {len(points)}")
    n_bad = int(np.count_nonzero(~np.isfinite(points).all(axis=1)))
    if n_bad:
        raise ValueError(f"positions of {n_bad} spots are NaN or infinite")
    if not np.ptp(points, axis=0).any():
        raise ValueError(f"all {len(points)} spots lie at one position")
    return points


def rasterize(points: NDArray[np.float64]) -> Raster:
    """Align pixels with the rows of spots, so that a regular lattice has one pixel per spot."""
    # Pixels of a hexagonal lattice are as wide as the pitch and as high as the distance between
    # rows. Cells have square pixels: several may show the same cell, and some cells are not shown.
    offsets = _neighbor_offsets(points)
    n_directions, row_height, angle = _fit_lattice(offsets)
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    aligned = points @ rotation.T
    # median over all neighbours: robust to displaced spots
    pitch = float(np.median(np.linalg.norm(offsets, axis=1)))
    aligned /= pitch
    # Even and odd hexagonal rows differ by half a pixel. Pixel centres shifted by a quarter have
    # one nearest spot in both.
    shift = 0.25 if n_directions == 6 else 0.0
    period = np.array([0.5 if shift else 1, row_height])
    low = aligned.min(axis=0)
    # snap the corner to the lattice, whose phase is a circular mean over spots: the outermost spots
    # may be displaced
    phase = np.angle(np.exp(2j * np.pi * aligned / period).mean(axis=0)) / (2 * np.pi) * period
    low -= (low - phase + period / 2) % period - period / 2
    width, height = (aligned.max(axis=0) - low) / [1, row_height]
    columns, rows = np.floor([width + 0.5 - shift, height + 0.5]).astype(int) + 1
    if columns * rows > _MAX_PIXELS * len(points):
        area = f"{rows:,} × {columns:,} pixels"
        raise ValueError(f"{len(points)} spots, {pitch:g} apart, spread over {area}: outliers?")
    centers = np.stack(np.meshgrid(np.arange(columns) + shift, np.arange(rows) * row_height), -1)
    distance, spot = KDTree(aligned).query(centers + low)
    return Raster(spot=spot, inside=distance < _NEAR)


def _neighbor_offsets(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Vectors from spots to their neighbours."""
    tree = KDTree(points)
    distance = tree.query(points, k=2)[0][:, 1]
    n_shared = np.count_nonzero(distance == 0)
    if n_shared:
        raise ValueError(f"{n_shared} spots share their position with another spot")
    first, second = tree.query_pairs(_REACH * np.median(distance), output_type="ndarray").T
    return points[second] - points[first]


def _fit_lattice(offsets: NDArray[np.float64]) -> tuple[int, float, float]:
    """Number of directions, row height and angle of the lattice that fits the neighbours best."""
    directions = np.arctan2(offsets[:, 1], offsets[:, 0])
    # Multiplied by the number of directions, all angles of a lattice agree (circular mean).
    means = {kind: np.exp(1j * kind[0] * directions).mean() for kind in (_SQUARE, _HEXAGONAL)}
    kind = max(means, key=lambda kind: abs(means[kind]))
    if abs(means[kind]) < _AGREEMENT:  # cells
        return *_SQUARE, 0.0
    return *kind, float(np.angle(means[kind]) / kind[0])
