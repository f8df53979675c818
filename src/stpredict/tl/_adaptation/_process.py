"""Gaussian processes over space and features, averaged over a grid of hyperparameters."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.linalg import cholesky, solve_triangular
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist
from scipy.special import softmax

from stpredict.targets import Standard
from stpredict.tl._prediction._blocks import split_blocks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

#: Measured spots whose hyperparameters are weighted together: the evidence of many spots is the
#: product over blocks of neighbouring spots.
_BLOCK = 400
#: Measured spots that the signal of a spot depends on at most: of more, the nearest to its block.
_MOST_NEAR = 1600
#: Places whose covariance with measured spots is in memory at a time.
_PLACES = 4096
#: Hyperparameters that weigh less in every column are left out.
_LEAST_WEIGHT = 0.01
#: Variance of an offset that all spots of a section share, relative to that over space.
_OFFSET = 1.0


class Covariance(NamedTuple):
    """Hyperparameters of a Gaussian process; its signal variance is estimated in closed form."""

    length: float  # of the squared exponential kernel over space, in distances between spots
    linear: float  # variance of the linear kernel over features, relative to that over space
    noise: float  # variance of the noise, relative to that over space


@dataclass(frozen=True)
class Grid:
    """Hyperparameters that are averaged over, and what is expected of the noise."""

    lengths: tuple[float, ...]
    linear: tuple[float, ...]
    noises: tuple[float, ...]
    noise: float  # median of the log-normal prior of the noise
    noise_spread: float  # standard deviation of its logarithm
    length: float = 2.0  # the same for the length
    length_spread: float = 0.4

    def covariances(self) -> list[Covariance]:
        """All combinations."""
        return list(map(Covariance._make, product(self.lengths, self.linear, self.noises)))

    def log_prior(self, covariance: Covariance) -> float:
        """Logarithm of the prior, up to a constant."""
        noise = np.log(covariance.noise / self.noise) / self.noise_spread
        length = np.log(covariance.length / self.length) / self.length_spread
        return float(-(noise**2 + length**2) / 2)


@dataclass(frozen=True, eq=False)
class Places:
    """Spots of one section, as the covariance sees them."""

    positions: NDArray[np.float64]  # (n, 2), in distances between spots
    features: NDArray[np.float64]  # (n, d), scaled so that the mean square norm is 1

    def __len__(self) -> int:
        return len(self.positions)

    def take(self, rows: NDArray[np.intp]) -> Places:
        return Places(self.positions[rows], self.features[rows])

    def kernel(self, others: Places, covariance: Covariance) -> NDArray[np.float64]:
        """Covariance of the signal between two lists of spots, (n, n_others)."""
        distances = cdist(self.positions, others.positions, "sqeuclidean")
        space = np.exp(-distances / (2 * covariance.length**2))
        return space + _OFFSET + covariance.linear * (self.features @ others.features.T)

    def variance(self, covariance: Covariance) -> NDArray[np.float64]:
        """Variance of the signal in every spot, (n,)."""
        return 1 + _OFFSET + covariance.linear * (self.features**2).sum(axis=1)


def standardised(
    embedding: NDArray[np.floating], *others: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Standard scores of the features of a section, (n, d), then those of others on this scale."""
    scaler = Standard.fit(embedding)
    features = scaler.transform(embedding).astype(np.float64)
    norm = np.sqrt((features**2).sum(axis=1).mean())
    parts = [features, *(scaler.transform(other).astype(np.float64) for other in others)]
    return np.concatenate(parts) / (norm if norm > 0 else 1)


@dataclass(eq=False)
class Posterior:
    """Mean and variance of the signal of each column, given the measured values."""

    mean: NDArray[np.float64]  # (n, k)
    square: NDArray[np.float64] = field(repr=False)  # (n, k), mean of the squared signal

    @classmethod
    def zeros(cls, n_rows: int, n_columns: int) -> Posterior:
        return cls(np.zeros((n_rows, n_columns)), np.zeros((n_rows, n_columns)))

    def add(
        self,
        rows: NDArray[np.intp],
        weights: NDArray[np.float64],
        mean: NDArray[np.float64],
        variance: NDArray[np.float64],
    ) -> None:
        """Add the posterior of some hyperparameters in some rows, with a weight for each column."""
        self.mean[rows] += weights * mean
        self.square[rows] += weights * (mean**2 + variance)

    @property
    def variance(self) -> NDArray[np.float64]:
        return np.maximum(self.square - self.mean**2, 0)


def average(
    places: Places, rows: NDArray[np.intp], values: NDArray[np.float64], grid: Grid
) -> tuple[Posterior, Posterior]:
    """Posterior of the signal in all places, and of that of each measured spot without itself.

    ``values`` (m, k) were measured in ``rows`` (m,). Each of the k columns has weights of its own
    for the hyperparameters: their prior times their marginal likelihood.
    """
    measured, n_columns = places.take(rows), values.shape[1]
    everywhere = Posterior.zeros(len(places), n_columns)
    left_out = Posterior.zeros(len(rows), n_columns)
    if n_columns == 0:
        return everywhere, left_out
    covariances = grid.covariances()
    weights = _weights(measured, values, covariances, grid)
    used = [pair for pair in zip(covariances, weights, strict=True) if pair[1].any()]
    for part, own, near in _neighborhoods(places, measured):
        own_places, near_measured, near_values = (
            places.take(part),
            measured.take(near),
            values[near],
        )
        for covariance, weight in used:
            process = _Process.fit(near_measured, near_values, covariance)
            everywhere.add(part, weight, *process.predict(own_places))
            left_out.add(own, weight, *process.leave_out(len(own)))
    return everywhere, left_out


