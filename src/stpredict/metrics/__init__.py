"""Metrics of predicted against measured expression, per gene, per spot or per section."""

from stpredict.metrics._ceiling import NoiseCeiling, noise_ceiling
from stpredict.metrics._nulls import neighbor_mean, spatial_null
from stpredict.metrics._per_gene import (
    auc,
    average_precision,
    explained_variance,
    mae,
    pcc,
    per_gene,
    rmse,
    spearman,
    variance_ratio,
)
from stpredict.metrics._per_spot import pcc_per_spot, spearman_per_spot
from stpredict.metrics._register import register
from stpredict.metrics._scores import METRICS, Metric
from stpredict.metrics._spatial import morans_i, ssim
from stpredict.metrics._structure import ClusterAgreement, cluster_agreement, gene_correlation
from stpredict.metrics._top import TopCurve, pcc_of_top

__all__ = [
    "METRICS",
    "ClusterAgreement",
    "Metric",
    "NoiseCeiling",
    "TopCurve",
    "auc",
    "average_precision",
    "cluster_agreement",
    "explained_variance",
    "gene_correlation",
    "mae",
    "morans_i",
    "neighbor_mean",
    "noise_ceiling",
    "pcc",
    "pcc_of_top",
    "pcc_per_spot",
    "per_gene",
    "register",
    "rmse",
    "spatial_null",
    "spearman",
    "spearman_per_spot",
    "ssim",
    "variance_ratio",
]


def __dir__() -> list[str]:
    return sorted(__all__)
