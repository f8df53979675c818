"""Standard scores: fitted on training rows, inverted on prediction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Standard:
    """Subtract the mean, divide by the standard deviation, column by column.

    A constant column has scale 0: scaled it is 0, and scaled back it is its constant whatever a
    network says.

    Attributes
    ----------
    mean, scale
        (n_columns,) float32.

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
            raise ValueError(
                f"mean and scale must be vectors of one length: {self.mean.shape} and "
                f"{self.scale.shape}"
            )
        if not (np.isfinite(self.mean).all() and np.isfinite(self.scale).all()):
            raise ValueError("mean and scale must be finite")

    @classmethod
    def fit(cls, values: NDArray[np.floating]) -> Standard:
        """Fit on training rows (n_rows, n_columns)."""
        mean = values.mean(axis=0, dtype=np.float64)
        scale = values.std(axis=0, dtype=np.float64)
        # of a constant, rounding leaves a standard deviation near 0
        constant = scale <= 1e-6 * np.maximum(np.abs(mean), 1e-6)
        return cls(mean.astype(np.float32), np.where(constant, 0.0, scale).astype(np.float32))

    def times(self, factor: float) -> Standard:
        """Return the scaling whose result is smaller by a factor."""
        return Standard(self.mean, self.scale * np.float32(factor))

    @property
    def constant(self) -> NDArray[np.bool_]:
        """Columns without variance in training, (n_columns,)."""
        return self.scale == 0

    def transform(self, values: NDArray[np.floating]) -> NDArray[np.float32]:
        """Scale the last axis."""
        divisor = np.where(self.constant, np.float32(1), self.scale)
        scaled = (np.asarray(values, dtype=np.float32) - self.mean) / divisor
        return np.where(self.constant, np.float32(0), scaled)

    def inverse(self, scaled: NDArray[np.floating]) -> NDArray[np.float32]:
        """Bring scaled values back to their units."""
        return np.asarray(scaled, dtype=np.float32) * self.scale + self.mean
