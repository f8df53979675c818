"""Share of measured values inside their intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stpredict.uncertainty._conformal import check_errors, conformal, rows_needed

if TYPE_CHECKING:
    from numpy.typing import NDArray


def coverage(
    measured: NDArray[np.floating[Any]],
    lower: NDArray[np.floating[Any]],
    upper: NDArray[np.floating[Any]],
) -> NDArray[np.float64]:
    """Share of the measured values of every gene inside their intervals, including the bounds.

    Parameters
    ----------
    measured
        (n, n_genes) measured values. May be NaN for genes without intervals.
    lower, upper
        (n, n_genes) bounds, such as ``layers["lower"]`` and ``layers["upper"]`` of predictions.

    Returns
    -------
    (n_genes,) float64 in [0, 1]; NaN for genes without intervals, and without rows.

    Raises
    ------
    ValueError
        If shapes differ, measured values are NaN, or a gene has intervals in some rows only.

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
        listed = ", ".join(map(str, shapes))
        raise ValueError(f"measured, lower and upper must all be (n, n_genes): {listed}")
    missing = np.isnan(lower) | np.isnan(upper)
    n_bad = int(np.count_nonzero(~np.isfinite(measured) & ~missing))
    if n_bad:
        raise ValueError(f"{n_bad} measured values are NaN or infinite")
    n_partial = int((missing.any(axis=0) & ~missing.all(axis=0)).sum())
    if n_partial:
        raise ValueError(f"{n_partial} genes have intervals in some rows only")
    inside = (lower <= measured) & (measured <= upper)
    shares = inside.sum(axis=0) / (len(inside) or np.nan)  # NaN without rows
    return np.where(missing.any(axis=0), np.nan, shares)


def coverage_by_group(
    measured: NDArray[np.floating[Any]],
    predicted: NDArray[np.floating[Any]],
    groups: NDArray[Any],
    *,
    level: float,
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
