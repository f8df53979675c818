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


def planted(differences, *, n_genes=40, seed=0):
    """Two methods, one as much better in each fold; and one gene that only the worse knows."""
    random = np.random.default_rng(seed)
    rows = []
    for fold, difference in enumerate(differences):
        for gene in range(n_genes):
            base = random.uniform(0, 0.5)
            noise = random.normal(0, 0.01)
            here = (f"P{fold}", f"S{fold}", f"G{gene}", "pcc")
            rows += [("ridge", *here, base), ("deep", *here, base + difference + noise)]
        rows.append(("ridge", f"P{fold}", f"S{fold}", "lonely", "pcc", 0.9))
    return result(rows, methods=("deep", "ridge"))


def test_a_planted_difference_is_found():
    found = planted([0.03, 0.05, 0.04, 0.06, 0.02, 0.04]).compare("deep", "ridge")
    assert found.difference == pytest.approx(0.04, abs=0.003)
    assert 0.02 < found.low < found.difference < found.high < 0.06
    assert found.p_value == pytest.approx(2 / 2**6)
    assert found.n_genes == 40
    assert (found.genes["q_value"] < 0.05).mean() > 0.9
    assert str(found).startswith("deep - ridge = +0.04")
    assert "over 6 folds and 40 genes (p = 0.031)" in str(found)


def test_no_difference_is_none():
    found = planted([0.01, -0.01, 0.02, -0.02]).compare("deep", "ridge")
    assert found.low < 0 < found.high
    assert found.p_value > 0.5


def test_every_fold_counts_once_however_many_sections_it_has():
    rows = [
        (method, fold, section, "A", "pcc", value)
        for method, values in {"a": (0.1, 0.1, 0.1, 0.5), "b": (0, 0, 0, 0)}.items()
        for (fold, section), value in zip(
            [("P1", "S1"), ("P1", "S2"), ("P1", "S3"), ("P2", "S4")], values, strict=True
        )
    ]
    found = result(rows, methods=("a", "b")).compare("a", "b")
    assert found.difference == pytest.approx(0.3)
    assert found.n_folds == 2
    assert found.genes["q_value"].isna().all()  # two folds tell nothing of a gene


def test_tests_of_genes_are_scipys_paired_tests():
    from scipy import stats

    table = planted([0.0, 0.05, 0.02, 0.04])
    wide = table.values().dropna()
    found = table.compare("deep", "ridge").genes
    gene = wide.xs("G3", level="gene")
    expected = stats.ttest_rel(gene["deep"], gene["ridge"]).pvalue
    assert found.loc["G3", "p_value"] == pytest.approx(expected)


def test_a_leaky_comparison_says_so():
    rows = [("a", "P1", "S1", "A", "pcc", 0.5), ("b", "P1", "S1", "A", "pcc", 0.4)]
    text = str(result(rows, methods=("a", "b"), leaky=True).compare("a", "b"))
    assert text.startswith("LEAKY: a - b = +0.100 mean pcc over 1 fold and 1 genes")


def test_what_cannot_be_compared():
    table = result(ROWS, methods=("ridge", "trees"))
    with pytest.raises(ValueError, match="'ridge' is compared with itself"):
        table.compare("ridge", "ridge")
    with pytest.raises(KeyError, match="no pcc of tuned_ridge; there is of: ridge"):
        table.compare("ridge")
    rows = [("a", "P1", "S1", "A", "pcc", 0.5), ("b", "P1", "S1", "B", "pcc", 0.4)]
    apart = result(rows, methods=("a", "b"))
    with pytest.raises(ValueError, match="no pcc of a gene in common"):
        apart.compare("a", "b")
