"""Correlation of the genes that matter most."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, eq=False)
class TopCurve:
    """Mean correlation of the k first genes, for every k; made by `pcc_of_top`.

    Attributes
    ----------
    pcc
        (n_ranked,) float64 in [-1, 1]: ``pcc[k - 1]`` is the mean over the first k genes.
    area
        Mean of the curve over k, in [-1, 1]: its area over that of a curve that is 1 everywhere.
        The first genes weigh most in it.
    """

    pcc: NDArray[np.float64] = field(repr=False)
    area: float


def pcc_of_top(pcc: ArrayLike, ranking: ArrayLike) -> TopCurve:
    """Mean correlation over the k first genes of a ranking, for every k, and the area under it.

    Benchmarks report the mean over 50, 200, … genes of highest variance; the curve shows all of
    these. The ranking must not come from the scores themselves, nor from test data: rank by the
    variance in training sections.

    Parameters
    ----------
    pcc
        (n_genes,) correlations, such as `metrics.pcc` gives.
    ranking
        (n_ranked,) positions of genes, the most important first; none twice, not necessarily all.

    Returns
    -------
    ``pcc``, the curve, (n_ranked,) float64 in [-1, 1], and ``area``, one number in [-1, 1]. Genes
    that are constant count as 0, as `metrics.pcc` scores them; ties are the ranking's to break.

    Raises
    ------
    ValueError
        If a correlation is NaN, or the ranking is empty, names a gene twice, or one that is not
        there.

    Examples
    --------
    >>> import numpy as np
    >>> from stpredict import metrics
    >>> variance_in_training = np.array([0.1, 2.0, 1.0])
    >>> curve = metrics.pcc_of_top([0.0, 0.6, 0.3], np.argsort(-variance_in_training))
    >>> curve.pcc.round(2), round(curve.area, 2)
    (array([0.6 , 0.45, 0.3 ]), 0.45)
    """
    scores, order = np.asarray(pcc, dtype=np.float64), np.asarray(ranking)
    if scores.ndim != 1 or order.ndim != 1 or not len(order):
        raise ValueError(
            f"pcc and ranking must be (n_genes,) and (n_ranked,): {scores.shape} and {order.shape}"
        )
    if np.isnan(scores).any():
        raise ValueError(f"{np.count_nonzero(np.isnan(scores))} of {len(scores)} pcc are NaN")
    if not np.issubdtype(order.dtype, np.integer):
        raise ValueError(f"ranking must hold positions of genes, integers: {order.dtype}")
    outside = order[(order < 0) | (order >= len(scores))]
    if len(outside):
        raise ValueError(f"ranking names gene {outside[0]}; there are 0 to {len(scores) - 1}")
    n_repeated = len(order) - len(np.unique(order))
    if n_repeated:
        raise ValueError(f"ranking names {n_repeated} genes more than once")
    curve = np.cumsum(scores[order]) / np.arange(1, len(order) + 1)
    return TopCurve(pcc=curve, area=float(curve.mean()))
