"""Standard scores: fitted on training rows, inverted on prediction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


#: Elements of a block of columns: 32 MB as float64.
_BLOCK = 1 << 22


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
        # numpy takes a copy in float64 for the deviation: some columns at a time
        step = max(1, _BLOCK // max(1, len(values)))
        parts = range(0, values.shape[1], step)
        scale = np.concatenate(
            [np.zeros(0)]
            + [values[:, start : start + step].std(axis=0, dtype=np.float64) for start in parts]
        )
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
        scaled = np.asarray(values, dtype=np.float32) - self.mean
        scaled /= np.where(self.constant, np.float32(1), self.scale)
        scaled[..., self.constant] = 0
        return scaled

    def inverse(self, scaled: NDArray[np.floating]) -> NDArray[np.float32]:
        """Bring scaled values back to their units."""
        return np.asarray(scaled, dtype=np.float32) * self.scale + self.mean
