"""Conformal prediction intervals from errors on held-out groups, and their coverage."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from stpredict._arguments import checked
from stpredict.uncertainty._intervals import (
    N_PARTS,
    Intervals,
    check_level,
    check_shape,
    coverage,
    parts_of,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stpredict.uncertainty._intervals import Floats


@checked
def conformal(
    measured: Floats, predicted: Floats, groups: NDArray[Any], *, level: float
) -> Intervals:
    """Compute prediction intervals from the errors of out-of-fold predictions.

    For each gene, predictions are split into thirds (low, middle, high). In each third, the bounds
    are quantiles of the errors ``measured - predicted`` that leave (1 - level) / 2 on each side:
    the ``ceil((n + 1) * (1 + level) / 2)``-th of n errors, as in split conformal prediction. Errors
    are signed, so that intervals can be skewed like expression. All groups have the same weight,
    and n is the effective number of spots.

    Groups are exchangeable, spots are not: the level refers to *a spot of a new group*, on average
    over groups. Few groups give no guarantee without assumptions, so measure the coverage with
    :func:`stpredict.uncertainty.coverage_by_group`.

    Parameters
    ----------
    measured
        (n, n_genes) measured values. May be NaN if the gene was not predicted.
    predicted
        (n, n_genes) predictions from models that were not fitted on the group of the row, or NaN.
    groups
        (n,) group of each row.
    level
        Nominal coverage, the share of measured values inside the intervals.

    Returns
    -------
    Intervals
        Genes with fewer rows than :func:`stpredict.uncertainty.rows_needed` have no intervals; a
        third with fewer rows uses the errors of all thirds.

    Raises
    ------
    ValueError
        If shapes do not match, a predicted value was measured as NaN, the level is invalid, or no
        gene has enough rows.

    References
    ----------
    Vovk, Cross-conformal predictors, Ann. Math. Artif. Intell. 2015; Boström and Johansson,
    Mondrian conformal regressors, COPA 2020 (separate parts); Dunn et al., Distribution-free
    prediction sets for two-layer hierarchical models, JASA 2023 (equal weights of groups).

    Examples
    --------
    >>> import numpy as np
    >>> from stpredict import uncertainty
    >>> random = np.random.default_rng(0)
    >>> predicted = random.normal(size=(6000, 1))
    >>> measured = predicted + random.normal(size=(6000, 1))
    >>> groups = np.repeat(["P1", "P2", "P3"], 2000)
    >>> intervals = uncertainty.conformal(measured, predicted, groups, level=0.9)
    >>> np.round(intervals.around([[0.0]]), 1).ravel()  # ±1.64
    array([-1.6,  1.6], dtype=float32)
    """
    needed = rows_needed(level)
    measured, predicted, codes = check_errors(measured, predicted, groups)
    n_genes = measured.shape[1]
    edges = np.full((n_genes, N_PARTS - 1), np.nan, dtype=np.float32)
    bounds = np.full((2, n_genes, N_PARTS), np.nan, dtype=np.float32)
    for gene in range(n_genes):
        rows = np.isfinite(predicted[:, gene])
        if rows.sum() < needed:  # no intervals, NaN
            continue
        values = predicted[rows, gene]
        errors = measured[rows, gene] - values
        weights = 1 / np.bincount(codes[rows])[codes[rows]]  # equal weights of groups
        edges[gene] = np.quantile(values, np.arange(1, N_PARTS) / N_PARTS)
        part = parts_of(values[:, None].astype(np.float32), edges[gene][None])[:, 0]
        for third in range(N_PARTS):
            subset = part == third
            if subset.sum() < needed:  # use the errors of all thirds
                subset = np.ones_like(subset)
            bounds[:, gene, third] = _bounds(errors[subset], weights[subset], level)
    if np.isnan(edges).all():
        n_rows = int(np.isfinite(predicted).sum(axis=0).max(initial=0))
        raise ValueError(
            f"intervals at level={level:g} need at least {needed} held-out rows of a gene, found "
            f"{n_rows}: cross-validate more sections, or use a lower level"
        )
    return Intervals(float(level), edges, bounds[0], bounds[1])


@checked
def rows_needed(level: float) -> int:
    """Smallest number of held-out rows for intervals of a level; with fewer, they are infinite.

    Parameters
    ----------
    level
        Nominal coverage of the intervals, such as 0.9.

    Returns
    -------
    int

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
    # the smallest n with ceil((n + 1) * (1 + level) / 2) <= n; tolerance for rounding of 1 - level
    return math.ceil(2 / (1 - level) - 1e-6) - 1


