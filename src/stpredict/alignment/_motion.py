"""Rigid and similarity motions of points."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def motion_matrix(
    shift: Sequence[float], *, angle: float = 0.0, log_scale: float = 0.0, center: Sequence[float]
) -> NDArray[np.float64]:
    """Matrix (3, 3) of a rotation and scaling about a centre, followed by a shift."""
    # the angle is in degrees, from x towards y
    cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    rotation = np.exp(log_scale) * np.array([[cos, -sin], [sin, cos]])
    matrix = np.eye(3)
    matrix[:2, :2] = rotation
    matrix[:2, 2] = np.asarray(center) - rotation @ np.asarray(center) + np.asarray(shift)
    return matrix


def move_points(matrix: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Apply a matrix (3, 3) to points (n, 2)."""
    moved: NDArray[np.float64] = points @ matrix[:2, :2].T + matrix[:2, 2]
    return moved
