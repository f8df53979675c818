"""Metrics of every gene over the spots of a section."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stpredict.metrics._blocks import GENES, blocks, check_pair
from stpredict.metrics._record import METRICS
from stpredict.metrics._scores import Pair

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stpredict.metrics._blocks import Values


def per_gene(
    measured: Values,
    predicted: Values,
    *,
    names: Sequence[str] = (
        "pcc",
        "spearman",
        "rmse",
        "mae",
        "explained_variance",
        "variance_ratio",
        "auc",
    ),
) -> dict[str, NDArray[np.float64]]:
    """Several metrics of every gene in one pass: the arrays are read and ranked only once.

    Arrays are processed a few genes at a time, so that a million spots with 5,000 genes need less
    than 8 GB of additional memory and a lazy array is never loaded as a whole. Values are computed
    in float64 and do not depend on the container.

    Parameters
    ----------
    measured, predicted
        (n_spots, n_genes) values each: dense, scipy sparse, or dask. Lazy arrays chunked along
        genes are computed once; those chunked along spots once per gigabyte of dense values.
    names
        Metrics to compute. Each is documented in the function of the same name.

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
    >>> import numpy as np
    >>> from stpredict import metrics
    >>> measured, predicted = np.array([[0.0], [1.0], [9.0]]), np.array([[1.0], [3.0], [5.0]])
    >>> metrics.per_gene(measured, predicted, names=["spearman", "auc"])
    {'spearman': array([1.]), 'auc': array([1.])}
    """
    functions = {name: record.function for name, record in METRICS.items() if record.function}
    unknown = [name for name in names if name not in functions]
    if unknown:
        raise KeyError(
            f"unknown metric per gene: {', '.join(unknown)}; choose from {', '.join(functions)}"
        )
    measured, predicted = check_pair(measured, predicted)
    scores = {name: np.empty(measured.shape[1]) for name in names}
    for genes, rows in blocks(GENES, measured=measured, predicted=predicted):
        pair = Pair(*rows)
        for name in names:
            scores[name][genes] = functions[name](pair)
    return scores


def pcc(measured: Values, predicted: Values) -> NDArray[np.float64]:
    """Pearson correlation of every gene.

    Parameters
    ----------
    measured, predicted
        (n_spots, n_genes) values each: dense, scipy sparse, or dask; see `per_gene`.

    Returns
    -------
    (n_genes,) float64 in [-1, 1]. 0 if either side is constant (varies by less than a millionth of
    its largest value), so that a gene without a correlation counts as not predicted.

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
    return per_gene(measured, predicted, names=["pcc"])["pcc"]


def spearman(measured: Values, predicted: Values) -> NDArray[np.float64]:
    """Spearman correlation of every gene: the Pearson correlation of ranks.

    Parameters
    ----------
    measured, predicted
        (n_spots, n_genes) values each: dense, scipy sparse, or dask; see `per_gene`.

    Returns
    -------
    (n_genes,) float64 in [-1, 1]. Ties get their mean rank; 0 if either side is constant, as for
    `pcc`.

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
    return per_gene(measured, predicted, names=["spearman"])["spearman"]


def auc(measured: Values, predicted: Values) -> NDArray[np.float64]:
    """Area under the ROC curve of every gene, for spots with counts against spots without.

    The probability that a spot where the measured gene is not 0 is predicted higher than a spot
    where it is 0. Use it for counts and their logarithm, not for scaled or centred values.

    Parameters
    ----------
    measured, predicted
        (n_spots, n_genes) values each: dense, scipy sparse, or dask; see `per_gene`.

    Returns
    -------
    (n_genes,) float64 in [0, 1]; 0.5 is chance. Ties in the prediction count half, so that a
    constant prediction scores 0.5. NaN if the measured gene is 0 in all spots or in none: average
    with `numpy.nanmean`.

    Raises
    ------
    ValueError
        If the shapes differ, there are fewer than two spots, or a value is NaN.

    References
    ----------
    Hanley and McNeil, The meaning and use of the area under a receiver operating characteristic
    (ROC) curve, Radiology 1982.

    Examples
    --------
    >>> import numpy as np
    >>> from stpredict import metrics
    >>> metrics.auc(np.array([[0.0], [1.0], [5.0]]), np.array([[1.0], [3.0], [2.0]]))
    array([1.])
    """
    return per_gene(measured, predicted, names=["auc"])["auc"]
