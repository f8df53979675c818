"""Tidy scores and what is read off them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from stpredict.results import COLUMNS, CrossValidation


def result(rows, **options):
    return CrossValidation(pd.DataFrame(rows, columns=COLUMNS), protocol="", **options)


ROWS = [
    ("noise_ceiling", "P1", "S1", "A", "pcc", 0.8),
    ("ridge", "P1", "S1", "A", "pcc", 0.2),
    ("ridge", "P1", "S1", "B", "pcc", 0.4),
    ("ridge", "P1", "S2", "A", "pcc", 0.9),
    ("trees", "P1", "S1", "A", "pcc", 0.5),
    ("ridge", "P1", "S1", "A", "rmse", 2.0),
]


def test_the_summary_averages_genes_within_sections_first():
    summary = result(ROWS, methods=("ridge", "trees")).summary()
    assert list(summary.index) == ["ridge", "trees", "noise_ceiling"]
    assert summary.loc["ridge", "pcc"] == pytest.approx(np.mean([np.mean([0.2, 0.4]), 0.9]))
    assert summary.loc["ridge", "n_sections"] == 2
    assert np.isnan(summary.loc["trees", "rmse"])


def test_values_are_wide_and_in_the_order_given():
    wide = result(ROWS, methods=("trees", "ridge")).values()
    assert list(wide.columns) == ["trees", "ridge", "noise_ceiling"]
    assert wide.loc[("P1", "S1", "A"), "trees"] == 0.5
    assert np.isnan(wide.loc[("P1", "S1", "B"), "trees"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metric": "r2"}, r"there is no metric 'r2'; metrics: pcc, rmse"),
        ({"methods": ["cnn"]}, r"no pcc of cnn; there is of: ridge, trees, noise_ceiling"),
    ],
)
def test_what_is_not_there_is_told(arguments, message):
    with pytest.raises(KeyError, match=message):
        result(ROWS, methods=("ridge", "trees")).values(**arguments)


def test_other_columns_are_refused():
    with pytest.raises(ValueError, match="scores must have the columns method, fold"):
        CrossValidation(pd.DataFrame({"method": []}), methods=(), protocol="")
