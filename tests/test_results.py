"""Tidy scores, their summaries and comparisons, and the text of the protocol."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from stpredict.results import COLUMNS, Protocol, Scores


def protocol(**changes):
    options = {
        "sections": ("S1", "S2"),
        "n_spots": 120,
        "n_patients": 2,
        "n_genes": {"ridge": 2},
        "units": "log(1 + counts per 10,000)",
        "layer": "log1p",
    }
    return Protocol(**options | changes)


def scores_of(rows, *, methods, **changes):
    """Scores with rows of method, section, group, gene, metric and value."""
    return Scores(pd.DataFrame(rows, columns=COLUMNS), methods, protocol(**changes))


ROWS = [
    ("noise_ceiling", "S1", "P1", "A", "pcc", 0.8),
    ("ridge", "S1", "P1", "A", "pcc", 0.2),
    ("ridge", "S1", "P1", "B", "pcc", 0.4),
    ("ridge", "S2", "P1", "A", "pcc", 0.9),
    ("trees", "S1", "P1", "A", "pcc", 0.5),
    ("ridge", "S1", "P1", "A", "rmse", 2.0),
    ("ridge", "S1", "P1", "", "ari", 0.3),
]


def test_the_summary_averages_genes_within_sections_first():
    summary = scores_of(ROWS, methods=("ridge", "trees")).summary()
    assert list(summary.index) == ["ridge", "trees", "noise_ceiling"]
    assert summary.loc["ridge", "pcc"] == pytest.approx(np.mean([np.mean([0.2, 0.4]), 0.9]))
    assert summary.loc["ridge", "n_sections"] == 2
    assert np.isnan(summary.loc["trees", "rmse"])


@pytest.mark.parametrize("dtype", ["object", "category"])
def test_methods_keep_their_order_in_every_summary(dtype):
    table = pd.DataFrame(ROWS, columns=COLUMNS).astype(dict.fromkeys(COLUMNS[:-1], dtype))
    scores = Scores(table, ("trees", "ridge"), protocol())
    assert list(scores.summary().index) == ["trees", "ridge", "noise_ceiling"]
    by_section = scores.summary(by="section")
    assert list(by_section.index) == [
        ("trees", "S1"),
        ("ridge", "S1"),
        ("ridge", "S2"),
        ("noise_ceiling", "S1"),
    ]
    assert by_section.loc[("ridge", "S1"), "pcc"] == pytest.approx(0.3)
    assert by_section.loc[("ridge", "S2"), "pcc"] == pytest.approx(0.9)
    by_group = scores.summary(by="group")
    assert by_group.loc[("ridge", "P1"), "pcc"] == scores.summary().loc["ridge", "pcc"]


def test_genes_are_averaged_over_sections_and_sorted():
    scores = scores_of(ROWS, methods=("ridge", "trees"))
    genes = scores.genes()
    assert list(genes.index) == ["A", "B"]
    assert list(genes.columns) == ["pcc", "rmse"]  # not the metrics of whole sections
    assert genes.loc["A", "pcc"] == pytest.approx(0.55)
    assert list(scores.genes("trees").index) == ["A"]
    with pytest.raises(KeyError, match="no scores of 'cnn'; methods: ridge, trees, noise_ceiling"):
        scores.genes("cnn")


def test_values_are_wide_and_in_the_order_given():
    wide = scores_of(ROWS, methods=("trees", "ridge")).values()
    assert list(wide.columns) == ["trees", "ridge", "noise_ceiling"]
    assert wide.loc[("P1", "S1", "A"), "trees"] == 0.5
    assert np.isnan(wide.loc[("P1", "S1", "B"), "trees"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metric": "r2"}, r"no metric 'r2'; metrics: pcc, rmse, ari"),
        ({"methods": ["cnn"]}, r"no pcc of cnn; methods with it: ridge, trees, noise_ceiling"),
    ],
)
def test_unknown_metrics_and_methods_are_refused(arguments, message):
    with pytest.raises(KeyError, match=message):
        scores_of(ROWS, methods=("ridge", "trees")).values(**arguments)


def test_other_columns_are_refused():
    with pytest.raises(ValueError, match="scores must have the columns method, section"):
        Scores(pd.DataFrame({"method": []}), (), protocol())


def planted(differences, *, n_genes=40, seed=0):
    """Two methods that differ by a planted amount in each group, and a gene of one of them."""
    random = np.random.default_rng(seed)
    rows = []
    for group, difference in enumerate(differences):
        for gene in range(n_genes):
            base = random.uniform(0, 0.5)
            noise = random.normal(0, 0.01)
            labels = (f"S{group}", f"P{group}", f"G{gene}", "pcc")
            rows += [("ridge", *labels, base), ("deep", *labels, base + difference + noise)]
        rows.append(("ridge", f"S{group}", f"P{group}", "single", "pcc", 0.9))
    return scores_of(rows, methods=("deep", "ridge"))


def test_a_planted_difference_is_recovered():
    comparison = planted([0.03, 0.05, 0.04, 0.06, 0.02, 0.04]).compare("deep", "ridge")
    assert comparison.difference == pytest.approx(0.04, abs=0.003)
    assert 0.02 < comparison.low < comparison.difference < comparison.high < 0.06
    assert comparison.p_value == pytest.approx(2 / 2**6)
    assert comparison.n_genes == 40
    assert (comparison.genes["q_value"] < 0.05).mean() > 0.9
    assert str(comparison).startswith("deep - ridge = +0.04")
    assert "over 6 groups and 40 genes (p = 0.031)" in str(comparison)


def test_equal_methods_do_not_differ():
    comparison = planted([0.01, -0.01, 0.02, -0.02]).compare("deep", "ridge")
    assert comparison.low < 0 < comparison.high
    assert comparison.p_value > 0.5


def test_every_group_counts_once_whatever_its_number_of_sections():
    rows = [
        (method, section, group, "A", "pcc", value)
        for method, values in {"a": (0.1, 0.1, 0.1, 0.5), "b": (0, 0, 0, 0)}.items()
        for (group, section), value in zip(
            [("P1", "S1"), ("P1", "S2"), ("P1", "S3"), ("P2", "S4")], values, strict=True
        )
    ]
    comparison = scores_of(rows, methods=("a", "b")).compare("a", "b")
    assert comparison.difference == pytest.approx(0.3)
    assert comparison.n_groups == 2
    assert comparison.genes["q_value"].isna().all()  # two groups are too few for a test


def test_tests_of_genes_are_scipys_paired_tests():
    scores = planted([0.0, 0.05, 0.02, 0.04])
    gene = scores.values().dropna().xs("G3", level="gene")
    expected = stats.ttest_rel(gene["deep"], gene["ridge"]).pvalue
    genes = scores.compare("deep", "ridge").genes
    assert genes.loc["G3", "p_value"] == pytest.approx(expected)


def test_a_leaky_comparison_is_marked():
    rows = [("a", "S1", "P1", "A", "pcc", 0.5), ("b", "S1", "P1", "A", "pcc", 0.4)]
    scores = scores_of(rows, methods=("a", "b"), leaking_sections=("S1",))
    assert scores.leaky
    text = str(scores.compare("a", "b"))
    assert text.startswith("LEAKY: a - b = +0.100 mean pcc over 1 group and 1 genes")


def test_bad_comparisons_are_refused():
    scores = scores_of(ROWS, methods=("ridge", "trees"))
    with pytest.raises(ValueError, match="'ridge' is compared with itself"):
        scores.compare("ridge", "ridge")
    with pytest.raises(KeyError, match="no pcc of tuned_ridge; methods with it: ridge"):
        scores.compare("ridge")
    rows = [("a", "S1", "P1", "A", "pcc", 0.5), ("b", "S1", "P1", "B", "pcc", 0.4)]
    with pytest.raises(ValueError, match="share no gene with a pcc"):
        scores_of(rows, methods=("a", "b")).compare("a", "b")


# ---- protocol --------------------------------------------------------------------------------


def test_the_protocol_of_a_cross_validation_is_one_paragraph():
    folds = {"P1": ("P1",), "P2": ("P2",)}
    text = str(
        protocol(
            group_kind="patient",
            folds=folds,
            gene_selection="given in advance",
            n_genes={"ridge": 2, "cnn": 5},
        )
    )
    assert text.startswith("Leave one patient out (2 folds: P1, P2); 120 spots of 2 sections of ")
    assert "2 patients. 2 to 5 genes, given in advance. Pearson correlation per gene" in text
    assert "Measured values: log(1 + counts per 10,000)." in text
    grouped = protocol(group_kind="patient", folds={"P1, P2": ("P1", "P2"), "P3": ("P3",)})
    assert str(grouped).startswith("Grouped by patient (2 folds: P1, P2, P3); ")


@pytest.mark.parametrize(
    ("changes", "start"),
    [
        ({}, "S1, S2; 120 spots of 2 sections of 2 patients. 2 genes."),
        (
            {"trained_on": {"ridge": ("S8", "S9")}},
            "Held out: S1, S2, trained on S8, S9; 120 spots",
        ),
        (
            {"trained_on": {"ridge": ("S1",)}, "leaking_sections": ("S1",)},
            "LEAKY: sections S1 in both training and test. S1, S2, trained on S1; 120 spots",
        ),
        ({"n_patients": None}, "S1, S2; 120 spots of 2 sections of unknown patients."),
        ({"n_patients": 1}, "S1, S2; 120 spots of 2 sections of one patient."),
        ({"leaking_patients": ("P1",)}, "LEAKY: patients P1 in both training and test. "),
    ],
)
def test_the_protocol_reports_what_was_held_out(changes, start):
    assert str(protocol(**changes)).startswith(start)
    assert protocol(**changes).leaky == start.startswith("LEAKY")


def test_failures_and_realignment_are_part_of_the_protocol():
    text = str(protocol(n_failed=2, realigned=True))
    assert "Spots were realigned with the help of their measured expression." in text
    assert text.endswith("2 fits FAILED and are not scored.")


def test_the_plain_protocol_has_every_field_and_the_text():
    plain = protocol(folds={"P1": ("P1",)}, layer=None).to_plain()
    assert plain["folds"] == {"P1": ["P1"]}
    assert plain["sections"] == ["S1", "S2"]
    assert plain["text"] == str(protocol(folds={"P1": ("P1",)}, layer=None))
    assert plain["leaky"] is False
    assert "layer" not in plain  # zarr stores no None


def test_printed_scores_are_protocol_and_summary():
    text = repr(scores_of(ROWS, methods=("ridge", "trees")))
    assert text.startswith("S1, S2; 120 spots")
    assert "ridge" in text
    assert "0.8" in text
