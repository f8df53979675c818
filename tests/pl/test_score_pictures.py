"""Pictures of scores: every mark at its planted value."""

from __future__ import annotations

import dataclasses

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection, PathCollection, PolyCollection
from matplotlib.colors import same_color
from matplotlib.text import Annotation, Text

import stpredict as stp
from stpredict.pl._drawing import _scores
from stpredict.results import COLUMNS, Failure, Protocol, Scores

GENES = ["ERBB2", "FASN", "COL1A1", "IGKC"]
SECTIONS = ["S1", "S2"]
#: Mean PCC of each, and what is added in S2 and taken away in S1.
PLANTED = {"cnn": 0.2, "ridge": 0.4, "tuned_ridge": 0.35, "neighbor_mean": 0.1,
           "training_mean": 0.0, "noise_ceiling": 0.8}  # fmt: skip
SHIFT = {"cnn": 0.05, "ridge": 0.1}


def protocol(sections=SECTIONS, **options):
    return Protocol(
        sections=tuple(sections),
        n_spots=100,
        n_patients=len(sections),
        n_genes={"ridge": 4},
        units="log1p",
        layer="log1p",
        group_kind="patient",
        folds={f"P-{section}": (f"P-{section}",) for section in sections},
        **options,
    )


def rows_of(method, metric, mean, *, genes=GENES, sections=SECTIONS, shift=0.0):
    spread = np.linspace(-0.05, 0.05, len(genes)) if mean else np.zeros(len(genes))
    return [
        (method, section, f"P-{section}", gene, metric, mean + offset + more)
        for section, offset in zip(sections, (-shift, shift), strict=False)
        for gene, more in zip(genes, spread, strict=True)
    ]


def make_scores(
    methods=("cnn", "ridge"), *, genes=GENES, sections=SECTIONS, references=True, **options
):
    rows = []
    for name, mean in PLANTED.items():
        if name in methods or (references and name not in ("cnn", "ridge")):
            shift = SHIFT.get(name, 0.0)
            rows += rows_of(name, "pcc", mean, genes=genes, sections=sections, shift=shift)
    for name in methods:
        if references:
            rows += rows_of(name, "pcc_shuffled", 0.01, genes=genes, sections=sections)
            rows += rows_of(name, "pcc_spatial_null", 0.06, genes=genes, sections=sections)
        rows += rows_of(name, "rmse", 1 + PLANTED[name], genes=genes, sections=sections)
        rows += [(name, s, f"P-{s}", "", "ari", PLANTED[name] / 2) for s in sections]
    return Scores(
        pd.DataFrame(rows, columns=COLUMNS),
        methods=tuple(methods),
        protocol=options.pop("protocol", protocol(sections)),
        baselines=("tuned_ridge",) if references else (),
        **options,
    )


def texts(ax):
    return [text.get_text() for text in ax.texts]


def line_of(ax, *, y, marker, colour=None):
    """The x values of the lines with that marker at that height."""
    return [
        line.get_xdata()[0]
        for line in ax.lines
        if line.get_marker() == marker
        and len(line.get_ydata()) == 1
        and line.get_ydata()[0] == pytest.approx(y)
        and (colour is None or same_color(line.get_color(), colour))
    ]


