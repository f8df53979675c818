"""Agreement of predicted and measured expression, gene by gene."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import rankdata

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Deviations below this share of the largest value are rounding, not variation.
_ROUNDING = 1e-6


def pcc(measured: NDArray[np.floating], predicted: NDArray[np.floating]) -> NDArray[np.float64]:
    """Pearson correlation of every gene over the spots of one section.

    Parameters
    ----------
    measured, predicted
        (n_spots, n_genes).

    Returns
    -------
    (n_genes,) float64 in [-1, 1]; 0 where either side is constant, so that a gene that cannot be
    correlated counts as one that was not predicted.

    Raises
    ------
    ValueError
        If the shapes differ, there are fewer than two spots, or a value is NaN.

    Examples
    --------
    >>> import numpy as np
    >>> from stpredict import metrics
    >>> metrics.pcc(np.array([[0.0], [1.0], [2.0]]), np.array([[1.0], [3.0], [5.0]]))
    array([1.])
    """
    _check(measured, predicted)
    x, y = _center(measured), _center(predicted)
    norm = np.linalg.norm(x, axis=0) * np.linalg.norm(y, axis=0)
    products = np.einsum("ij,ij->j", x, y)
    return np.clip(np.divide(products, norm, out=np.zeros_like(norm), where=norm > 0), -1, 1)


def spearman(
    measured: NDArray[np.floating], predicted: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Spearman correlation of every gene over the spots of one section; ties share their rank.

    Parameters
    ----------
    measured, predicted
        (n_spots, n_genes).

    Returns
    -------
    (n_genes,) float64 in [-1, 1]; 0 where either side is constant, as for `pcc`.

    Raises
    ------
    ValueError
        If the shapes differ, there are fewer than two spots, or a value is NaN.

    Examples
    --------
    >>> import numpy as np
    >>> from stpredict import metrics
    >>> metrics.spearman(np.array([[0.0], [1.0], [9.0]]), np.array([[1.0], [3.0], [5.0]]))
    array([1.])
    """
    _check(measured, predicted)
    return pcc(rankdata(measured, axis=0), rankdata(predicted, axis=0))


def rmse(measured: NDArray[np.floating], predicted: NDArray[np.floating]) -> NDArray[np.float64]:
    """Root mean squared error of every gene, in the units of the values.

    Parameters
    ----------
    measured, predicted
        (n_spots, n_genes).

    Returns
    -------
    (n_genes,) float64.

    Raises
    ------
    ValueError
        If the shapes differ, there are fewer than two spots, or a value is NaN.

    Examples
    --------
    >>> import numpy as np
    >>> from stpredict import metrics
    >>> metrics.rmse(np.array([[0.0], [1.0]]), np.array([[3.0], [4.0]]))
    array([3.])
    """
    _check(measured, predicted)
    difference = np.asarray(measured, dtype=np.float64) - predicted
    return np.sqrt(np.mean(difference**2, axis=0))


def _check(measured: NDArray[np.floating], predicted: NDArray[np.floating]) -> None:
    if np.ndim(measured) != 2 or np.shape(measured) != np.shape(predicted):
        raise ValueError(
            "measured and predicted must both be (n_spots, n_genes): "
            f"{np.shape(measured)} and {np.shape(predicted)}"
        )
    if len(measured) < 2:
        raise ValueError(f"a score needs at least two spots, found {len(measured)}")
    for name, values in (("measured", measured), ("predicted", predicted)):
        n_bad = int(np.count_nonzero(~np.isfinite(values)))
        if n_bad:
            raise ValueError(f"{n_bad} {name} values are NaN or infinite")


def _center(values: NDArray[np.floating]) -> NDArray[np.float64]:
    values = np.asarray(values, dtype=np.float64)
    centered = values - values.mean(axis=0)
    constant = np.ptp(values, axis=0) <= _ROUNDING * np.abs(values).max(axis=0)
    centered[:, constant] = 0
    return centered
