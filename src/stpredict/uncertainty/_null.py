"""Predictions moved about the section."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import KDTree

if TYPE_CHECKING:
    from numpy.typing import NDArray


def spatial_null(
    positions: NDArray[np.floating], *, generator: np.random.Generator
) -> NDArray[np.intp]:
    """Which spot's prediction every spot is given, after a random turn and shift of the section."""
    low, extent = positions.min(axis=0), np.maximum(np.ptp(positions, axis=0), 1e-9)
    angle = generator.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    center = positions.mean(axis=0)
    turned = (positions - center) @ turn.T + center - low
    moved = low + (turned + generator.uniform(0, 1, 2) * extent) % extent
    return np.asarray(KDTree(positions).query(moved)[1], dtype=np.intp)