def _neighborhoods(
    places: Places, measured: Places
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]]:
    """Places of a block, its measured spots, and these followed by other measured spots nearby."""
    n_measured = len(measured)
    if n_measured <= _MOST_NEAR:
        blocks = [np.arange(n_measured)]
    else:
        blocks = split_blocks(measured.positions, np.arange(n_measured), most=_BLOCK)
    block_of = np.empty(n_measured, dtype=np.intp)
    for number, own in enumerate(blocks):
        block_of[own] = number
    block_of_place = block_of[cKDTree(measured.positions).query(places.positions)[1]]
    for number, own in enumerate(blocks):
        low, high = measured.positions[own].min(axis=0), measured.positions[own].max(axis=0)
        beyond = measured.positions - np.clip(measured.positions, low, high)
        order = np.argsort((beyond**2).sum(axis=1), kind="stable")
        others = order[block_of[order] != number]
        near = np.concatenate([own, others])[:_MOST_NEAR]
        yield np.flatnonzero(block_of_place == number), own, near


@dataclass(frozen=True, eq=False)
class _Process:
    """A Gaussian process with given hyperparameters, fitted to columns of measured values."""

    measured: Places
    values: NDArray[np.float64]  # (m, k)
    covariance: Covariance
    factor: NDArray[np.float64]  # (m, m), Cholesky factor of the covariance of measured values
    coefficients: NDArray[np.float64]  # (m, k)
    scale: NDArray[np.float64]  # (k,), variance of the signal over space

    @classmethod
    def fit(cls, measured: Places, values: NDArray[np.float64], covariance: Covariance) -> _Process:
        factor = _factor(measured, covariance)
        whitened = solve_triangular(factor, values, lower=True)
        coefficients = solve_triangular(factor, whitened, lower=True, trans="T")
        scale = (whitened**2).mean(axis=0)
        return cls(measured, values, covariance, factor, coefficients, scale)

    def predict(self, places: Places) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and variance of the signal in some places, (n, k)."""
        means, variances = [np.zeros((0, len(self.scale)))], [np.zeros(0)]
        for start in range(0, len(places), _PLACES):
            part = places.take(np.arange(start, min(start + _PLACES, len(places))))
            cross = self.measured.kernel(part, self.covariance)
            explained = (solve_triangular(self.factor, cross, lower=True) ** 2).sum(axis=0)
            means.append(cross.T @ self.coefficients)
            variances.append(np.maximum(part.variance(self.covariance) - explained, 0))
        return np.concatenate(means), np.concatenate(variances)[:, None] * self.scale

    def leave_out(self, n_first: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and variance of the signal in each of the first measured spots without itself."""
        inverse = solve_triangular(self.factor, np.eye(len(self.factor)), lower=True)
        precision = (inverse**2).sum(axis=0)[:n_first, None]
        # the variance of a value that is left out is that of the signal and of the noise
        signal = np.maximum(1 / precision - self.covariance.noise, 0)
        mean = self.values[:n_first] - self.coefficients[:n_first] / precision
        return mean, signal * self.scale


def _weights(
    measured: Places, values: NDArray[np.float64], covariances: list[Covariance], grid: Grid
) -> NDArray[np.float64]:
    """Weights of the hyperparameters, (n_covariances, k); those of a column sum to 1."""
    rows_of_blocks = split_blocks(measured.positions, np.arange(len(measured)), most=_BLOCK)
    blocks = [(measured.take(rows), values[rows]) for rows in rows_of_blocks]
    evidence = np.array([log_evidence(blocks, each) + grid.log_prior(each) for each in covariances])
    weights = softmax(evidence, axis=0)
    weights[weights.max(axis=1) < _LEAST_WEIGHT] = 0
    return np.asarray(weights / weights.sum(axis=0))


def log_evidence(
    blocks: list[tuple[Places, NDArray[np.float64]]], covariance: Covariance
) -> NDArray[np.float64]:
    """Log marginal likelihood of each column at its best signal variance, up to a constant."""
    log_determinant, squares, n_rows = 0.0, 0.0, 0
    for places, values in blocks:
        factor = _factor(places, covariance)
        log_determinant += 2 * np.log(np.diag(factor)).sum()
        squares = squares + (solve_triangular(factor, values, lower=True) ** 2).sum(axis=0)
        n_rows += len(values)
    # a column of zeros has no scale
    return np.asarray(-(log_determinant + n_rows * np.log(np.maximum(squares, 1e-300))) / 2)


def _factor(places: Places, covariance: Covariance) -> NDArray[np.float64]:
    """Cholesky factor of the covariance of measured values."""
    matrix = places.kernel(places, covariance)
    matrix[np.diag_indices_from(matrix)] += covariance.noise
    return np.asarray(cholesky(matrix, lower=True))
