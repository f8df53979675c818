"""Metrics: measured and predicted arrays in, numbers per gene, per spot or per section out."""

from __future__ import annotations

from stpredict.metrics._ceiling import NoiseCeiling, noise_ceiling
from stpredict.metrics._nulls import neighbor_mean
from stpredict.metrics._per_gene import (
    auc,
    explained_variance,
    mae,
    pcc,
    per_gene,
    rmse,
    spearman,
    variance_ratio,
)
from stpredict.metrics._per_spot import pcc_per_spot, spearman_per_spot

__all__ = [
    "NoiseCeiling",
    "auc",
    "explained_variance",
    "mae",
    "neighbor_mean",
    "noise_ceiling",
    "pcc",
    "pcc_per_spot",
    "per_gene",
    "rmse",
    "spearman",
    "spearman_per_spot",
    "variance_ratio",
]
