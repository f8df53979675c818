"""Predicted against measured values: dots, identity line, PCC, sections and folds."""

from __future__ import annotations

import functools

import matplotlib.pyplot as plt
import numpy as np
import pytest

import stpredict as stp
from helpers import two_of_three
from stpredict._sdata._spot_table import copy_of, open_table

GENES = ["morphology_001", "null_001"]
RIDGE = functools.partial(stp.tl.fit_ridge, genes=GENES, context="spot")


@pytest.fixture(scope="module")
def predicted():
    """Three sections: a model of the first two predicts all, a cross-validation each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stp.settings, "verbosity", 0)
        sdata, training = two_of_three(GENES, size_px=500)
        stp.tl.predict(sdata, RIDGE(training))
        stp.tl.cross_validate(sdata, {"a": RIDGE, "b": functools.partial(RIDGE, alpha=1e3)})
    return sdata


@pytest.fixture
def sdata(predicted):
    return copy_of(predicted)


def labels_of(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def dots_of(ax):
    return [np.asarray(dots.get_offsets()) for dots in ax.collections]


def pair_of(sdata, section, gene):
    """Measured and predicted values of a gene in a section, without the package's own code."""
    rows = open_table(sdata, "predicted").section_of_row == section
    values = sdata["table"][:, gene].layers["log1p"].toarray()[:, 0]
    return values[rows], np.asarray(sdata["predicted"][:, gene].X)[:, 0][rows]


def test_each_spot_is_a_dot_and_the_legend_has_the_pcc_of_its_section(sdata):
    axes = stp.pl.scatter(sdata, GENES, section="S3")
    assert [ax.get_title() for ax in axes] == GENES
    for ax, gene in zip(axes, GENES, strict=True):
        measured, predicted = pair_of(sdata, "S3", gene)
        (dots,) = dots_of(ax)
        np.testing.assert_allclose(dots, np.column_stack([measured, predicted]), rtol=1e-6)
        assert labels_of(ax) == [f"S3: PCC {np.corrcoef(measured, predicted)[0, 1]:.2f}"]


def test_both_axes_have_the_same_scale_and_the_line_is_the_identity(sdata):
    (ax,) = stp.pl.scatter(sdata, "morphology_001", section="S3")
    assert ax.get_xlim() == ax.get_ylim()
    assert ax.get_aspect() == 1
    measured, predicted = pair_of(sdata, "S3", "morphology_001")
    low, high = ax.get_xlim()
    assert low < min(measured.min(), predicted.min())
    assert high > max(measured.max(), predicted.max())
    (line,) = ax.lines
    assert line.get_slope() == 1
    assert line.get_xy1() == (0, 0)
    assert ax.get_xlabel() == "measured: log(1 + counts per 10,000)"


def test_sections_in_training_are_marked(sdata):
    (ax,) = stp.pl.scatter(sdata, "morphology_001")
    assert [label.endswith("(trained on)") for label in labels_of(ax)] == [True, True, False]
    assert ax.get_title() == "LEAKY · morphology_001"


def test_a_cross_validation_has_out_of_fold_predictions_of_one_method(sdata):
    with pytest.raises(ValueError, match="method='a'"):
        stp.pl.scatter(sdata, "morphology_001", key="out_of_fold")
    (ax,) = stp.pl.scatter(sdata, "morphology_001", key="out_of_fold", method="b", section="S2")
    table = sdata["out_of_fold"]
    rows = (table.obs["region"] == "S2").to_numpy()
    expected = [np.asarray(table[rows, "morphology_001"].layers["b"])[:, 0]]
    np.testing.assert_allclose(dots_of(ax)[0][:, 1], expected[0], rtol=1e-6)
    assert ax.get_title() == "morphology_001"


def test_spots_that_took_part_in_their_prediction_are_left_out(sdata):
    table = sdata["predicted"]
    section = np.flatnonzero(open_table(sdata, "predicted").section_of_row == "S3")
    table.obs["measured"] = False
    table.obs.iloc[section[:5], table.obs.columns.get_loc("measured")] = True
    table.uns["stpredict"]["adapt"] = {"sections": ["S3"]}
    (ax,) = stp.pl.scatter(sdata, "morphology_001", section="S3")
    assert len(dots_of(ax)[0]) == len(section) - 5


def test_a_gene_that_a_fold_did_not_predict_is_named(sdata):
    table = sdata["out_of_fold"]
    table.layers["a"] = table.layers["a"].copy()
    table.layers["a"][:, 0] = np.nan
    (ax,) = stp.pl.scatter(sdata, table.var_names[0], key="out_of_fold", method="a", section="S1")
    assert labels_of(ax) == ["S1: not predicted"]


def test_many_genes_are_arranged_in_rows(sdata, tmp_path):
    genes = sdata["table"].var_names[:6].tolist()
    model = stp.tl.fit_ridge(sdata, genes=genes, context="spot")
    stp.tl.predict(sdata, model, key_added="six")
    axes = stp.pl.scatter(sdata, genes, key="six", save=tmp_path / "genes.png")
    assert axes.shape == (6,)
    assert len({ax.get_subplotspec().rowspan.start for ax in axes}) == 2
    assert (tmp_path / "genes.png").is_file()


def test_axes_of_the_caller_are_used(sdata):
    _, grid = plt.subplots(2, 1)
    assert list(stp.pl.scatter(sdata, GENES, axes=grid)) == list(grid)
    with pytest.raises(ValueError, match="1 axes are needed, 2 given"):
        stp.pl.scatter(sdata, "null_001", axes=grid)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"genes": "ERBB2"}, KeyError, "ERBB2"),
        ({"genes": []}, ValueError, "genes= is empty"),
        ({"section": "S9"}, ValueError, "section='S9' is not one of"),
        ({"key": "absent"}, KeyError, "absent"),
        ({"table_name": "out_of_fold"}, KeyError, "no measured values"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_drawn(sdata, options, error, message):
    with pytest.raises(error, match=message):
        stp.pl.scatter(sdata, **{"genes": "null_001", **options})
    assert not plt.get_fignums()
