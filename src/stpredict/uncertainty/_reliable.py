"""Which genes a model predicts better than its nulls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import false_discovery_control, norm

from stpredict.metrics import spatial_null
from stpredict.uncertainty._conformal import check_errors

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Motions of every section. Their mean and spread are what is used of them, not their ranks, so
#: that a few hundred serve tests of thousands of genes.
_N_DRAWS = 200
#: Expected share of genes that are not predictable among those called reliable.
_FALSE_SHARE = 0.05
#: Below this share of the largest value, deviations are rounding.
_ROUNDING = 1e-6


@dataclass(frozen=True, eq=False)
class Reliability:
    """Scores of each gene on groups left out, beside those of its nulls.

    Made by :func:`stpredict.uncertainty.reliable`. NaN for genes that were not predicted.

    Attributes
    ----------
    pcc
        (n_genes,) float32, Pearson correlation within the sections, mean over sections.
    pcc_null
        (n_genes,) float32, the same of predictions moved about the section, mean over motions.
    p_adjusted
        (n_genes,) float32, of the one-sided test of ``pcc`` against its null, after Benjamini and
        Hochberg.
    rmse_ratio
        (n_genes,) float32, root mean squared error over that of the mean of the other groups.

    Raises
    ------
    ValueError
        If shapes differ.
    """

    pcc: NDArray[np.float32]
    pcc_null: NDArray[np.float32]
    p_adjusted: NDArray[np.float32]
    rmse_ratio: NDArray[np.float32]

    def __post_init__(self) -> None:
        for name in ("pcc_null", "p_adjusted", "rmse_ratio"):
            if getattr(self, name).shape != self.pcc.shape or self.pcc.ndim != 1:
                raise ValueError(
                    f"{name} must be ({len(self.pcc)},), not {getattr(self, name).shape}"
                )

    @property
    def reliable(self) -> NDArray[np.bool_]:
        """Genes that beat both nulls, (n_genes,): at 5 % false discoveries, and below ratio 1."""
        found: NDArray[np.bool_] = (self.p_adjusted <= _FALSE_SHARE) & (self.rmse_ratio < 1)
        return found


def reliable(
    measured: NDArray[np.floating[Any]],
    predicted: NDArray[np.floating[Any]],
    positions: NDArray[np.floating[Any]],
    *,
    sections: NDArray[Any],
    groups: NDArray[Any],
    seed: int = 0,
) -> Reliability:
    """Decide which genes can be trusted, on groups that models have not seen, against two nulls.

    A gene has to correlate within sections more than by the smoothness of its map, and to err less
    than the mean of the other groups:

    - ``pcc``, the mean over sections of the correlation within each, is compared with the same of
      predictions that were turned and shifted within their section (200 times), by a one-sided
      normal test, corrected for the number of genes. The null is drawn within sections, so that the
      test holds for two sections as for twenty; that genes differ between *groups* it does not
      account for.
    - the squared error, mean over sections, must be below that of predicting the mean of the rows
      of all other groups.

    Tuned ridge is no null here: it is a method, and a gene can be reliable by a method that ridge
    beats.

    Parameters
    ----------
    measured
        (n, n_genes) measured values; they may be NaN where a gene was not predicted.
    predicted
        (n, n_genes) out-of-fold predictions, NaN where a gene was not predicted. Sections in which
        it was not predicted at all spots do not count for a gene.
    positions
        (n, 2) of the spots, in any unit.
    sections
        (n,) section of each row; correlations are taken within it.
    groups
        (n,) group of each row, which was left out as a whole.
    seed
        Of the motions.

    Returns
    -------
    Reliability

    Raises
    ------
    ValueError
        If shapes do not fit, measured values have NaN, or there is one group only.

    References
    ----------
    Benjamini and Hochberg, Controlling the false discovery rate, Journal of the Royal Statistical
    Society B 1995.

    Examples
    --------
    >>> import numpy as np
    >>> from stpredict import uncertainty
    >>> random = np.random.default_rng(1)
    >>> measured = random.normal(size=(200, 2))
    >>> predicted = 0.5 * measured * [1, 0] + 0.3 * random.normal(size=(200, 2))  # one gene only
    >>> sections = np.repeat(["S1", "S2"], 100)
    >>> found = uncertainty.reliable(
    ...     measured, predicted, random.random((200, 2)), sections=sections, groups=sections
    ... )
    >>> found.reliable
    array([ True, False])
    """
    measured, predicted, codes = check_errors(measured, predicted, groups)
    if np.shape(positions) != (len(measured), 2) or np.shape(sections) != (len(measured),):
        raise ValueError(
            f"positions and sections must be ({len(measured)}, 2) and ({len(measured)},): "
            f"{np.shape(positions)} and {np.shape(sections)}"
        )
    if codes.max(initial=0) == 0:
        raise ValueError("there is one group only: what is reliable is decided on groups left out")
    n_genes = measured.shape[1]
    random = np.random.default_rng(seed)
    means = _means_of_others(measured, codes)
    found = np.zeros(n_genes)
    null = np.zeros((_N_DRAWS, n_genes))
    errors, n_sections = np.zeros((2, n_genes)), np.zeros(n_genes)
    for section in np.unique(sections):
        rows = np.flatnonzero(sections == section)
        there = np.flatnonzero(np.isfinite(predicted[rows]).all(axis=0))
        if len(rows) < 2 or not len(there):
            continue
        true, guess = measured[np.ix_(rows, there)], predicted[np.ix_(rows, there)]
        standard = _standard(true)
        found[there] += np.einsum("ij,ij->j", standard, _standard(guess))
        for draw in range(_N_DRAWS):
            moved = guess[spatial_null(positions[rows], generator=random)]
            null[draw, there] += np.einsum("ij,ij->j", standard, _standard(moved))
        errors[0, there] += ((true - guess) ** 2).mean(axis=0)
        errors[1, there] += ((true - means[np.ix_(codes[rows], there)]) ** 2).mean(axis=0)
        n_sections[there] += 1
    n_sections[n_sections == 0] = np.nan
    return _tested(found / n_sections, null / n_sections, errors / n_sections)


def _tested(
    found: NDArray[np.float64], null: NDArray[np.float64], errors: NDArray[np.float64]
) -> Reliability:
    center, spread = null.mean(axis=0), null.std(axis=0)
    known = ~np.isnan(found)
    varies = known & (spread > _ROUNDING)
    p_values = np.ones(len(found))
    p_values[varies] = norm.sf((found - center)[varies] / spread[varies])
    adjusted = np.full(len(found), np.nan)
    if known.any():
        adjusted[known] = false_discovery_control(p_values[known])
    ratio = np.full(len(found), np.nan)
    ratio[known] = 1.0
    varying = known & (errors[1] > 0)
    ratio[varying] = np.sqrt(errors[0][varying] / errors[1][varying])
    return Reliability(*(array.astype(np.float32) for array in (found, center, adjusted, ratio)))


def _means_of_others(measured: NDArray[np.float64], codes: NDArray[np.intp]) -> NDArray[np.float64]:
    """Mean of the rows of all other groups, (n_groups, n_genes); NaN where there are none."""
    members = np.arange(codes.max() + 1)[:, None] == codes  # (n_groups, n)
    known = np.isfinite(measured)
    n_rows = members @ known.astype(np.float64)
    sums = members @ np.where(known, measured, 0)
    n_others = n_rows.sum(axis=0) - n_rows
    nothing = np.full_like(sums, np.nan)
    return np.divide(sums.sum(axis=0) - sums, n_others, out=nothing, where=n_others > 0)


def _standard(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Columns of mean 0 and length 1; of constants, 0."""
    centered = values - values.mean(axis=0)
    length = np.linalg.norm(centered, axis=0)
    least = _ROUNDING * np.sqrt(len(values)) * np.abs(values).max(axis=0)
    return np.divide(centered, length, out=np.zeros_like(centered), where=length > least)
