"""Genes that a model predicts better than its nulls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import false_discovery_control, norm

from stpredict import _validate
from stpredict._arguments import checked
from stpredict.metrics import spatial_null
from stpredict.uncertainty._conformal import check_errors
from stpredict.uncertainty._intervals import check_shape
from stpredict.uncertainty._regions import region_weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stpredict.uncertainty._intervals import Floats

#: Motions of every section. Tests use their mean and standard deviation, not ranks, so that a few
#: hundred are sufficient for thousands of genes.
_N_DRAWS = 200
#: False discovery rate among reliable genes.
MAX_FDR = 0.05
#: Variance of a score relative to that of independent groups. The model of each group was fitted to
#: the others, so that every pair of groups counts twice; by simulation 1.6 to 2.5.
_INFLATION = 2.0
#: Deviations below this share of the largest value are rounding error.
_ROUNDING = 1e-6


@dataclass(frozen=True, eq=False)
class Reliability:
    """Scores of each gene on held-out groups, and of its nulls, as returned by `reliable`.

    All are (n_genes,) float32, and NaN for genes that were not predicted.

    Attributes
    ----------
    pcc
        Pearson correlation within sections, mean over sections.
    pcc_null
        The same for predictions moved within the section, mean over motions.
    p_adjusted
        Benjamini-Hochberg adjusted p-value of the one-sided test of ``pcc`` against its null.
    rmse_ratio
        Root mean squared error divided by that of the mean of the other groups.

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
        for name, scores in vars(self).items():
            check_shape(name, scores, len(self.pcc))

    def __repr__(self) -> str:
        return f"Reliability({int(self.reliable.sum())} of {len(self.pcc)} genes are reliable)"

    @property
    def reliable(self) -> NDArray[np.bool_]:
        """Genes that beat both nulls, (n_genes,): FDR of 5 %, and an RMSE ratio below 1."""
        return np.asarray((self.p_adjusted <= MAX_FDR) & (self.rmse_ratio < 1))


@checked
def reliable(
    measured: Floats,
    predicted: Floats,
    positions: Floats,
    *,
    sections: NDArray[Any],
    groups: NDArray[Any],
    seed: int = 0,
) -> Reliability:
    """Test which genes are predicted reliably on held-out groups, against two nulls.

    A gene must correlate within sections more than its smoothness explains, and have a smaller
    error than the mean of the other groups:

    - ``pcc``, the mean over sections of the correlation within each section, is compared with
      predictions that were rotated and shifted within their section (200 times), by a one-sided
      normal test, corrected for the number of genes. The variance of the moved predictions is
      doubled: chance agreement of two groups counts in the predictions of both. The test is valid
      for any number of sections, but does not account for variation between *groups*.
    - the squared error, mean over sections, must be smaller than that of the mean over the rows of
      all other groups.

    Parameters
    ----------
    measured
        (n, n_genes) measured values. May be NaN if the gene was not predicted.
    predicted
        (n, n_genes) out-of-fold predictions, or NaN. A gene is scored in sections in which it was
        predicted at all spots.
    positions
        (n, 2) positions of the spots, in any unit.
    sections
        (n,) section of each row, within which correlations are computed.
    groups
        (n,) group of each row, which was held out as a whole.
    seed
        Random seed of the motions.

    Returns
    -------
    Reliability

    Raises
    ------
    ValueError
        If shapes do not match, measured values are NaN, or there is only one group.

    References
    ----------
    Benjamini and Hochberg, Controlling the false discovery rate, J. R. Stat. Soc. B 1995.

    Examples
    --------
    >>> import numpy as np
    >>> from stpredict import uncertainty
    >>> random = np.random.default_rng(1)
    >>> positions, measured = random.random((200, 2)), random.normal(size=(200, 2))
    >>> predicted = measured * [1, 0] + random.normal(size=(200, 2))  # the first gene only
    >>> names = np.repeat(["S1", "S2"], 100)
    >>> uncertainty.reliable(measured, predicted, positions, sections=names, groups=names)
    Reliability(1 of 2 genes are reliable)
    """
    test = compare_with_nulls(
        measured, predicted, positions, sections=sections, groups=groups, seed=seed
    )
    adjusted = adjust(test.p_values)
    arrays = (test.pcc, test.pcc_null, adjusted, test.rmse_ratio)
    return Reliability(*(array.astype(np.float32) for array in arrays))


@dataclass(frozen=True, eq=False)
class NullTest:
    """Scores of each gene and of its nulls, (n_genes,), before correction for their number."""

    pcc: NDArray[np.float64]
    pcc_null: NDArray[np.float64]
    p_values: NDArray[np.float64]
    rmse_ratio: NDArray[np.float64]


