"""Metrics of every spot over its genes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stpredict.metrics._blocks import SPOTS, check_pair, score_blocks
from stpredict.metrics._scores import Pair

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from stpredict.metrics._blocks import Values


def pcc_per_spot(measured: Values, predicted: Values) -> NDArray[np.float64]:
    """Pearson correlation of every spot over its genes.

    Genes that are high in all spots dominate this metric, and the training mean scores well.
    Compare it with the training mean, or centre every gene first.

    Parameters
    ----------
    measured, predicted
        (n_spots, n_genes) values each: dense, scipy sparse, or dask; processed a few spots at a
        time.

    Returns
    -------
    (n_spots,) float64 in [-1, 1]; 0 if either side is constant, as for `pcc`.

    Raises
    ------
    ValueError
        If the shapes differ, there are fewer than two genes, or a value is NaN.

    Examples
    --------
    >>> import numpy as np
    >>> from stpredict import metrics
    >>> metrics.pcc_per_spot(np.array([[0.0, 1.0, 2.0]]), np.array([[1.0, 3.0, 5.0]]))
    array([1.])
    """
    measured, predicted = check_pair(measured, predicted, least_spots=1, least_genes=2)
    return score_blocks(
        lambda *rows: Pair(*rows).pcc(), SPOTS, measured=measured, predicted=predicted
    )


def spearman_per_spot(measured: Values, predicted: Values) -> NDArray[np.float64]:
    """Spearman correlation of every spot over its genes; ties get their mean rank.

    As with `pcc_per_spot`, compare it with the training mean.

    Parameters
    ----------
    measured, predicted
        (n_spots, n_genes) values each: dense, scipy sparse, or dask; processed a few spots at a
        time.

    Returns
    -------
    (n_spots,) float64 in [-1, 1]; 0 if either side is constant, as for `pcc`.

    Raises
    ------
    ValueError
        If the shapes differ, there are fewer than two genes, or a value is NaN.

    Examples
    --------
    >>> import numpy as np
    >>> from stpredict import metrics
    >>> metrics.spearman_per_spot(np.array([[0.0, 1.0, 9.0]]), np.array([[1.0, 3.0, 5.0]]))
    array([1.])
    """
    measured, predicted = check_pair(measured, predicted, least_spots=1, least_genes=2)
    return score_blocks(
        lambda *rows: Pair(*rows).spearman(), SPOTS, measured=measured, predicted=predicted
    )
