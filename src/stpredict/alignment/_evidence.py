"""Evidence for the position of the spots of a section in its image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from stpredict.alignment._motion import move_points

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Directions in which points around a spot are placed.
_N_DIRECTIONS = 24


@dataclass(frozen=True)
class Evidence:
    """Evidence for the position of the spots of a section, in µm from the corner of its image."""

    tissue: NDArray[np.floating]  # (h, w) in [0, 1], share of tissue below a spot at that position
    features: NDArray[np.floating]  # (d, h, w), image features at that position
    um_per_px: float  # of tissue and features
    centers: NDArray[np.float64]  # (n, 2) positions of the spots, x before y
    rim: NDArray[np.float64]  # (m, 2) points one pitch outside the outermost spots
    rim_owner: NDArray[np.intp]  # (m,) index of the spot next to each rim point
    expression: NDArray[np.float64]  # (n, k) standardised components of the measured expression
    pitch: float  # distance between neighbouring spots

    def signals(self, matrix: NDArray[np.float64]) -> tuple[float, float]:
        """Tissue contrast and explained variance after a motion, both at most 1."""
        # the variance that a linear regression of expression on image features explains
        basis = orthonormal_basis(self.features_at(move_points(matrix, self.centers)))
        return self.contrast(matrix), explained_share(basis, self.expression)

    def contrast(self, matrix: NDArray[np.float64]) -> float:
        """Tissue below the outermost spots minus tissue below their rim, after a motion."""
        centers, rim = move_points(matrix, self.centers), move_points(matrix, self.rim)
        inside = self._inside(rim)  # rim points outside the image carry no evidence
        if not inside.any():
            return 0.0
        outermost = centers[self.rim_owner[inside]]
        below_spots = self._sample(self.tissue[None], outermost)[:, 0]
        below_spots[~self._inside(outermost)] = 0
        return float((below_spots - self._sample(self.tissue[None], rim[inside])[:, 0]).mean())

    def features_at(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Image features at points (n, 2), interpolated, (n, d)."""
        return self._sample(self.features, points)

    def _inside(self, points: NDArray[np.float64]) -> NDArray[np.bool_]:
        edge = np.array(self.tissue.shape[::-1]) * self.um_per_px
        return np.asarray(((points >= 0) & (points <= edge)).all(axis=1))

    def _sample(self, maps: NDArray[Any], points: NDArray[np.float64]) -> NDArray[np.float64]:
        x, y = (points / self.um_per_px - 0.5).T  # the centre of the first pixel is at 0
        sampled = [ndimage.map_coordinates(m, [y, x], order=1, mode="nearest") for m in maps]
        return np.column_stack(sampled).astype(np.float64)


def pitch_of(centers: NDArray[np.float64]) -> float:
    """Median distance to the nearest spot."""
    distance, _ = cKDTree(centers).query(centers, k=2)
    return float(np.median(distance[:, 1]))


def rim_of(centers: NDArray[np.float64], pitch: float) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Points one pitch from a spot and not closer to any other, and the index of that spot."""
    angles = np.arange(_N_DIRECTIONS) * 2 * np.pi / _N_DIRECTIONS
    around = centers[:, None] + pitch * np.column_stack([np.cos(angles), np.sin(angles)])
    points, owner = around.reshape(-1, 2), np.repeat(np.arange(len(centers)), _N_DIRECTIONS)
    distance, _ = cKDTree(centers).query(points)
    free = distance > 0.95 * pitch  # tolerance for irregular lattices
    return points[free], owner[free]


def orthonormal_basis(features: NDArray[np.float64]) -> NDArray[np.float64]:
    """Orthonormal basis of the centred features, (n, rank)."""
    centered = features - features.mean(axis=0)
    scale = centered.std(axis=0)
    varies = scale > 1e-9
    if not varies.any():
        return np.zeros((len(features), 0))
    basis, singular, _ = np.linalg.svd(centered[:, varies] / scale[varies], full_matrices=False)
    # collinear features must not count twice
    return np.asarray(basis[:, singular > 1e-6 * singular[0]])


def explained_share(basis: NDArray[np.float64], expression: NDArray[np.float64]) -> float:
    """Share of variance that a linear regression explains, mean over columns that vary."""
    centered = expression - expression.mean(axis=0)
    total = (centered**2).sum(axis=0)
    varies = total > 0
    if not varies.any():
        return 0.0
    return float((((basis.T @ centered[:, varies]) ** 2).sum(axis=0) / total[varies]).mean())
