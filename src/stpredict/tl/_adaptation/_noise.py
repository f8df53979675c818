"""Counting noise of measured values, and the signal of single spots that it leaves visible."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

#: Pairs of counts that are drawn of each gene in each spot.
_N_PAIRS = 4
#: Quantile of the genes' dispersion that is noise of all genes; more of a gene is signal. On halves
#: of the reads of HER2ST C2 to C4 it is about 0, also at 0.1, and 0.5 takes signal for noise.
_NOISE_QUANTILE = 0.25
#: Number of spots without signal of their own that every gene and direction has in addition.
_PRIOR_SPOTS = 4


@dataclass(frozen=True, eq=False)
class CountingNoise:
    """Noise of log(1 + counts per ``target_sum``) in spots of some total counts."""

    totals: NDArray[np.float64]  # (m,)
    target_sum: float

    def take(self, rows: NDArray[np.intp]) -> CountingNoise:
        return CountingNoise(self.totals[rows], self.target_sum)

    def variance(self, expected: Array, left: Array) -> Array:
        """Variance of each gene's noise, (n_genes,), mean over spots.

        That of Poisson counts around expected values (m, n_genes), plus that of a dispersion that
        all genes share, as far as measured values are ``left`` (m, n_genes) to explain.
        """
        poisson = self._poisson_variance(expected)
        # squared slope of log(1 + x) against log(x)
        slope = ((1 - np.exp(-np.maximum(expected, 0))) ** 2).mean(axis=0)
        is_expressed = slope > 0
        if not is_expressed.any():
            return poisson
        excess = (left**2).mean(axis=0) - poisson
        dispersion = np.quantile(excess[is_expressed] / slope[is_expressed], _NOISE_QUANTILE)
        return np.asarray(poisson + max(float(dispersion), 0.0) * slope)

    def _poisson_variance(self, expected: Array) -> Array:
        per_count = (self.target_sum / np.maximum(self.totals, 1))[:, None]
        most = np.log1p(self.target_sum)  # all counts of the spot are of this gene
        rates = np.expm1(np.clip(expected, 0, most)) / per_count
        random = np.random.default_rng(0)
        variance = np.zeros(expected.shape[1])
        for _ in range(_N_PAIRS):
            first, second = (np.log1p(per_count * random.poisson(rates)) for _ in range(2))
            variance += ((first - second) ** 2).mean(axis=0) / 2
        return variance / _N_PAIRS


def signal_of_spots(left: Array, noise: Array, directions: Array) -> tuple[Array, Array]:
    """Signal in what the processes leave of measured values, (m, n_genes), and its variance.

    Counts of different genes are independent, so that what exceeds the variance of the noise (of
    each gene, (n_genes,)) along a direction, or in what remains of a gene, is signal of the spots.
    Each spot's own signal is the share of the variance that is signal; (n_genes,) is the variance
    of the true signal around it.
    """
    scores = left @ directions.T
    share, variance = _share(scores, directions**2 @ noise)
    rest = left - scores @ directions
    rest_share, rest_variance = _share(rest, noise * (1 - (directions**2).sum(axis=0)))
    signal = (share * scores) @ directions + rest_share * rest
    return signal, variance @ directions**2 + rest_variance


def _share(values: Array, noise: Array) -> tuple[Array, Array]:
    """Share of the variance of values (m, k) that is not noise (k,), and what it leaves unknown."""
    total = (_PRIOR_SPOTS * noise + (values**2).sum(axis=0)) / (_PRIOR_SPOTS + len(values))
    noise_share = np.divide(noise, total, out=np.ones_like(noise), where=total > 0)
    share = 1 - np.clip(noise_share, 0, 1)
    return share, share * noise
