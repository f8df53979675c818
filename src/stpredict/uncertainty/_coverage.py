"""How many measured values lie in their intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stpredict.uncertainty._conformal import check_errors, conformal, rows_needed
from stpredict.uncertainty._intervals import check_level

if TYPE_CHECKING:
    from numpy.typing import NDArray


def coverage(
    measured: NDArray[np.floating[Any]],
    lower: NDArray[np.floating[Any]],
    upper: NDArray[np.floating[Any]],
) -> NDArray[np.float64]:
    """Share of the measured values of every gene that lie in their intervals, bounds included.

    Parameters
    ----------
    measured
        (n, n_genes); genes without intervals may be NaN.
    lower, upper
        (n, n_genes), such as ``layers["lower"]`` and ``layers["upper"]`` of predictions.

    Returns
    -------
    (n_genes,) float64 in [0, 1]; NaN for genes without intervals, and where there are no rows. An
    interval around each of several equal values counts each.

    Raises
    ------
    ValueError
        If shapes differ, measured values have NaN, or a gene has intervals in some rows only.

    Examples
    --------
    >>> import numpy as np
    >>> from stpredict import uncertainty
    >>> measured = np.array([[0.0], [1.0], [2.0], [9.0]])
    >>> uncertainty.coverage(measured, np.zeros((4, 1)), np.full((4, 1), 2.0))
    array([0.75])
    """
    shapes = [np.shape(array) for array in (measured, lower, upper)]
    if len(shapes[0]) != 2 or len(set(shapes)) > 1:
        raise ValueError(
            "measured, lower and upper must all be (n, n_genes): " + ", ".join(map(str, shapes))
        )
    lacking = np.isnan(lower) | np.isnan(upper)
    n_bad = int(np.count_nonzero(~np.isfinite(measured) & ~lacking))
    if n_bad:
        raise ValueError(f"{n_bad} measured values are NaN or infinite")
    torn = int((lacking.any(axis=0) & ~lacking.all(axis=0)).sum())
    if torn:
        raise ValueError(f"{torn} genes have intervals in some rows only: NaN in lower or upper")
    inside = (lower <= measured) & (measured <= upper)
    n_rows = len(inside)
    shares = inside.sum(axis=0) / n_rows if n_rows else np.full(shapes[0][1], np.nan)
    return np.where(lacking.any(axis=0), np.nan, shares)


def coverage_by_group(
    measured: NDArray[np.floating[Any]],
    predicted: NDArray[np.floating[Any]],
    groups: NDArray[Any],
    *,
    level: float,
) -> tuple[tuple[str, ...], NDArray[np.float32]]:
    """Coverage in each group of intervals that were made of the errors of the others.

    Parameters
    ----------
    measured, predicted, groups, level
        As for :func:`stpredict.uncertainty.conformal`.

    Returns
    -------
    Names of the groups, sorted, and coverage, (n_groups, n_genes) float32; NaN where a gene was not
    predicted in the group, or in too few rows of the others.

    Raises
    ------
    ValueError
        As for :func:`stpredict.uncertainty.conformal`; if there is one group only; if the others
        have too few rows.

    Examples
    --------
    >>> import numpy as np
    >>> from stpredict import uncertainty
    >>> measured = np.random.default_rng(0).normal(size=(600, 1))
    >>> names, found = uncertainty.coverage_by_group(
    ...     measured, np.zeros((600, 1)), np.repeat(["P1", "P2", "P3"], 200), level=0.9
    ... )
    >>> names, found.shape
    (('P1', 'P2', 'P3'), (3, 1))
    """
    check_level(level)
    measured, predicted, codes = check_errors(measured, predicted, groups)
    names = [str(name) for name in np.unique(groups)]
    if len(names) < 2:
        raise ValueError(
            f"there is one group only, {', '.join(names)}: coverage is counted in a group that "
            "intervals were not made of"
        )
    found = np.full((len(names), measured.shape[1]), np.nan, dtype=np.float32)
    for code, name in enumerate(names):
        inside = codes == code
        others = ~inside
        if np.isfinite(predicted[others]).sum(axis=0).max(initial=0) < rows_needed(level):
            raise ValueError(
                f"without group {name!r} there are {int(others.sum())} held-out rows, but "
                f"intervals at level={level:g} need at least {rows_needed(level)}: cross-validate "
                "more sections, or ask for a lower level"
            )
        intervals = conformal(measured[others], predicted[others], codes[others], level=level)
        lower, upper = intervals.around(predicted[inside])
        lacking = ~np.isfinite(predicted[inside]).all(axis=0)
        lower[:, lacking] = np.nan  # predicted in no row, or in some only
        found[code] = coverage(measured[inside], lower, upper)
    return tuple(names), found
