"""Errors and variances of every gene."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stpredict.metrics._per_gene import per_gene

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from stpredict.metrics._blocks import Values


def rmse(measured: Values, predicted: Values) -> NDArray[np.float64]:
    """Root mean squared error of every gene, in the units of the values.

    Parameters
    ----------
    measured, predicted
        (n_spots, n_genes) values each: dense, scipy sparse, or dask; see `per_gene`.

    Returns
    -------
    (n_genes,) float64, at least 0; 0 is perfect. Constant genes need no special treatment.

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
    return per_gene(measured, predicted, names=["rmse"])["rmse"]


def mae(measured: Values, predicted: Values) -> NDArray[np.float64]:
    """Mean absolute error of every gene, in the units of the values.

    Parameters
    ----------
    measured, predicted
        (n_spots, n_genes) values each: dense, scipy sparse, or dask; see `per_gene`.

    Returns
    -------
    (n_genes,) float64, at least 0; 0 is perfect. Constant genes need no special treatment.

    Raises
    ------
    ValueError
        If the shapes differ, there are fewer than two spots, or a value is NaN.

    Examples
    --------
    >>> import numpy as np
    >>> from stpredict import metrics
    >>> metrics.mae(np.array([[0.0], [1.0]]), np.array([[3.0], [5.0]]))
    array([3.5])
    """
    return per_gene(measured, predicted, names=["mae"])["mae"]


def explained_variance(measured: Values, predicted: Values) -> NDArray[np.float64]:
    """Share of the measured variance of every gene that the prediction explains.

    ``1 - var(measured - predicted) / var(measured)``: R² without the penalty for a constant offset.

    Parameters
    ----------
    measured, predicted
        (n_spots, n_genes) values each: dense, scipy sparse, or dask; see `per_gene`.

    Returns
    -------
    (n_genes,) float64, at most 1, which is perfect. 0 for a constant prediction, negative for one
    that is worse, and 0 if the measured gene is constant and has no variance to explain.

    Raises
    ------
    ValueError
        If the shapes differ, there are fewer than two spots, or a value is NaN.

    Examples
    --------
    >>> import numpy as np
    >>> from stpredict import metrics
    >>> metrics.explained_variance(np.array([[0.0], [2.0], [4.0]]), np.array([[1.0], [2.0], [3.0]]))
    array([0.75])
    """
    return per_gene(measured, predicted, names=["explained_variance"])["explained_variance"]


def variance_ratio(measured: Values, predicted: Values) -> NDArray[np.float64]:
    """Predicted variance of every gene divided by its measured variance.

    Models trained on squared errors shrink towards the mean. Measurement noise cannot be predicted,
    so the ratio of a perfect model is the reliability of the gene (`noise_ceiling`), not 1.

    Parameters
    ----------
    measured, predicted
        (n_spots, n_genes) values each: dense, scipy sparse, or dask; see `per_gene`.

    Returns
    -------
    (n_genes,) float64, at least 0. 0 if the prediction is constant; NaN if the measured gene is
    constant: average with `numpy.nanmean`.

    Raises
    ------
    ValueError
        If the shapes differ, there are fewer than two spots, or a value is NaN.

    Examples
    --------
    >>> import numpy as np
    >>> from stpredict import metrics
    >>> metrics.variance_ratio(np.array([[0.0], [2.0], [4.0]]), np.array([[1.0], [2.0], [3.0]]))
    array([0.25])
    """
    return per_gene(measured, predicted, names=["variance_ratio"])["variance_ratio"]
