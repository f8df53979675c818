"""Intervals made of the errors on groups that were left out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from stpredict.uncertainty._intervals import N_PARTS, Intervals, check_level, parts_of

if TYPE_CHECKING:
    from numpy.typing import NDArray


def conformal(
    measured: NDArray[np.floating[Any]],
    predicted: NDArray[np.floating[Any]],
    groups: NDArray[Any],
    *,
    level: float,
) -> Intervals:
    """Make intervals of the errors of out-of-fold predictions.

    For each gene, predictions are split into thirds (low, middle, high), and in each the errors
    ``measured - predicted`` are ordered; the bounds are the errors that leave (1 - level) / 2 of a
    new spot's errors outside on each side, with the correction for finite samples of split
    conformal prediction: of n errors, the ``ceil((n + 1) * (1 + level) / 2)``-th. Errors keep their
    sign, so that intervals can be skewed as expression is. Every group weighs alike, whatever its
    number of spots, and the effective number of spots takes the place of n.

    What is exchangeable are groups, not spots. Coverage is therefore that of *a spot of a new
    group*, on average over groups; a single new section lies above or below it. A handful of groups
    allows no promise free of assumptions, so count what is covered with
    :func:`stpredict.uncertainty.coverage_by_group`.

    Parameters
    ----------
    measured
        (n, n_genes) measured values; they may be NaN where a gene was not predicted.
    predicted
        (n, n_genes) predictions of the same by models that have not seen the row's group. NaN where
        a gene was not predicted.
    groups
        (n,) group of each row.
    level
        Share of the measured values that intervals are to hold, such as 0.9.

    Returns
    -------
    Intervals
        A gene of fewer rows than :func:`stpredict.uncertainty.rows_needed` has none; a third of
        fewer takes the errors of all.

    Raises
    ------
    ValueError
        If shapes do not fit, a predicted value was measured as NaN, the level is none, or no gene
        has enough rows.

    References
    ----------
    Vovk, Cross-conformal predictors, Annals of Mathematics and Artificial Intelligence 2015;
    Boström and Johansson, Mondrian conformal regressors, COPA 2020 (parts of their own); Dunn,
    Wasserman and Ramdas, Distribution-free prediction sets for two-layer hierarchical models,
    Journal of the American Statistical Association 2023 (pooling groups that weigh alike).

    Examples
    --------
    >>> import numpy as np
    >>> from stpredict import uncertainty
    >>> random = np.random.default_rng(0)
    >>> predicted = random.normal(size=(6000, 1))
    >>> measured = predicted + random.normal(size=(6000, 1))
    >>> groups = np.repeat(["P1", "P2", "P3"], 2000)
    >>> intervals = uncertainty.conformal(measured, predicted, groups, level=0.9)
    >>> lower, upper = intervals.around(np.zeros((1, 1)))
    >>> print(f"{lower.item():.1f} {upper.item():.1f}")  # ±1.64
    -1.6 1.6
    """
    needed = rows_needed(level)
    measured, predicted, codes = check_errors(measured, predicted, groups)
    n_genes = measured.shape[1]
    edges = np.full((n_genes, N_PARTS - 1), np.nan, dtype=np.float32)
    bounds = np.full((2, n_genes, N_PARTS), np.nan, dtype=np.float32)
    for gene in range(n_genes):
        rows = np.isfinite(predicted[:, gene])
        if rows.sum() < needed:
            continue
        values = predicted[rows, gene]
        errors, weights = measured[rows, gene] - values, _alike(codes[rows])
        edges[gene] = np.quantile(values, np.arange(1, N_PARTS) / N_PARTS)
        part = parts_of(values[:, None].astype(np.float32), edges[gene][None])[:, 0]
        of_all = _bounds(errors, weights, level)
        for third in range(N_PARTS):
            here = part == third
            enough = here.sum() >= needed
            bounds[:, gene, third] = (
                _bounds(errors[here], weights[here], level) if enough else of_all
            )
    if np.isnan(edges).all():
        most = int(np.isfinite(predicted).sum(axis=0).max(initial=0))
        raise ValueError(
            f"intervals at level={level:g} need at least {needed} held-out rows of a gene, found "
            f"{most}: cross-validate more sections, or ask for a lower level"
        )
    return Intervals(float(level), edges, bounds[0], bounds[1])


def rows_needed(level: float) -> int:
    """Fewest held-out rows that intervals of a level can be made of.

    Parameters
    ----------
    level
        Such as 0.9.

    Returns
    -------
    int
        With fewer, the bound that leaves (1 - level) / 2 outside would be infinite.

    Raises
    ------
    ValueError
        If the level is not between 0 and 1.

    Examples
    --------
    >>> from stpredict import uncertainty
    >>> uncertainty.rows_needed(0.9), uncertainty.rows_needed(0.99)
    (19, 199)
    """
    check_level(level)
    return math.ceil(2 / (1 - level) - 1e-6) - 1


def check_errors(
    measured: NDArray[np.floating[Any]], predicted: NDArray[np.floating[Any]], groups: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.intp]]:
    """Require arrays of one shape and a group per row; gives groups as numbers."""
    if np.ndim(measured) != 2 or np.shape(measured) != np.shape(predicted):
        raise ValueError(
            "measured and predicted must both be (n, n_genes): "
            f"{np.shape(measured)} and {np.shape(predicted)}"
        )
    if np.shape(groups) != (len(measured),):
        raise ValueError(f"groups must be ({len(measured)},), not {np.shape(groups)}")
    measured, predicted = (np.asarray(x, dtype=np.float64) for x in (measured, predicted))
    n_bad = int(np.count_nonzero(~np.isfinite(measured) & ~np.isnan(predicted)))
    if n_bad:
        raise ValueError(f"{n_bad} measured values are NaN or infinite where there are predictions")
    n_bad = int(np.count_nonzero(np.isinf(predicted)))
    if n_bad:
        raise ValueError(f"{n_bad} predicted values are infinite")
    return measured, predicted, np.unique(groups, return_inverse=True)[1]


def _alike(codes: NDArray[np.intp]) -> NDArray[np.float64]:
    """Weights by which every group that is there weighs the same."""
    weights: NDArray[np.float64] = 1 / np.bincount(codes)[codes]
    return weights


def _bounds(
    errors: NDArray[np.float64], weights: NDArray[np.float64], level: float
) -> tuple[float, float]:
    """Lower and upper conformal quantile of weighted errors."""
    n_effective = weights.sum() ** 2 / (weights**2).sum()
    share = min(1.0, (1 + level) / 2 * (1 + 1 / n_effective))
    return -_quantile(-errors, weights, share), _quantile(errors, weights, share)


def _quantile(values: NDArray[np.float64], weights: NDArray[np.float64], share: float) -> float:
    """Smallest value that a share of the weight does not exceed."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order]) / weights.sum()
    place = int(np.searchsorted(reached, share - 1e-9))  # sums are rounded
    return float(values[order[min(place, len(values) - 1)]])
