"""Profiles of sections, compared with the two halves of one section."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import norm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    #: Profiles of the two halves of each section, (n_sections, 2, n_features).
    Halves = NDArray[np.float64]

#: Permutations of the genes, which only estimate a standard deviation.
_N_PERMUTATIONS = 200


def half_of_spots(positions: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Split spots (n, 2) in two along the longest axis of the tissue, (n,)."""
    centered = positions - positions.mean(axis=0)
    along = centered @ np.linalg.svd(centered, full_matrices=False)[2][0]
    second = np.zeros(len(positions), dtype=bool)
    second[np.argsort(along, kind="stable")[len(positions) // 2 :]] = True
    return second


def differences(halves: Halves) -> NDArray[np.float64]:
    """Mean squared difference of two sections relative to two halves of one, (n, n).

    Both contain the noise of half a section, so that sections of the same tissue without any
    difference have 1.
    """
    within = ((halves[:, 0] - halves[:, 1]) ** 2).mean()
    between = np.zeros((len(halves), len(halves)))
    for i, j in product((0, 1), repeat=2):
        difference = halves[:, None, i] - halves[None, :, j]
        between += (difference**2).mean(axis=-1) / 4
    return between / within if within > 0 else np.full_like(between, np.nan)


def similarities(halves: Halves, labels: Sequence[str]) -> NDArray[np.float64]:
    """Correlation of what distinguishes two sections from all, (n, n): halves of one have 1."""
    residuals = _residuals(halves, labels)
    mean = residuals.mean(axis=1)
    # the noise of two halves is independent
    scale = np.sqrt(np.maximum((residuals[:, 0] * residuals[:, 1]).sum(axis=1), 1e-12))
    return np.clip(mean @ mean.T / np.outer(scale, scale), -1, 1)


def z_scores(
    halves: Halves, labels: Sequence[str], random: np.random.Generator
) -> NDArray[np.float64]:
    """Products of residuals in standard deviations over permutations of the genes, (n, n)."""
    mean = _residuals(halves, labels).mean(axis=1)
    squares = np.zeros((len(mean), len(mean)))
    for _ in range(_N_PERMUTATIONS):
        squares += (mean @ mean[:, random.permutation(mean.shape[1])].T) ** 2 / _N_PERMUTATIONS
    deviation = np.sqrt((squares + squares.T) / 2)
    return np.divide(mean @ mean.T, deviation, out=np.zeros_like(deviation), where=deviation > 0)


def holm(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """One-sided p values of z scores (n,), adjusted for their number."""
    p = norm.sf(z)
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    return adjusted.clip(max=1)


def _residuals(halves: Halves, labels: Sequence[str]) -> Halves:
    """Difference from the mean over labels, so that many sections of one donor weigh as one."""
    by_section = halves.mean(axis=1)
    index = np.unique(np.asarray(labels), return_inverse=True)[1]
    center = np.mean([by_section[index == i].mean(axis=0) for i in range(index.max() + 1)], axis=0)
    return halves - center
