"""What says where the spots of a section belong, and how well a motion agrees with it.

Arrays only; lengths in µm from the corner of the image, x before y.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from stpredict.alignment._motion import apply

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Directions in which the surroundings of a spot are probed.
_N_DIRECTIONS = 24


@dataclass(frozen=True)
class Evidence:
    """What says where the spots of a section belong.

    Attributes
    ----------
    tissue
        (h, w) in [0, 1]: how much tissue a spot at that place lies on.
    features
        (d, h, w): what the image shows at that place.
    um_per_px
        Side of a pixel of both in µm.
    centers
        (n, 2) positions of the spots.
    rim
        (m, 2) places one pitch beside the outermost spots, where none was measured.
    rim_owner
        (m,) which spot each of them is beside.
    expression
        (n, k) standardised components of what was measured.
    pitch
        Distance between neighbouring spots.
    """

    tissue: NDArray[np.floating]
    features: NDArray[np.floating]
    um_per_px: float
    centers: NDArray[np.float64]
    rim: NDArray[np.float64]
    rim_owner: NDArray[np.intp]
    expression: NDArray[np.float64]
    pitch: float

    def signals(self, matrix: NDArray[np.float64]) -> tuple[float, float]:
        """Tissue contrast and explained variance after a motion.

        The contrast is the tissue under the outermost spots less that under their rim; the
        explained variance is that of a linear regression of the expression on the image's
        features, mean over components. Both are at most 1, and flat where they know nothing.
        """
        centers = apply(matrix, self.centers)
        explained = explained_variance(basis_of(self.at(centers)), self.expression)
        return self.contrast(matrix), explained

    def contrast(self, matrix: NDArray[np.float64]) -> float:
        """Tissue under the outermost spots less that under their rim, after a motion."""
        centers, rim = apply(matrix, self.centers), apply(matrix, self.rim)
        known = self._inside(rim)  # beyond the border of the image, nothing is known
        if not known.any():
            return 0.0
        outermost = centers[self.rim_owner[known]]
        under = np.where(self._inside(outermost), self._at(self.tissue[None], outermost)[:, 0], 0)
        return float((under - self._at(self.tissue[None], rim[known])[:, 0]).mean())

    def at(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Features of the image at some places, (n, d)."""
        return self._at(self.features, points)

    def _inside(self, points: NDArray[np.float64]) -> NDArray[np.bool_]:
        edge = np.array(self.tissue.shape[::-1]) * self.um_per_px
        return np.asarray(((points >= 0) & (points <= edge)).all(axis=1))

    def _at(self, maps: NDArray[np.floating], points: NDArray[np.float64]) -> NDArray[np.float64]:
        x, y = (points / self.um_per_px - 0.5).T
        return np.column_stack(
            [ndimage.map_coordinates(each, [y, x], order=1, mode="nearest") for each in maps]
        ).astype(np.float64)


def pitch_of(centers: NDArray[np.float64]) -> float:
    """Distance of neighbouring spots: the median to the nearest."""
    distance, _ = cKDTree(centers).query(centers, k=2)
    return float(np.median(distance[:, 1]))


def rim_of(
    centers: NDArray[np.float64], pitch: float
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Places one pitch from a spot and from no other spot less, and the spot each belongs to."""
    angles = np.arange(_N_DIRECTIONS) * 2 * np.pi / _N_DIRECTIONS
    around = centers[:, None] + pitch * np.column_stack([np.cos(angles), np.sin(angles)])
    points, owner = around.reshape(-1, 2), np.repeat(np.arange(len(centers)), _N_DIRECTIONS)
    distance, _ = cKDTree(centers).query(points)
    # lattices are not drawn to the last µm
    free = distance > 0.95 * pitch
    return points[free], owner[free]


def basis_of(features: NDArray[np.float64]) -> NDArray[np.float64]:
    """Orthonormal basis of centred features, (n, at most d)."""
    centered = features - features.mean(axis=0)
    scale = centered.std(axis=0)
    varies = scale > 1e-9
    if not varies.any():
        return np.zeros((len(features), 0))
    basis, singular, _ = np.linalg.svd(centered[:, varies] / scale[varies], full_matrices=False)
    used: NDArray[np.float64] = basis[:, singular > 1e-6 * singular[0]]
    return used


def explained_variance(basis: NDArray[np.float64], expression: NDArray[np.float64]) -> float:
    """Share of the variance that a linear regression explains, mean over columns that vary."""
    spread = expression - expression.mean(axis=0)
    total = (spread**2).sum(axis=0)
    varies = total > 0
    if not varies.any():
        return 0.0
    return float((((basis.T @ spread[:, varies]) ** 2).sum(axis=0) / total[varies]).mean())
