"""Units of predictions, fitted to the measured ones gene by gene."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Smallest slope as a share of the ratio of the standard deviations. A slope of 0 or below would
#: remove or reverse the pattern of a gene, which no change of units does.
_LEAST_SLOPE = 1e-3


def fit_units(
    measured: NDArray[np.float64], predicted: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """Intercept and slope of each gene by least squares, and how many slopes were not positive.

    Both matrices are (n_spots, n_genes), of the spots that the fit may use.
    """
    means = measured.mean(axis=0), predicted.mean(axis=0)
    centered = measured - means[0], predicted - means[1]
    spread = [np.sqrt((side**2).mean(axis=0)) for side in centered]
    can_fit = (spread[0] > 0) & (spread[1] > 0)
    ratio = np.divide(spread[0], spread[1], out=np.ones_like(spread[0]), where=can_fit)
    covariance = (centered[0] * centered[1]).mean(axis=0)
    slope = np.divide(covariance, spread[1] ** 2, out=np.ones_like(ratio), where=can_fit)
    least = _LEAST_SLOPE * ratio
    n_limited = int((slope < least).sum())
    slope = np.maximum(slope, least)
    return means[0] - slope * means[1], slope, n_limited
