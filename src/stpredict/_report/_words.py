"""What the page calls things."""

from __future__ import annotations

from stpredict.results import (
    NEIGHBOR_MEAN,
    NOISE_CEILING,
    PCC_SHUFFLED,
    PCC_SPATIAL_NULL,
    TRAINING_MEAN,
    TUNED_RIDGE,
)

#: References, as a row says them, and what they are.
REFERENCES = {
    TRAINING_MEAN: ("training mean", "Null: every spot gets the mean of the training rows."),
    TUNED_RIDGE: ("tuned ridge", "Null: ridge regression on the same embedding, alpha tuned."),
    NEIGHBOR_MEAN: ("neighbour mean", "Every spot gets what was measured in its neighbours."),
    NOISE_CEILING: ("noise ceiling", "What a perfect model could reach, as counts are noisy."),
}
#: Metrics, as a column says them, and what they are.
METRICS = {
    "pcc": ("PCC", "Pearson correlation of a gene over the spots of a section. Higher is better."),
    PCC_SHUFFLED: ("PCC, shuffled", "Null: every spot predicted from another's inputs."),
    PCC_SPATIAL_NULL: (
        "PCC, spatial null",
        "Null: predictions shifted or turned within the section, which keeps them as smooth.",
    ),
    "spearman": ("Spearman", "Rank correlation of a gene over the spots. Higher is better."),
    "rmse": ("RMSE", "Root mean squared error. Lower is better."),
    "mae": ("MAE", "Mean absolute error. Lower is better."),
    "explained_variance": ("explained variance", "1 is best; 0 is no better than a constant."),
    "variance_ratio": ("variance ratio", "Variance predicted over measured; 1 is best."),
    "auc": ("AUC", "Area under the ROC curve of zero versus non-zero; 0.5 is chance."),
    "ssim": ("SSIM", "Structural similarity of the rasterised section; 1 is best."),
    "morans_i": ("Moran's I", "Spatial autocorrelation."),
    "pcc_per_spot": ("PCC per spot", "Pearson correlation of a spot over genes."),
    "spearman_per_spot": ("Spearman per spot", "Rank correlation of a spot over genes."),
    "gene_correlation": ("gene correlation", "How well correlations between genes are kept."),
    "ari": ("ARI", "Agreement of clusters: adjusted Rand index."),
    "nmi": ("NMI", "Agreement of clusters: normalised mutual information."),
    "n_sections": ("sections", "Sections that were scored."),
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
    return REFERENCES.get(name, (name, ""))[0]


def metric(name: str) -> str:
    """Name of a metric, as it is shown."""
    return METRICS.get(name, (name, ""))[0]