def labels_of(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def boxes_of(texts, figure):
    figure.canvas.draw()
    # of the text without its leader
    return [Text.get_window_extent(text) for text in texts]


def overlapping(boxes):
    return any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


class TestMetrics:
    def test_methods_are_sorted_by_their_means_with_references_below(self):
        ax = stp.pl.metrics(make_scores())
        assert [label.get_text() for label in ax.get_yticklabels()] == [
            "ridge",
            "cnn",
            "tuned ridge",
            "mean of measured\nneighbours",
            "training mean",
        ]
        bottom, top = ax.get_ylim()
        assert bottom > top, "the first row is on top"

    def test_the_marks_are_the_means_of_the_sections_and_of_the_summary(self):
        scores = make_scores()
        ax = stp.pl.metrics(scores)
        assert line_of(ax, y=0, marker="o") == [pytest.approx(0.3)]
        assert line_of(ax, y=0, marker="s") == [pytest.approx(0.5)]
        assert line_of(ax, y=0, marker="|") == [pytest.approx(scores.summary().loc["ridge", "pcc"])]
        assert {"mean of S1", "mean of S2"} <= set(labels_of(ax))
        assert [text for text in texts(ax) if text.replace(".", "").isdigit()] == [
            "0.40",
            "0.20",
            "0.35",
            "0.10",
            "0.00",
        ]

    def test_few_genes_are_dots_at_their_means_and_a_bar_over_their_quartiles(self):
        ax = stp.pl.metrics(make_scores())
        genes = 0.4 + np.linspace(-0.05, 0.05, 4)
        (dots,) = [line for line in ax.lines if len(line.get_xdata()) == 4
                   and line.get_ydata()[0] == pytest.approx(-0.15)]  # fmt: skip
        np.testing.assert_allclose(np.sort(dots.get_xdata()), genes)
        bars = [line.get_xdata() for line in ax.lines if list(line.get_ydata()) == [0, 0]]
        np.testing.assert_allclose(bars, [np.percentile(genes, [25, 75])])

    def test_genes_that_are_nearly_all_equal_have_no_density(self):
        genes = [f"G{i}" for i in range(400)]
        scores = make_scores(("ridge",), genes=genes, references=False)
        scores.table["value"] = np.where(scores.table["gene"] == "G7", 0.9, 0.0)
        ax = stp.pl.metrics(scores)
        assert not [c for c in ax.collections if isinstance(c, PolyCollection)]

    def test_many_genes_are_a_density_above_their_row(self):
        genes = [f"G{i}" for i in range(200)]
        ax = stp.pl.metrics(make_scores(genes=genes))
        densities = [c for c in ax.collections if isinstance(c, PolyCollection)]
        points = densities[0].get_paths()[0].vertices
        assert points[:, 0].min() >= 0.35
        assert points[:, 0].max() <= 0.45
        assert -0.5 < points[:, 1].min() < -0.1
        assert points[:, 1].max() == pytest.approx(0)

    def test_nulls_are_drawn_below_their_method(self):
        ax = stp.pl.metrics(make_scores())
        for row in (0, 1):
            assert line_of(ax, y=row + 0.16, marker="|") == [pytest.approx(0.01)]
            assert line_of(ax, y=row + 0.29, marker="|") == [pytest.approx(0.06)]
        labels = " ".join(labels_of(ax))
        assert "shuffled predictions" in labels
        assert "spatial null" in labels

    def test_tuned_ridge_and_the_ceiling_cross_all_rows(self):
        ax = stp.pl.metrics(make_scores())
        (ridge,) = [x for x in ax.lines if x.get_linestyle() == "--"]
        assert ridge.get_xdata()[0] == pytest.approx(0.35)
        ceilings = [x for x in ax.lines if same_color(x.get_color(), _scores.CEILING)]
        assert ceilings[0].get_xdata()[0] == pytest.approx(0.8)
        (band,) = ax.patches
        quartiles = np.percentile(0.8 + np.linspace(-0.05, 0.05, 4), [25, 75])
        np.testing.assert_allclose([band.get_x(), band.get_x() + band.get_width()], quartiles)
        assert "noise ceiling: mean 0.80" in labels_of(ax)

    def test_the_protocol_and_the_numbers_are_written(self):
        ax = stp.pl.metrics(make_scores())
        assert ax.get_title(loc="left") == "4 genes, 2 sections"
        assert ax.get_xlabel() == "PCC of a gene, mean over sections"
        assert any("Leave one patient out" in text for text in texts(ax))
        assert "LEAKY" not in ax.get_title(loc="left")

    @pytest.mark.parametrize("draw", [stp.pl.metrics, stp.pl.gene_scores])
    def test_a_leaky_split_is_marked(self, draw):
        ax = draw(make_scores(("ridge",), protocol=protocol(leaking_sections=("S1",))))
        assert ax.get_title(loc="left").startswith("LEAKY · ")
        assert any(text.startswith("LEAKY: sections S1") for text in texts(ax))

    def test_errors_put_the_lowest_on_top(self):
        ax = stp.pl.metrics(make_scores(references=False), metric="rmse")
        assert [label.get_text() for label in ax.get_yticklabels()] == ["cnn", "ridge"]
        assert ax.get_xlabel().endswith("lower is better")

    def test_the_best_variance_ratio_is_one(self):
        rows = []
        for name, ratio in (("flat", 0.3), ("wild", 1.6), ("right", 0.9)):
            rows += rows_of(name, "variance_ratio", ratio)
        scores = Scores(
            pd.DataFrame(rows, columns=COLUMNS),
            methods=("flat", "wild", "right"),
            protocol=protocol(),
        )
        ax = stp.pl.metrics(scores, metric="variance_ratio")
        names = [label.get_text() for label in ax.get_yticklabels()]
        assert names == ["right", "wild", "flat"]

    def test_the_best_difference_is_zero(self):
        rows = []
        for name, mean in (("rough", -0.3), ("smooth", 0.5), ("right", 0.1)):
            rows += rows_of(name, "morans_i_difference", mean)
        scores = Scores(
            pd.DataFrame(rows, columns=COLUMNS),
            methods=("rough", "smooth", "right"),
            protocol=protocol(),
        )
        ax = stp.pl.metrics(scores, metric="morans_i_difference")
        names = [label.get_text() for label in ax.get_yticklabels()]
        assert names == ["right", "rough", "smooth"]
        assert ax.get_xlabel().endswith("0 is best")

    def test_the_best_of_several_baselines_is_the_line(self):
        scores = make_scores(("ridge",))
        rows = rows_of("ridge_on_uni", "pcc", 0.6) + rows_of("ridge_on_bad", "pcc", 0.1)
        table = pd.concat([scores.table, pd.DataFrame(rows, columns=COLUMNS)], ignore_index=True)
        baselines = ("tuned_ridge", "ridge_on_uni", "ridge_on_bad")
        scores = dataclasses.replace(scores, table=table, baselines=baselines)
        ax = stp.pl.metrics(scores)
        (line,) = [x for x in ax.lines if x.get_linestyle() == "--"]
        assert line.get_xdata()[0] == pytest.approx(0.6)
        names = [label.get_text() for label in ax.get_yticklabels()]
        assert names[:3] == ["ridge", "ridge_on_uni", "tuned ridge"]
        assert "ridge_on_uni" in labels_of(stp.pl.gene_scores(scores))

    def test_a_metric_of_whole_sections_has_a_mark_per_section(self):
        ax = stp.pl.metrics(make_scores(), metric="ari")
        assert line_of(ax, y=0, marker="s") == [pytest.approx(0.2)]
        assert ax.get_title(loc="left") == "2 sections"
        assert ax.get_xlabel() == "ARI of clusters, by section"
        assert not [c for c in ax.collections if isinstance(c, PolyCollection)]

    def test_a_method_that_failed_is_marked(self):
        scores = make_scores()
        table = scores.table[(scores.table["method"] != "cnn") | (scores.table["section"] == "S1")]
        failures = (Failure("forest", "P1", "ValueError: no", ""), Failure("cnn", "P-S2", "no", ""))
        scores = dataclasses.replace(
            scores, table=table, methods=("forest", "cnn", "ridge"), failures=failures
        )
        ax = stp.pl.metrics(scores)
        names = [label.get_text() for label in ax.get_yticklabels()]
        assert names[:3] == ["ridge", "cnn\n(1 of 2 sections)", "forest"]
        assert "failed in every fold" in texts(ax)

    def test_one_gene_of_one_method_in_one_section(self):
        scores = make_scores(("ridge",), genes=GENES[:1], sections=["S1"], references=False)
        ax = stp.pl.metrics(scores)
        ax.figure.canvas.draw()
        assert ax.get_title(loc="left") == "1 gene, 1 section"
        assert line_of(ax, y=0, marker="o") == [pytest.approx(0.4 - 0.1 - 0.05)]

    def test_many_methods_and_sections_stay_readable(self):
        names = tuple(f"a_method_with_a_name_{i}" for i in range(10))
        sections = [f"S{i}" for i in range(12)]
        genes = [f"G{i}" for i in range(50)]
        table = pd.DataFrame(
            {"method": name, "section": section, "group": section, "gene": genes, "metric": "pcc",
             "value": np.linspace(0, 0.5 + i / 100, 50)}
            for i, name in enumerate(names) for section in sections
        )  # fmt: skip
        table = table.explode(["gene", "value"], ignore_index=True).astype({"value": float})
        scores = Scores(table[list(COLUMNS)], methods=names, protocol=protocol(sections))
        ax = stp.pl.metrics(scores)
        assert labels_of(ax) == ["mean of one of 12 sections"]
        assert not overlapping(boxes_of(ax.get_yticklabels(), ax.figure))
        assert not overlapping(boxes_of(ax.texts, ax.figure))

    def test_axes_of_the_caller_are_used(self):
        _, ax = plt.subplots()
        assert stp.pl.metrics(make_scores(), ax=ax) is ax
        assert len(plt.get_fignums()) == 1

    def test_an_unknown_metric_is_refused(self):
        with pytest.raises(KeyError, match="no metric 'r2'; metrics: pcc, "):
            stp.pl.metrics(make_scores(), metric="r2")
        assert not plt.get_fignums()

    def test_scores_without_finite_values_are_refused(self):
        scores = make_scores(("ridge",), references=False)
        scores = dataclasses.replace(scores, table=scores.table.assign(value=np.nan))
        with pytest.raises(ValueError, match="pcc has no finite value"):
            stp.pl.metrics(scores)
        with pytest.raises(ValueError, match="ridge has no finite pcc"):
            stp.pl.gene_scores(scores)
        assert not plt.get_fignums()


def dots_of(ax, colour):
    (dots,) = [
        c for c in ax.collections
        if isinstance(c, PathCollection) and same_color(c.get_facecolor()[0], colour)
    ]  # fmt: skip
    return dots.get_offsets()


class TestGeneScores:
    def test_genes_are_sorted_by_their_mean_the_best_on_top(self):
        ax = stp.pl.gene_scores(make_scores(), method="ridge")
        assert [label.get_text() for label in ax.get_yticklabels()] == GENES[::-1]
        assert ax.get_ylim() == (3.5, -0.5)
        spread = np.linspace(0.05, -0.05, 4)
        np.testing.assert_allclose(
            dots_of(ax, _scores.METHOD), np.column_stack([0.4 + spread, range(4)])
        )

    def test_lines_extend_from_the_worst_section_to_the_best(self):
        ax = stp.pl.gene_scores(make_scores(), method="ridge")
        (lines,) = [c for c in ax.collections if isinstance(c, LineCollection)]
        first = lines.get_segments()[0]
        np.testing.assert_allclose(first, [[0.35, 0], [0.55, 0]])

    def test_ridge_and_ceiling_are_in_the_row_of_their_gene(self):
        scores = make_scores()
        low = (scores.table["method"] == "noise_ceiling") & (scores.table["gene"] == "IGKC")
        scores.table.loc[low, "value"] = 0.6
        ax = stp.pl.gene_scores(scores, method="ridge")
        np.testing.assert_allclose(dots_of(ax, _scores.CEILING)[0], [0.6, 0])  # IGKC, the best
        np.testing.assert_allclose(dots_of(ax, _scores.BASELINE)[0], [0.4, 0])
        assert labels_of(ax) == ["ridge (4)", "tuned ridge", "noise ceiling"]

    def test_references_of_many_genes_have_moving_means(self):
        genes = [f"G{i}" for i in range(300)]
        ax = stp.pl.gene_scores(make_scores(("ridge",), genes=genes))
        lines = {line.get_label(): line for line in ax.lines}
        smooth = lines["noise ceiling: moving mean"]
        planted = 0.8 + np.linspace(0.05, -0.05, 300)
        np.testing.assert_allclose(smooth.get_xdata()[20:-20], planted[20:-20], atol=2e-3)

    @pytest.mark.parametrize("n_genes", [4, 100])
    def test_genes_that_are_no_valid_formula_are_named(self, n_genes):
        genes = [rf"A$\no{{{number}$" for number in range(n_genes)]
        ax = stp.pl.gene_scores(make_scores(("ridge",), genes=genes))
        ax.figure.canvas.draw()

    @pytest.mark.parametrize(
        "reliable",
        [
            ["ERBB2", "IGKC"],
            pd.Series([True, False, True], index=["ERBB2", "FASN", "IGKC"]),
            pd.Series([True, False, True], index=["ERBB2", "FASN", "IGKC"], dtype="boolean"),
        ],
    )
    def test_reliable_genes_are_marked(self, reliable):
        ax = stp.pl.gene_scores(make_scores(), method="ridge", reliable=reliable)
        assert labels_of(ax)[:2] == ["ridge, reliable (2)", "ridge, not reliable (2)"]
        np.testing.assert_array_equal(dots_of(ax, _scores.METHOD)[:, 1], [0, 3])

    def test_none_of_the_genes_is_reliable(self):
        none = pd.Series(False, index=GENES)
        ax = stp.pl.gene_scores(make_scores(), method="ridge", reliable=none)
        assert labels_of(ax)[:2] == ["ridge, reliable (0)", "ridge, not reliable (4)"]

    @pytest.mark.parametrize("height", [2.5, 6])
    def test_the_best_and_the_worst_are_named_without_overlap(self, height):
        genes = [f"GENE-{i}" for i in range(500)]
        _, ax = plt.subplots(figsize=(6, height), layout="constrained")
        stp.pl.gene_scores(make_scores(("ridge",), genes=genes), ax=ax)
        names = [t for t in ax.texts if isinstance(t, Annotation) and t.get_text() in genes]
        n = len(names) // 2
        assert 3 <= n <= 10
        # planted scores rise with the number
        expected = genes[: -n - 1 : -1] + genes[:n]
        assert [text.get_text() for text in names] == expected
        assert [text.xy[1] for text in names] == [*range(n), *range(499, 499 - n, -1)]
        assert not overlapping(boxes_of(names, ax.figure))

    def test_no_names_on_request(self):
        genes = [f"G{i}" for i in range(30)]
        ax = stp.pl.gene_scores(make_scores(("ridge",), genes=genes), n_names=0)
        assert not [text for text in texts(ax) if text in genes]
        assert not list(ax.get_yticks())

    def test_one_gene_of_one_method_in_one_section(self):
        scores = make_scores(("ridge",), genes=GENES[:1], sections=["S1"], references=False)
        ax = stp.pl.gene_scores(scores)
        assert [label.get_text() for label in ax.get_yticklabels()] == ["ERBB2"]
        assert ax.get_title(loc="left") == "ridge: 1 gene, 1 section"

    def test_a_gene_that_was_predicted_in_some_folds_only(self):
        scores = make_scores()
        gone = (scores.table["gene"] == "FASN") & (scores.table["section"] == "S2")
        ax = stp.pl.gene_scores(
            dataclasses.replace(scores, table=scores.table[~gone]), method="ridge"
        )
        at = [label.get_text() for label in ax.get_yticklabels()].index("FASN")
        np.testing.assert_allclose(
            dots_of(ax, _scores.METHOD)[at, 0], 0.4 - 0.1 + np.linspace(-0.05, 0.05, 4)[1]
        )

    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ({}, ValueError, "there are 2 methods with a PCC, choose one: method='cnn'"),
            ({"method": "trees"}, KeyError, "'trees' has no PCC; methods with it: cnn, ridge, "),
            ({"method": "noise_ceiling"}, KeyError, "'noise_ceiling' has no PCC"),
            ({"n_names": -1}, ValueError, "n_names must be at least 0: -1"),
            ({"reliable": "ERBB2"}, TypeError, "reliable must be .* not str: 'ERBB2'"),
            ({"reliable": pd.Series([1.0], ["ERBB2"])}, TypeError, "boolean series.*float64"),
            (
                {"reliable": pd.Series([pd.NA], ["ERBB2"], dtype="boolean")},
                ValueError,
                "missing for 1 genes.*unfamiliar",
            ),
            (
                {"reliable": ["erbb2"]},
                ValueError,
                "none of the scored.*another case.*erbb2: ERBB2",
            ),
        ],
    )
    def test_bad_input_raises_and_draws_nothing(self, arguments, error, message):
        arguments = {"method": "ridge", **arguments} if arguments else {}
        with pytest.raises(error, match=message):
            stp.pl.gene_scores(make_scores(), **arguments)
        assert not plt.get_fignums()

    def test_axes_in_a_subfigure(self):
        left, _ = plt.figure(figsize=(12, 5), layout="constrained").subfigures(1, 2)
        genes = [f"G{i}" for i in range(40)]
        ax = stp.pl.gene_scores(make_scores(("ridge",), genes=genes), ax=left.subplots())
        assert [text for text in texts(ax) if text in genes][:2] == ["G39", "G38"]
