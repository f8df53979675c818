"""One record per metric, and scores of dense blocks in which every row is a gene or a spot."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy.stats import rankdata

from stpredict._registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd
    from numpy.typing import NDArray

#: A range below this share of the largest value is rounding error.
_ROUNDING = 1e-6


def center(values: NDArray[Any]) -> NDArray[np.float64]:
    """Rows minus their mean; exactly 0 if a row is constant up to rounding."""
    centered = values.astype(np.float64)
    constant = is_constant(values)  # rounding of the mean must not look like variation
    centered -= centered.mean(axis=1, keepdims=True)
    centered[constant] = 0
    return centered


def is_constant(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Rows that vary by no more than rounding error."""
    low, high = (x(axis=1).astype(np.float64) for x in (values.min, values.max))
    return high - low <= _ROUNDING * np.maximum(np.abs(low), np.abs(high))


def rank(values: NDArray[Any]) -> NDArray[np.float64]:
    """Ranks within rows, mean ranks for ties; all equal if a row is constant."""
    ranks = rankdata(values, axis=1)
    # values that differ by rounding error only must not be ranked
    ranks[is_constant(values)] = (values.shape[1] + 1) / 2
    return ranks


def correlate(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cosine similarity of centred rows; 0 if one of them is all 0."""
    norm = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    cosine = _ratio(np.einsum("ij,ij->i", x, y), norm, otherwise=0)
    return np.clip(cosine, -1, 1)  # rounding may exceed 1


def _ratio(
    numerator: NDArray[np.float64], denominator: NDArray[np.float64], *, otherwise: float
) -> NDArray[np.float64]:
    out = np.full_like(denominator, otherwise)
    return np.divide(numerator, denominator, out=out, where=denominator > 0)


class Pair:
    """Measured and predicted rows, with cached intermediate results that scores share."""

    def __init__(self, measured: NDArray[Any], predicted: NDArray[Any]) -> None:
        self.measured, self.predicted = measured, predicted

    @cached_property
    def centered(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return center(self.measured), center(self.predicted)

    @cached_property
    def difference(self) -> NDArray[np.float64]:
        return self.predicted.astype(np.float64) - self.measured

    @cached_property
    def predicted_ranks(self) -> NDArray[np.float64]:
        return rank(self.predicted)

    def pcc(self) -> NDArray[np.float64]:
        return correlate(*self.centered)

    def spearman(self) -> NDArray[np.float64]:
        return correlate(center(rank(self.measured)), center(self.predicted_ranks))

    def rmse(self) -> NDArray[np.float64]:
        return np.sqrt(np.mean(self.difference**2, axis=1))

    def mae(self) -> NDArray[np.float64]:
        return np.mean(np.abs(self.difference), axis=1)

    def explained_variance(self) -> NDArray[np.float64]:
        """Share of the measured variance that is explained; 0 if there is no variance."""
        variance = np.mean(self.centered[0] ** 2, axis=1)
        return 1 - _ratio(self.difference.var(axis=1), variance, otherwise=1)

    def variance_ratio(self) -> NDArray[np.float64]:
        """Predicted variance divided by measured variance; NaN if the latter is 0."""
        measured, predicted = (np.mean(side**2, axis=1) for side in self.centered)
        return _ratio(predicted, measured, otherwise=np.nan)

    def auc(self) -> NDArray[np.float64]:
        """Area under the ROC curve of non-zero against zero; NaN if one of them is absent."""
        expressed = self.measured != 0
        n_expressed = expressed.sum(axis=1).astype(np.float64)
        n_zero = expressed.shape[1] - n_expressed
        # Mann-Whitney U: rank sum minus the ranks of expressed spots among themselves
        rank_sum = np.sum(self.predicted_ranks, axis=1, where=expressed)
        u = rank_sum - n_expressed * (n_expressed + 1) / 2
        return _ratio(u, n_expressed * n_zero, otherwise=np.nan)

    def average_precision(self) -> NDArray[np.float64]:
        """Mean precision over the non-zero spots; NaN if there is none."""
        expressed = self.measured != 0
        # spots that are predicted at least as high as each spot, with itself: ties count together
        n_above = rankdata(-self.predicted_ranks, method="max", axis=1).astype(np.intp)
        order = np.argsort(-self.predicted_ranks, axis=1)
        hits = np.cumsum(np.take_along_axis(expressed, order, axis=1), axis=1)
        precision = np.take_along_axis(hits, n_above - 1, axis=1) / n_above
        total = np.sum(precision, axis=1, where=expressed)
        return _ratio(total, expressed.sum(axis=1).astype(np.float64), otherwise=np.nan)


@dataclass(frozen=True)
class Metric:
    """A metric, as tables and figures need to know it.

    Attributes
    ----------
    name
        Name in the column ``metric`` of a cross-validation, and of a column of `evaluate`.
    label, description
        Short text for axes and table headers, and one or two sentences for the notes of a table.
    better
        Which values are better: ``"higher"``, ``"lower"``, or ``"closer"`` to `best`.
    best, chance
        Values of a perfect and of an uninformative prediction; None where no single value is.
    needs_units
        Whether it changes if the predictions of a gene are shifted and scaled.
    function
        Function of a block of genes, for metrics of `per_gene`. Its argument has ``measured`` and
        ``predicted``, (n_genes, n_spots) each, and what is computed from them only once:
        ``centered`` (both, minus the mean of each gene), ``difference`` (predicted minus measured)
        and ``predicted_ranks``. It returns (n_genes,) values.
    binary_only
        Whether `per_gene` leaves it out by default, and `tl.evaluate` unless high expression is
        predicted.
    """

    name: str
    label: str
    description: str = ""
    better: Literal["higher", "lower", "closer"] = "higher"
    best: float = 1.0
    chance: float | None = None
    needs_units: bool = False
    function: Callable[[Pair], NDArray[np.float64]] | None = field(default=None, repr=False)
    binary_only: bool = False

    def cost(self, scores: pd.Series) -> pd.Series:
        """Values to sort by: the smaller, the better the score."""
        if self.better == "closer":
            return (scores - self.best).abs()
        return scores if self.better == "lower" else -scores


# fmt: off
_RECORDS = (
    Metric("pcc", "PCC", "Pearson correlation of a gene over spots. Higher is better.", chance=0.0,
           function=Pair.pcc),
    Metric("spearman", "Spearman correlation",
           "Rank correlation of a gene over spots. Higher is better.", chance=0.0,
           function=Pair.spearman),
    Metric("rmse", "RMSE", "Root mean squared error. Lower is better.", better="lower", best=0.0,
           needs_units=True, function=Pair.rmse),
    Metric("mae", "MAE", "Mean absolute error. Lower is better.", better="lower", best=0.0,
           needs_units=True, function=Pair.mae),
    Metric("explained_variance", "explained variance",
           "Share of the measured variance that is explained. 1 is best; a constant scores 0.",
           chance=0.0, needs_units=True, function=Pair.explained_variance),
    Metric("variance_ratio", "variance ratio",
           "Predicted variance divided by measured variance. 1 is best.", better="closer",
           needs_units=True, function=Pair.variance_ratio),
    Metric("auc", "ROC-AUC", "Area under the ROC curve for zero versus non-zero. 0.5 is chance.",
           chance=0.5, function=Pair.auc),
    Metric("average_precision", "average precision",
           "Area under the precision-recall curve for zero versus non-zero. The share of non-zero "
           "spots is chance, and the score of the training mean.", function=Pair.average_precision,
           binary_only=True),
    Metric("ssim", "SSIM", "Structural similarity of the rasterised maps. 1 is best.", chance=0.0),
    Metric("morans_i_difference", "Moran's I, predicted − measured",
           "Difference in spatial autocorrelation. 0 is best.", better="closer", best=0.0),
    Metric("pcc_shuffled", "PCC, shuffled",
           "Null: PCC after shuffling the predictions among the spots of a section."),
    Metric("pcc_spatial_null", "PCC, spatial null",
           "Null: PCC after moving the predictions within the section, as smooth as before."),
    Metric("auc_shuffled", "ROC-AUC, shuffled", "Null: ROC-AUC after shuffling, as for the PCC."),
    Metric("auc_spatial_null", "ROC-AUC, spatial null",
           "Null: ROC-AUC after moving the predictions, as for the PCC."),
    Metric("average_precision_shuffled", "average precision, shuffled",
           "Null: average precision after shuffling, as for the PCC."),
    Metric("average_precision_spatial_null", "average precision, spatial null",
           "Null: average precision after moving the predictions, as for the PCC."),
    Metric("pcc_top50", "PCC of the 50 most variable genes",
           "Mean PCC of the 50 genes with the highest variance in the training data.", chance=0.0),
    Metric("pcc_per_spot", "PCC per spot",
           "Pearson correlation of a spot over its genes. Higher is better.", chance=0.0,
           needs_units=True),
    Metric("spearman_per_spot", "Spearman correlation per spot",
           "Rank correlation of a spot over its genes. Higher is better.", chance=0.0,
           needs_units=True),
    Metric("gene_correlation", "gene–gene correlation",
           "How well the correlations between genes are preserved. 1 is best.", chance=0.0),
    Metric("ari", "ARI of clusters",
           "Agreement of predicted and measured clusters: adjusted Rand index.", chance=0.0,
           needs_units=True),
    Metric("nmi", "NMI of clusters",
           "Agreement of predicted and measured clusters: normalised mutual information.",
           chance=0.0, needs_units=True),
    Metric("reliability", "split-half reliability",
           "Share of the measured variance that is not counting noise."),
)
# fmt: on
#: Every metric that is computed per gene or per section, by name.
METRICS = Registry("metric", _RECORDS)
