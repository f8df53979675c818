"""The registry of metrics holds what figures and tables need."""

from __future__ import annotations

import pandas as pd
import pytest

from stpredict import metrics


def test_every_record_is_registered_under_its_own_name():
    assert all(record.name == name for name, record in metrics.METRICS.items())
    labels = [record.label for record in metrics.METRICS.values()]
    assert len(set(labels)) == len(labels)


def test_metrics_per_gene_are_public_functions():
    for name, record in metrics.METRICS.items():
        if record.function is not None:
            assert callable(getattr(metrics, name))


@pytest.mark.parametrize(
    ("name", "best_first"),
    [
        ("pcc", ["high", "middle", "low"]),
        ("rmse", ["low", "middle", "high"]),
        ("variance_ratio", ["middle", "high", "low"]),
        ("morans_i_difference", ["low", "middle", "high"]),
    ],
)
def test_the_cost_sorts_the_best_score_first(name, best_first):
    scores = pd.Series({"low": 0.1, "middle": 0.9, "high": 1.3})
    assert list(metrics.METRICS[name].cost(scores).sort_values().index) == best_first
