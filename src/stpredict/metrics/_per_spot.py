"""Metrics of every spot over its genes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from stpredict._arguments import checked
from stpredict.metrics._blocks import SPOTS, check_pair, score_blocks
from stpredict.metrics._docs import documented
from stpredict.metrics._scores import Pair

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from stpredict.metrics._blocks import Values


@checked
@documented("array([1., 0., 1.])")
def pcc_per_spot(measured: Values, predicted: Values) -> NDArray[np.float64]:
    """Pearson correlation of every spot over its genes.

    Genes that are high in all spots dominate this metric, and the training mean scores well.
    Compare it with the training mean, or centre every gene first.

    Returns
    -------
    (n_spots,) float64 in [-1, 1]; 0 if either side is constant, as for `pcc`.
    """
    return _per_spot(Pair.pcc, measured, predicted)


@checked
@documented("array([1., 0., 1.])")
def spearman_per_spot(measured: Values, predicted: Values) -> NDArray[np.float64]:
    """Spearman correlation of every spot over its genes; ties get their mean rank.

    As with `pcc_per_spot`, compare it with the training mean.

    Returns
    -------
    (n_spots,) float64 in [-1, 1]; 0 if either side is constant, as for `pcc`.
    """
    return _per_spot(Pair.spearman, measured, predicted)


def _per_spot(
    score: Callable[[Pair], NDArray[np.float64]], measured: Values, predicted: Values
) -> NDArray[np.float64]:
    measured, predicted = check_pair(measured, predicted, least_spots=1, least_genes=2)
    # a spot is a row, as a gene is in a block of genes
    return score_blocks(
        lambda *rows: score(Pair(*rows)), SPOTS, measured=measured, predicted=predicted
    )
