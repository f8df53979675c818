"""The registry of metrics holds what figures and tables need."""

from __future__ import annotations

import pandas as pd
import pytest

from stpredict import metrics


def test_every_record_is_registered_under_its_own_name():
    assert all(record.name == name for name, record in metrics.METRICS.items())
    labels = [record.label for record in metrics.METRICS.values()]
    assert len(set(labels)) == len(labels)


def test_public_functions_of_the_names_of_metrics_per_gene_give_the_same_values():
    measured, predicted = [[0.0], [1.0], [4.0]], [[1.0], [0.0], [2.0]]
    for name, record in metrics.METRICS.items():
        if record.function is not None and hasattr(metrics, name):
            value = metrics.per_gene(measured, predicted, names=[name])[name]
            assert getattr(metrics, name)(measured, predicted) == value


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