def adjust(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Benjamini-Hochberg adjusted p-values; NaN for genes without a score."""
    adjusted = np.full(len(p_values), np.nan)
    scored = ~np.isnan(p_values)
    if scored.any():
        adjusted[scored] = false_discovery_control(p_values[scored])
    return adjusted


def compare_with_nulls(
    measured: Floats,
    predicted: Floats,
    positions: Floats,
    *,
    sections: NDArray[Any],
    groups: NDArray[Any],
    seed: int,
    n_spots: int = 1,
) -> NullTest:
    """Test each gene as `reliable` does, on means over regions of some spots."""
    _validate.seed(seed)
    measured, predicted, codes = check_errors(measured, predicted, groups)
    check_shape("positions", positions, len(measured), 2)
    check_shape("sections", sections, len(measured))
    if codes.max(initial=0) == 0:
        raise ValueError("reliable genes need at least two held-out groups, found one")
    n_genes = measured.shape[1]
    random = np.random.default_rng(seed)
    means = _means_of_others(measured, codes)
    pcc = np.zeros(n_genes)
    null = np.zeros((_N_DRAWS, n_genes))
    errors, n_sections = np.zeros((2, n_genes)), np.zeros(n_genes)
    for section in np.unique(sections):
        rows = np.flatnonzero(sections == section)
        genes = np.flatnonzero(np.isfinite(predicted[rows]).all(axis=0))
        if len(rows) < 2 or not len(genes):
            continue
        regions = region_weights(positions[rows], n_spots)
        x, raw = regions @ measured[np.ix_(rows, genes)], predicted[np.ix_(rows, genes)]
        y = regions @ raw
        # standardised once, the correlation with each of the many draws is a dot product
        x_standardized = _standardized(x)
        pcc[genes] += np.einsum("ij,ij->j", x_standardized, _standardized(y))
        for draw in range(_N_DRAWS):
            # averaged after moving: regions at the border are the same as those of measured values
            moved = raw[spatial_null(positions[rows], generator=random)]
            moved = regions @ moved if n_spots > 1 else moved
            null[draw, genes] += np.einsum("ij,ij->j", x_standardized, _standardized(moved))
        errors[0, genes] += ((x - y) ** 2).mean(axis=0)
        errors[1, genes] += ((x - means[np.ix_(codes[rows], genes)]) ** 2).mean(axis=0)
        n_sections[genes] += 1
    n_sections[n_sections == 0] = np.nan  # genes that were not predicted in any section
    return _tested(pcc / n_sections, null / n_sections, errors / n_sections)


def _tested(
    pcc: NDArray[np.float64], null: NDArray[np.float64], errors: NDArray[np.float64]
) -> NullTest:
    """Scores with p-values and error ratios; NaN for genes without a score."""
    mean, std = null.mean(axis=0), np.sqrt(_INFLATION) * null.std(axis=0)
    scored = ~np.isnan(pcc)
    varies = scored & (std > _ROUNDING)
    p_values = np.where(scored, 1.0, np.nan)  # constant genes do not vary and are not significant
    p_values[varies] = norm.sf((pcc - mean)[varies] / std[varies])
    # genes with no error of the mean cannot be improved: ratio 1
    ratio = np.where(scored, 1.0, np.nan)
    varies = scored & (errors[1] > 0)
    ratio[varies] = np.sqrt(errors[0][varies] / errors[1][varies])
    return NullTest(pcc, mean, p_values, ratio)


def _means_of_others(measured: NDArray[np.float64], codes: NDArray[np.intp]) -> NDArray[np.float64]:
    """Mean over the rows of all other groups, (n_groups, n_genes); NaN without such rows."""
    members = np.arange(codes.max() + 1)[:, None] == codes  # (n_groups, n)
    finite = np.isfinite(measured)
    n_rows = members @ finite.astype(np.float64)
    sums = members @ np.where(finite, measured, 0)
    n_others = n_rows.sum(axis=0) - n_rows
    means = np.full_like(sums, np.nan)
    return np.divide(sums.sum(axis=0) - sums, n_others, out=means, where=n_others > 0)


def _standardized(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Columns with mean 0 and norm 1; constant columns are 0."""
    centered = values - values.mean(axis=0)
    length = np.linalg.norm(centered, axis=0)
    min_length = _ROUNDING * np.sqrt(len(values)) * np.abs(values).max(axis=0)
    return np.divide(centered, length, out=np.zeros_like(centered), where=length > min_length)
