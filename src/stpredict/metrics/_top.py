"""Mean correlation of the top genes of a ranking."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from stpredict import _validate
from stpredict._arguments import checked

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, eq=False)
class TopCurve:
    """Mean correlation of the first k genes, for every k, as returned by `pcc_of_top`.

    Attributes
    ----------
    pcc
        (n_ranked,) float64. ``pcc[k - 1]`` is the mean over the first k genes.
    area
        Mean of the curve over k. The first genes have the largest weight.
    """

    pcc: NDArray[np.float64] = field(repr=False)
    area: float


@checked
def pcc_of_top(pcc: ArrayLike, ranking: ArrayLike) -> TopCurve:
    """Mean correlation over the first k genes of a ranking, for every k, and the area below it.

    Benchmarks report the mean over the 50, 200, … genes of highest variance. Rank genes by their
    variance in the training sections, not by the scores or by test data.

    Parameters
    ----------
    pcc
        (n_genes,) correlations, such as the result of `metrics.pcc`.
    ranking
        (n_ranked,) distinct positions of genes, the most important first. May omit genes.

    Returns
    -------
    ``pcc``, the curve, (n_ranked,) float64, and ``area``, its mean, both in [-1, 1].

    Raises
    ------
    ValueError
        If a correlation is NaN, or the ranking is empty or has invalid positions.

    Examples
    --------
    >>> from stpredict import metrics
    >>> curve = metrics.pcc_of_top([0.0, 0.6, 0.3], ranking=[1, 2, 0])
    >>> curve.pcc.round(2), round(curve.area, 2)
    (array([0.6 , 0.45, 0.3 ]), 0.45)
    """
    scores, order = np.asarray(pcc, dtype=np.float64), np.asarray(ranking)
    if scores.ndim != 1 or order.ndim != 1 or not len(scores) or not len(order):
        shapes = f"{scores.shape} and {order.shape}"
        raise ValueError(f"pcc and ranking must be (n_genes,) and (n_ranked,): {shapes}")
    _validate.finite(scores, what="pcc")
    if not np.issubdtype(order.dtype, np.integer):  # such as a boolean mask
        raise ValueError(f"ranking must be integer positions of genes, not {order.dtype}")
    outside = order[(order < 0) | (order >= len(scores))]
    if len(outside):  # a negative position would count from the end
        raise ValueError(f"ranking has {outside[0]}, but pcc has positions 0 to {len(scores) - 1}")
    _validate.unique_names(order, what="genes of the ranking")
    curve = np.cumsum(scores[order]) / np.arange(1, len(order) + 1)
    return TopCurve(pcc=curve, area=float(curve.mean()))
