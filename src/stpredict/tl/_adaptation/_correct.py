"""Corrected predictions of one section: shared directions, single genes, and intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from sklearn.decomposition import PCA

from stpredict.tl._adaptation._noise import signal_of_spots
from stpredict.tl._adaptation._process import Grid, average

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stpredict.tl._adaptation._noise import CountingNoise
    from stpredict.tl._adaptation._process import Places

    Array = NDArray[np.float64]

#: Coverage of the intervals.
LEVEL = 0.9
#: Directions of the genes whose errors are corrected together. All constants of this module were
#: set on sections C2 to C4 of HER2ST, each predicted from the other two.
N_DIRECTIONS = 12
#: Errors along these directions are smooth over 1 to 5 distances between spots.
SHARED = Grid(
    lengths=(1.0, 1.5, 2.0, 3.0, 5.0),
    linear=(0.0, 0.1, 0.3, 1.0),
    noises=(0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 64.0),
    noise=3.0,
    noise_spread=1.0,
)
#: What remains of single genes is mostly noise.
SINGLE = Grid(
    lengths=(2.0,),
    linear=(0.1,),
    noises=(4.0, 16.0, 64.0, 256.0, 1024.0),
    noise=64.0,
    noise_spread=2.0,
)
#: Number of spots that the variance over all genes counts as, in that of each gene.
_PRIOR_SPOTS = 4
#: Largest share of the expected error of a gene that is signal; the rest is noise.
_MOST_SIGNAL = 0.8
#: Factors of the variance of the signal beyond its mean over measured spots: processes are too sure
#: of unusual tiles and of places far from measured spots. More than 4 gives too wide intervals
#: where half of a section is measured.
_UNUSUAL = (1.0, 2.0, 4.0)


@dataclass(frozen=True, eq=False)
class Corrected:
    """Predictions of places in one section, each (n, n_genes)."""

    values: Array
    std: Array  # of a measured value around its prediction
    lower: Array
    upper: Array

    def after(self, n_first: int) -> Corrected:
        """Without the first places."""
        parts = (self.values, self.std, self.lower, self.upper)
        return Corrected(*(part[n_first:] for part in parts))


def correct(
    places: Places,
    rows: NDArray[np.intp],
    predicted: Array,
    measured: Array,
    *,
    directions: Array,
    nonnegative: bool,
    noise: CountingNoise | None = None,
) -> Corrected:
    """Correct predictions (n, n_genes) by the values (m, n_genes) measured in ``rows`` (m,).

    ``directions`` (k, n_genes) are orthonormal. If the noise of the measured values is known, their
    spots have a signal of their own, which says nothing about other spots.
    """
    residuals = measured - predicted[rows]
    scores = residuals @ directions.T
    shared, shared_left_out = average(places, rows, scores, SHARED)
    single, single_left_out = average(places, rows, residuals - scores @ directions, SINGLE)
    values = predicted + shared.mean @ directions + single.mean
    left_out = predicted[rows] + shared_left_out.mean @ directions + single_left_out.mean
    if nonnegative:
        values, left_out = np.maximum(values, 0), np.maximum(left_out, 0)
    signal = shared.variance @ directions**2 + single.variance
    std, lowest, highest = _errors(
        measured - left_out,
        shared_left_out.variance @ directions**2 + single_left_out.variance,
        signal,
    )
    if noise is not None:
        left = measured - values[rows]
        counted = noise.variance(values[rows], left)
        own, uncertain = signal_of_spots(left, counted, directions)
        values[rows] = np.maximum(values[rows] + own, 0)  # log(1 + x) is not negative
        std[rows] = np.sqrt(signal[rows] + uncertain + counted)
    lower, upper = values + lowest * std, values + highest * std
    if nonnegative:
        lower, upper = np.maximum(lower, 0), np.maximum(upper, 0)
    return Corrected(values, std, lower, upper)


def main_directions(values: Array) -> Array:
    """Orthonormal directions of the genes in which values (n, n_genes) vary most, (k, n_genes)."""
    # below the rounding of float32, in which models predict, nothing varies
    if (values.std(axis=0) <= 1e-6 * np.abs(values).max()).all():
        return np.zeros((0, values.shape[1]))
    n_directions = min(N_DIRECTIONS, *values.shape)
    solver = "arpack" if n_directions < min(values.shape) else "full"
    pca = PCA(n_directions, svd_solver=solver, random_state=0).fit(values)
    return np.asarray(pca.components_[pca.singular_values_ > 1e-6 * pca.singular_values_.max()])


def _errors(errors: Array, left_out: Array, signal: Array) -> tuple[Array, float, float]:
    """Standard deviation of measured values, (n, n_genes), and the offsets of intervals in it.

    ``errors`` and ``left_out`` (m, n_genes) are errors of measured spots that were left out and the
    variance of their signal, ``signal`` (n, n_genes) is that variance in all spots.
    """
    n_measured, squares = len(errors), errors**2
    prior = _PRIOR_SPOTS * max(float(squares.mean()), 1e-12)
    total = prior + squares.sum(axis=0)
    expected = total / (_PRIOR_SPOTS + n_measured)
    # the noise of a gene is scored without the spot's own error
    others = (total - squares) / (_PRIOR_SPOTS + n_measured - 1)
    usual = left_out.mean(axis=0)

    def variance(total: Array, signal: Array, factor: float) -> Array:
        beyond = (factor - 1) * np.maximum(left_out - usual, 0).mean(axis=0)
        signal_share = np.minimum((usual + beyond) / expected, _MOST_SIGNAL)
        unusual = (factor - 1) * np.maximum(signal - usual, 0)
        return np.asarray(total * (1 - signal_share) + signal + unusual)

    def misfit(factor: float) -> float:
        scored = variance(others, left_out, factor)
        return float((np.log(scored) + squares / scored).mean())

    factor = min(_UNUSUAL, key=misfit)
    scaled = errors / np.sqrt(variance(others, left_out, factor))
    lowest, highest = np.quantile(scaled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    std = np.sqrt(variance(expected, signal, factor))
    return std, min(float(lowest), 0.0), max(float(highest), 0.0)
