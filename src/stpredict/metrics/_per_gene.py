"""Metrics of every gene over the spots of a section."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stpredict import _validate
from stpredict._arguments import checked
from stpredict.metrics._blocks import GENES, blocks, check_pair
from stpredict.metrics._docs import documented
from stpredict.metrics._scores import METRICS, Pair

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stpredict.metrics._blocks import Values


@checked
def per_gene(
    measured: Values,
    predicted: Values,
    *,
    names: Sequence[str] | None = None,
) -> dict[str, NDArray[np.float64]]:
    """Several metrics of every gene in one pass: the arrays are read and ranked only once.

    Arrays are processed a few genes at a time in float64: a million spots with 5,000 genes need
    less than 8 GB of additional memory, and a lazy array is never loaded as a whole.

    Parameters
    ----------
    measured, predicted
        (n_spots, n_genes) values each: dense, scipy sparse, or dask. Lazy arrays chunked along
        genes are computed once; those chunked along spots once per gigabyte of dense values.
    names
        Metrics to compute, each documented in the function of the same name. By default all,
        with those of :func:`stpredict.metrics.register`, except ``average_precision``.

    Returns
    -------
    For every metric an array (n_genes,) float64.

    Raises
    ------
    KeyError
        If a metric is unknown.
    ValueError
        If the shapes differ, there are fewer than two spots, or a value is NaN.

    Examples
    --------
    >>> from stpredict import metrics
    >>> measured, predicted = [[0.0], [1.0], [9.0]], [[1.0], [3.0], [5.0]]
    >>> metrics.per_gene(measured, predicted, names=["spearman", "auc"])
    {'spearman': array([1.]), 'auc': array([1.])}
    """
    functions = {name: record.function for name, record in METRICS.items() if record.function}
    if names is None:
        names = [name for name in functions if not METRICS[name].binary_only]
    unknown = [name for name in names if name not in functions]
    if unknown:
        choices = ", ".join(functions)
        listed = _validate.listing(map(repr, unknown))
        raise KeyError(f"names= has no metrics per gene {listed}; choose from {choices}")
    measured, predicted = check_pair(measured, predicted)
    scores = {name: np.empty(measured.shape[1]) for name in names}
    for genes, rows in blocks(GENES, measured=measured, predicted=predicted):
        pair = Pair(*rows)  # caches centred values and ranks for all metrics
        for name in names:
            scores[name][genes] = functions[name](pair)
    return scores


@checked
@documented("array([1.  , 0.89])")
def pcc(measured: Values, predicted: Values) -> NDArray[np.float64]:
    """Pearson correlation of every gene.

    Returns
    -------
    (n_genes,) float64 in [-1, 1]. 0 if either side is constant (varies by less than a millionth of
    its largest value), so that a gene without a correlation counts as not predicted.
    """
    return per_gene(measured, predicted, names=["pcc"])["pcc"]


@checked
@documented("array([1., 1.])")
def spearman(measured: Values, predicted: Values) -> NDArray[np.float64]:
    """Spearman correlation of every gene: the Pearson correlation of ranks.

    Returns
    -------
    (n_genes,) float64 in [-1, 1]. Ties get their mean rank; 0 if either side is constant.
    """
    return per_gene(measured, predicted, names=["spearman"])["spearman"]


@checked
@documented("array([0.82, 0.82])")
def rmse(measured: Values, predicted: Values) -> NDArray[np.float64]:
    """Root mean squared error of every gene, in the units of the values.

    Returns
    -------
    (n_genes,) float64, at least 0; 0 is perfect.
    """
    return per_gene(measured, predicted, names=["rmse"])["rmse"]


@checked
@documented("array([0.67, 0.67])")
def mae(measured: Values, predicted: Values) -> NDArray[np.float64]:
    """Mean absolute error of every gene, in the units of the values.

    Returns
    -------
    (n_genes,) float64, at least 0; 0 is perfect.
    """
    return per_gene(measured, predicted, names=["mae"])["mae"]


@checked
@documented("array([0.75, 0.77])")
def explained_variance(measured: Values, predicted: Values) -> NDArray[np.float64]:
    """Share of the measured variance of every gene that the prediction explains.

    ``1 - var(measured - predicted) / var(measured)``: R² without the penalty for a constant offset.

    Returns
    -------
    (n_genes,) float64, at most 1, which is perfect. 0 for a constant prediction, negative for one
    that is worse, and 0 if the measured gene is constant and has no variance to explain.
    """
    return per_gene(measured, predicted, names=["explained_variance"])["explained_variance"]


@checked
@documented("array([0.25, 0.54])")
def variance_ratio(measured: Values, predicted: Values) -> NDArray[np.float64]:
    """Predicted variance of every gene divided by its measured variance.

    Models trained on squared errors shrink towards the mean. Measurement noise cannot be predicted,
    so the ratio of a perfect model is the reliability of the gene (`noise_ceiling`), not 1.

    Returns
    -------
    (n_genes,) float64, at least 0. 0 if the prediction is constant; NaN if the measured gene is
    constant: average with `numpy.nanmean`.
    """
    return per_gene(measured, predicted, names=["variance_ratio"])["variance_ratio"]


@checked
@documented("array([1., 1.])")
def auc(measured: Values, predicted: Values) -> NDArray[np.float64]:
    """Area under the ROC curve of every gene, for spots with counts against spots without.

    The probability that a spot where the measured gene is not 0 is predicted higher than a spot
    where it is 0 (Hanley and McNeil, The meaning and use of the area under a receiver operating
    characteristic (ROC) curve, Radiology 1982). For counts and their logarithm, not for scaled or
    centred values.

    Returns
    -------
    (n_genes,) float64 in [0, 1]; 0.5 is chance. Ties in the prediction count half, so that a
    constant prediction scores 0.5. NaN if the measured gene is 0 in all spots or in none: average
    with `numpy.nanmean`.
    """
    return per_gene(measured, predicted, names=["auc"])["auc"]


@checked
@documented("array([1., 1.])")
def average_precision(measured: Values, predicted: Values) -> NDArray[np.float64]:
    """Area under the precision-recall curve of every gene, for spots with counts against without.

    The mean, over the spots where the measured gene is not 0, of the share of such spots among all
    that are predicted as high or higher, as in scikit-learn. For rare genes it falls with false
    positives, which hardly change `auc`.

    Returns
    -------
    (n_genes,) float64 in [0, 1]. A constant prediction scores the share of spots that are not 0,
    which is chance. NaN if the measured gene is 0 in all spots: average with `numpy.nanmean`.
    """
    return per_gene(measured, predicted, names=["average_precision"])["average_precision"]
