"""One record per metric: its name, label, best value and chance value."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from stpredict.metrics._scores import Pair

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Metric:
    """A metric, as tables and figures need to know it.

    Attributes
    ----------
    name
        Name in the column ``metric`` of a cross-validation, or of a column of `evaluate`.
    label
        Short text for axes and table headers.
    description
        One or two sentences for the notes of a table.
    better
        Which values are better: ``"higher"``, ``"lower"``, or ``"closer"`` to `best`.
    best
        Value of a perfect prediction.
    chance
        Value of an uninformative prediction; None where no single value is.
    function
        Scores of a block of genes, for metrics that `per_gene` computes; otherwise None.
    """

    name: str
    label: str
    description: str = ""
    better: Literal["higher", "lower", "closer"] = "higher"
    best: float = 1.0
    chance: float | None = None
    function: Callable[[Pair], NDArray[np.float64]] | None = field(default=None, repr=False)

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
           function=Pair.rmse),
    Metric("mae", "MAE", "Mean absolute error. Lower is better.", better="lower", best=0.0,
           function=Pair.mae),
    Metric("explained_variance", "explained variance",
           "Share of the measured variance that is explained. 1 is best; a constant scores 0.",
           chance=0.0, function=Pair.explained_variance),
    Metric("variance_ratio", "variance ratio",
           "Predicted variance divided by measured variance. 1 is best.", better="closer",
           function=Pair.variance_ratio),
    Metric("auc", "ROC-AUC", "Area under the ROC curve for zero versus non-zero. 0.5 is chance.",
           chance=0.5, function=Pair.auc),
    Metric("ssim", "SSIM", "Structural similarity of the rasterised maps. 1 is best.", chance=0.0),
    Metric("morans_i_difference", "Moran's I, predicted − measured",
           "Difference in spatial autocorrelation. 0 is best.", better="closer", best=0.0),
    Metric("pcc_shuffled", "PCC, shuffled",
           "Null: PCC after shuffling the predictions among the spots of a section."),
    Metric("pcc_spatial_null", "PCC, spatial null",
           "Null: PCC after moving the predictions within the section, as smooth as before."),
    Metric("pcc_top50", "PCC of the 50 most variable genes",
           "Mean PCC of the 50 genes with the highest variance in the training data.", chance=0.0),
    Metric("pcc_per_spot", "PCC per spot",
           "Pearson correlation of a spot over its genes. Higher is better.", chance=0.0),
    Metric("spearman_per_spot", "Spearman correlation per spot",
           "Rank correlation of a spot over its genes. Higher is better.", chance=0.0),
    Metric("gene_correlation", "gene–gene correlation",
           "How well the correlations between genes are preserved. 1 is best.", chance=0.0),
    Metric("ari", "ARI of clusters",
           "Agreement of predicted and measured clusters: adjusted Rand index.", chance=0.0),
    Metric("nmi", "NMI of clusters",
           "Agreement of predicted and measured clusters: normalised mutual information.",
           chance=0.0),
    Metric("reliability", "split-half reliability",
           "Share of the measured variance that is not counting noise."),
)
# fmt: on
#: Every metric that is computed per gene or per section, by name.
METRICS = {record.name: record for record in _RECORDS}