@checked
def coverage_by_group(
    measured: Floats, predicted: Floats, groups: NDArray[Any], *, level: float
) -> tuple[tuple[str, ...], NDArray[np.float32]]:
    """Coverage in each group, with intervals from the errors of the other groups.

    Parameters
    ----------
    measured, predicted, groups, level
        Same as for :func:`stpredict.uncertainty.conformal`.

    Returns
    -------
    Sorted names of the groups, and coverage, (n_groups, n_genes) float32. NaN if a gene was not
    predicted in the group, or in too few rows of the other groups.

    Raises
    ------
    ValueError
        As for `conformal`, and if there is one group or the other groups have too few rows.

    Examples
    --------
    >>> import numpy as np
    >>> from stpredict import uncertainty
    >>> measured, groups = np.arange(300.0)[:, None] % 100, np.repeat(["P1", "P2", "P3"], 100)
    >>> uncertainty.coverage_by_group(measured, 0 * measured, groups, level=0.9)[0]
    ('P1', 'P2', 'P3')
    """
    needed = rows_needed(level)
    measured, predicted, codes = check_errors(measured, predicted, groups)
    names = [str(name) for name in np.unique(groups)]
    if len(names) < 2:
        raise ValueError(f"coverage by group needs at least two groups, found {names}")
    shares = np.full((len(names), measured.shape[1]), np.nan, dtype=np.float32)
    for code, name in enumerate(names):
        held_out = codes == code
        others = ~held_out
        if np.isfinite(predicted[others]).sum(axis=0).max(initial=0) < needed:
            raise ValueError(
                f"{int(others.sum())} held-out rows are left without group {name!r}, but intervals "
                f"need at least {needed}: cross-validate more sections, or use a lower level"
            )
        # intervals must not use the group in which coverage is measured
        intervals = conformal(measured[others], predicted[others], codes[others], level=level)
        lower, upper = intervals.around(predicted[held_out])
        # a gene must be predicted in all rows of the group
        lower[:, ~np.isfinite(predicted[held_out]).all(axis=0)] = np.nan
        shares[code] = coverage(measured[held_out], lower, upper)
    return tuple(names), shares


def check_errors(
    measured: Floats, predicted: Floats, groups: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.intp]]:
    """Require arrays of the same shape and a group per row; returns groups as integers."""
    if np.ndim(measured) != 2 or np.shape(measured) != np.shape(predicted):
        shapes = f"{np.shape(measured)} and {np.shape(predicted)}"
        raise ValueError(f"measured and predicted must both be (n, n_genes): {shapes}")
    check_shape("groups", groups, len(measured))
    measured, predicted = (np.asarray(x, dtype=np.float64) for x in (measured, predicted))
    n_bad = int(np.count_nonzero(~np.isfinite(measured) & ~np.isnan(predicted)))
    if n_bad:
        raise ValueError(f"{n_bad} measured values are NaN or infinite but were predicted")
    n_bad = int(np.count_nonzero(np.isinf(predicted)))
    if n_bad:
        raise ValueError(f"{n_bad} predicted values are infinite")
    return measured, predicted, np.unique(groups, return_inverse=True)[1]


def _bounds(
    errors: NDArray[np.float64], weights: NDArray[np.float64], level: float
) -> tuple[float, float]:
    """Lower and upper conformal quantiles of weighted errors."""
    # Kish's effective sample size takes the place of n in the finite-sample correction
    n_effective = weights.sum() ** 2 / (weights**2).sum()
    share = min(1.0, (1 + level) / 2 * (1 + 1 / n_effective))
    return -_quantile(-errors, weights, share), _quantile(errors, weights, share)


def _quantile(values: NDArray[np.float64], weights: NDArray[np.float64], share: float) -> float:
    """Smallest value at which the cumulative weight reaches a share."""
    order = np.argsort(values, kind="stable")
    cumulative = np.cumsum(weights[order]) / weights.sum()
    index = int(np.searchsorted(cumulative, share - 1e-9))  # tolerance for rounding of the sum
    return float(values[order[min(index, len(values) - 1)]])
