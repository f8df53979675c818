"""Metrics: measured and predicted arrays in, one number per gene out."""

from __future__ import annotations

from stpredict.metrics._per_gene import pcc, rmse, spearman

__all__ = ["pcc", "rmse", "spearman"]
