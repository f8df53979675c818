"""Standard scores: fitted on training rows, inverted after prediction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stpredict.targets._matrix import BLOCK


@dataclass(frozen=True)
class Standard:
    """Column-wise standardisation: subtract the mean, divide by the standard deviation.

    A constant column has scale 0. It is scaled to 0, and any value is scaled back to the constant.

    Attributes
    ----------
    mean, scale
        (n_columns,) float32.

    Raises
    ------
    ValueError
        If ``mean`` and ``scale`` differ in shape or are not finite, or a scale is negative.

    Examples
    --------
    >>> import numpy as np
    >>> from stpredict.targets import Standard
    >>> standard = Standard.fit(np.array([[1.0, 5.0], [3.0, 5.0]]))
    >>> standard.transform(np.array([[3.0, 7.0]]))
    array([[1., 0.]], dtype=float32)
    >>> standard.inverse(np.array([[1.0, 9.0]]))
    array([[3., 5.]], dtype=float32)
    """

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.mean.ndim != 1 or self.mean.shape != self.scale.shape:
            shapes = f"{self.mean.shape} and {self.scale.shape}"
            raise ValueError(f"mean and scale must be vectors of one length, not {shapes}")
        if not (np.isfinite(self.mean).all() and np.isfinite(self.scale).all()):
            raise ValueError("mean and scale must be finite")
        if (self.scale < 0).any():
            raise ValueError(f"scale has {int((self.scale < 0).sum())} negative values")

    @classmethod
    def fit(cls, values: NDArray[np.floating]) -> Standard:
        """Fit on training rows (n_rows, n_columns)."""
        mean = values.mean(axis=0, dtype=np.float64)
        # std copies the values as float64, so it takes blocks of columns
        step = max(1, BLOCK // max(1, len(values)))
        starts = range(0, values.shape[1], step)
        blocks = (values[:, start : start + step] for start in starts)
        scale = np.concatenate([np.zeros(0), *(block.std(0, np.float64) for block in blocks)])
        return cls.of_moments(mean, scale)

    @classmethod
    def of_moments(cls, mean: NDArray[np.float64], deviation: NDArray[np.float64]) -> Standard:
        """Standardisation with these means and standard deviations."""
        # rounding can give a constant column a standard deviation slightly above 0
        constant = deviation <= 1e-6 * np.maximum(np.abs(mean), 1e-6)
        return cls(mean.astype(np.float32), np.where(constant, 0.0, deviation).astype(np.float32))

    def times(self, factor: float | NDArray[np.floating]) -> Standard:
        """Scaling with ``factor`` times the scale, so that its results are smaller."""
        return Standard(self.mean, self.scale * np.asarray(factor, dtype=np.float32))

    @property
    def constant(self) -> NDArray[np.bool_]:
        """Columns without variance in training, (n_columns,)."""
        return self.scale == 0

    def transform(self, values: NDArray[np.floating]) -> NDArray[np.float32]:
        """Scale the last axis."""
        scaled = np.asarray(values, dtype=np.float32) - self.mean
        scaled /= np.where(self.constant, np.float32(1), self.scale)
        scaled[..., self.constant] = 0
        return scaled

    def inverse(self, scaled: NDArray[np.floating]) -> NDArray[np.float32]:
        """Convert scaled values back to their units."""
        return np.asarray(scaled, dtype=np.float32) * self.scale + self.mean
