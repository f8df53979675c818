"""What the page calls things."""

from __future__ import annotations

from stpredict.pl._drawing import _scores
from stpredict.results import (
    NEIGHBOR_MEAN,
    NOISE_CEILING,
    PCC_SHUFFLED,
    PCC_SPATIAL_NULL,
    TRAINING_MEAN,
    TUNED_RIDGE,
)

#: What stands beside the methods.
REFERENCES = {
    TRAINING_MEAN: "Null: every spot gets the mean of the training rows.",
    TUNED_RIDGE: "Null: ridge regression on the same embedding, alpha tuned.",
    NEIGHBOR_MEAN: "Every spot gets what was measured in its neighbours.",
    NOISE_CEILING: "What a perfect model could reach, as counts are noisy.",
}
#: Metrics that pictures do not draw, as a column says them.
NAMES = {
    PCC_SHUFFLED: "PCC, shuffled",
    PCC_SPATIAL_NULL: "PCC, spatial null",
    "morans_i_difference": "Moran's I, difference",
    "pcc_top50": "PCC of top 50",
}
#: What metrics are.
METRICS = {
    "pcc": "Pearson correlation of a gene over the spots of a section. Higher is better.",
    PCC_SHUFFLED: "Null: every spot predicted from another's inputs.",
    PCC_SPATIAL_NULL: (
        "Null: predictions shifted or turned within the section, which keeps them as smooth."
    ),
    "spearman": "Rank correlation of a gene over the spots. Higher is better.",
    "rmse": "Root mean squared error. Lower is better.",
    "mae": "Mean absolute error. Lower is better.",
    "explained_variance": "1 is best; 0 is no better than a constant.",
    "variance_ratio": "Variance predicted over measured; 1 is best.",
    "auc": "Area under the ROC curve of zero versus non-zero; 0.5 is chance.",
    "ssim": "Structural similarity of the rasterised section; 1 is best.",
    "morans_i_difference": "Spatial autocorrelation, predicted less measured; 0 is best.",
    "pcc_top50": "PCC of the 50 genes that vary most.",
    "reliability": "Share of the measured variance that is not noise of the counts.",
    "pcc_per_spot": "Pearson correlation of a spot over genes.",
    "spearman_per_spot": "Rank correlation of a spot over genes.",
    "gene_correlation": "How well correlations between genes are kept.",
    "ari": "Agreement of clusters: adjusted Rand index.",
    "nmi": "Agreement of clusters: normalised mutual information.",
}
#: Settings of a cross-validation, in the order in which they are told.
SETTINGS = {
    "groups": "groups",
    "layer": "layer",
    "units": "units",
    "n_spots": "spots",
    "seed": "seed",
    "sections": "sections left out",
    "seconds": "seconds",
    "versions": "versions",
}


def method(name: str) -> str:
    """Name of a method or of a reference, as it is shown."""
    if name.startswith(f"{TUNED_RIDGE}_"):  # one of several, each on an embedding
        return f"{method(TUNED_RIDGE)}, {name.removeprefix(f'{TUNED_RIDGE}_')}"
    return " ".join(_scores.WORDS.get(name, name).split())


def note(name: str) -> str:
    """What a reference is; of a method nothing."""
    return REFERENCES.get(TUNED_RIDGE if name.startswith(TUNED_RIDGE) else name, "")


def metric(name: str) -> tuple[str, str]:
    """Name of a metric, as it is shown, and what it is."""
    return NAMES.get(name) or _scores.title(name), METRICS.get(name, "")
