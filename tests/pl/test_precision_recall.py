"""Curves of high expression: their points, chance levels, sections and tables."""

from __future__ import annotations

import functools

import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

import stpredict as stp
from helpers import two_of_three
from stpredict._sdata._spot_table import copy_of, open_table

GENES = ["morphology_001", "null_001"]
HIGH = functools.partial(
    stp.tl.fit_ridge, genes=GENES, context="spot", targets="high", quantile=0.6
)


@pytest.fixture(scope="module")
def predicted():
    """Three sections: a model of the first two predicts all, a cross-validation each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stp.settings, "verbosity", 0)
        sdata, training = two_of_three(GENES, size_px=600)
        stp.tl.predict(sdata, HIGH(training))
        stp.tl.predict(sdata, HIGH(training, alpha=1e3), key_added="shrunk")
        stp.tl.predict(sdata, stp.tl.fit_ridge(training), key_added="values")
        stp.tl.cross_validate(sdata, {"a": HIGH, "b": functools.partial(HIGH, alpha=1e3)})
    return sdata


@pytest.fixture
def sdata(predicted):
    return copy_of(predicted)


def labels_of(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def pair_of(sdata, section, gene):
    """Measured and predicted values of a gene in a section, without the package's own code."""
    rows = open_table(sdata, "predicted").section_of_row == section
    values = sdata["table"][:, gene].layers["log1p"].toarray()[:, 0]
    threshold = sdata["predicted"].var.loc[gene, "threshold"]
    probability = sdata["predicted"][:, gene].X[:, 0]
    return (values > threshold)[rows].astype(int), np.asarray(probability)[rows]


def test_each_gene_is_a_row_and_each_section_a_curve_with_its_chance_level(sdata):
    axes = stp.pl.precision_recall(sdata, GENES)
    assert axes.shape == (2, 2)
    for gene, (left, right) in zip(GENES, axes, strict=True):
        assert left.get_title() == f"LEAKY · {gene}: precision and recall"
        expected, areas = [], []
        for section in ("S1", "S2", "S3"):
            pair = pair_of(sdata, section, gene)
            note = "" if section == "S3" else " (trained on)"
            precision = average_precision_score(*pair)
            expected.append(f"{section}{note}: {precision:.2f} (chance {pair[0].mean():.2f})")
            areas.append(f"{section}{note}: {roc_auc_score(*pair):.2f}")
        assert labels_of(left) == expected
        assert labels_of(right) == [*areas, "chance: 0.50"]


def test_points_of_the_curves_are_those_of_every_threshold(sdata):
    left, right = stp.pl.precision_recall(sdata, GENES[0], section="S3")
    is_high, score = pair_of(sdata, "S3", GENES[0])
    points, rates = set(), {(0.0, 0.0)}
    for threshold in np.unique(score):
        above = score >= threshold
        hits = is_high[above].sum()
        points.add((round(hits / is_high.sum(), 9), round(hits / above.sum(), 9)))
        rates.add((round((above & (is_high == 0)).sum() / (is_high == 0).sum(), 9),
                   round(hits / is_high.sum(), 9)))  # fmt: skip
    curve = {tuple(map(float, point)) for point in np.round(left.lines[0].get_xydata(), 9)}
    assert curve == points | {(0.0, 1.0)}
    assert left.lines[1].get_ydata()[0] == pytest.approx(is_high.mean())
    # scikit-learn leaves out points on a straight line
    assert {tuple(map(float, p)) for p in np.round(right.lines[0].get_xydata(), 9)} <= rates
    assert right.get_title() == f"{GENES[0]}: ROC"  # the section was not in training


def test_several_tables_have_line_styles_and_are_named(sdata):
    left, _ = stp.pl.precision_recall(sdata, GENES[0], section="S3", key=["predicted", "shrunk"])
    names = [label.partition(":")[0] for label in labels_of(left)]
    assert names == ["S3, predicted", "S3, shrunk"]
    assert [line.get_linestyle() for line in left.lines[::2]] == ["-", "--"]


def test_a_method_of_a_cross_validation_is_drawn_at_the_threshold_of_each_fold(sdata):
    left, _ = stp.pl.precision_recall(sdata, GENES[0], key="out_of_fold", method="b")
    table = sdata["out_of_fold"][:, GENES[0]]
    names = open_table(sdata, "out_of_fold").section_of_row
    expected = []
    for section in ("S1", "S2", "S3"):
        rows = names == section
        pair = table.X[rows, 0], table.layers["b"][rows, 0]
        score = average_precision_score(*pair)
        expected.append(f"{section}: {score:.2f} (chance {pair[0].mean():.2f})")
    assert labels_of(left) == expected
    with pytest.raises(ValueError, match="there are 2 methods with a prediction, choose one"):
        stp.pl.precision_recall(sdata, GENES[0], key="out_of_fold")


def test_folds_that_divide_a_section_have_a_curve_each(sdata):
    table = sdata["out_of_fold"]
    names = open_table(sdata, "out_of_fold").section_of_row
    rows = np.flatnonzero(names == "S1")
    folds = table.obs["fold"].astype(str).to_numpy(dtype=object, copy=True)
    folds[rows[: len(rows) // 2]], folds[rows[len(rows) // 2 :]] = "upper", "lower"
    table.obs["fold"] = folds
    left, _ = stp.pl.precision_recall(sdata, GENES[0], section="S1", key="out_of_fold", method="a")
    assert [label.partition(":")[0] for label in labels_of(left)] == ["S1, upper", "S1, lower"]
    pair = table[:, GENES[0]].X[rows[: len(rows) // 2], 0]
    assert labels_of(left)[0].endswith(f"(chance {pair.mean():.2f})")


def test_a_section_where_all_spots_are_low_has_a_note_and_no_curve(sdata):
    sdata["predicted"].var.loc[GENES[0], "threshold"] = 1e9
    left, right = stp.pl.precision_recall(sdata, GENES[0], section="S3")
    assert labels_of(left) == ["S3: all low"]
    assert labels_of(right) == ["S3: all low", "chance: 0.50"]
    left.figure.canvas.draw()


def test_axes_of_the_caller_are_used_and_saved(sdata, tmp_path):
    own = plt.subplots(1, 2)[1]
    axes = stp.pl.precision_recall(sdata, GENES[1], axes=own, save=tmp_path / "high.png")
    assert axes.tolist() == own.tolist()
    assert (tmp_path / "high.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"key": "values"}, ValueError, "'values'] holds no probabilities of high expression: pr"),
        ({"key": "table"}, ValueError, "'table'] holds no probabilities of high expression"),
        ({"genes": "morphology_002"}, KeyError, "morphology_002"),
        ({"section": "S9"}, ValueError, "section"),
        ({"key": list("abcde")}, ValueError, "key has 5 tables, at most 4"),
        ({"key": "absent"}, KeyError, "absent"),
        ({"axes": np.array([])}, ValueError, "2 axes are needed, 0 given"),
    ],
)
def test_bad_arguments(sdata, options, error, message):
    with pytest.raises(error, match=message):
        stp.pl.precision_recall(sdata, **{"genes": GENES[0], **options})


def test_measured_values_that_are_missing_are_reported(sdata):
    del sdata["table"].layers["log1p"]
    with pytest.raises(KeyError, match="some spots of 'S1', or genes, have no measured values"):
        stp.pl.precision_recall(sdata, GENES[0])
