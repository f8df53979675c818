"""Coverage of intervals, for planted errors in folds and sections."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from geopandas import GeoDataFrame, points_from_xy
from matplotlib.colors import same_color
from spatialdata import SpatialData
from spatialdata.models import ShapesModel, TableModel

import stpredict as stp
from stpredict import uncertainty
from stpredict.pl._drawing import _scores

N = 150


def make_table(values, sections, **columns):
    """A table of spots that annotates its sections."""
    n, n_genes = values.shape
    obs = pd.DataFrame(
        {"region": pd.Categorical(sections), "instance_id": np.arange(n), **columns},
        index=[f"spot{i}" for i in range(n)],
    )
    var = pd.DataFrame(index=[f"G{i}" for i in range(n_genes)])
    return TableModel.parse(
        AnnData(X=values.astype(np.float32), obs=obs, var=var),
        region=list(dict.fromkeys(sections)), region_key="region", instance_key="instance_id",
    )  # fmt: skip


def make_shapes(sections):
    shapes = {}
    for section in dict.fromkeys(sections):
        ids = np.flatnonzero(sections == section)
        frame = GeoDataFrame({"radius": 1.0}, geometry=points_from_xy(ids, ids), index=ids)
        shapes[section] = ShapesModel.parse(frame)
    return shapes


@pytest.fixture
def folds():
    return np.repeat(["P2", "P10", "P1"], N)


@pytest.fixture
def validated(folds):
    """Out-of-fold predictions of three folds; errors of the second are three times as large."""
    random = np.random.default_rng(0)
    predicted = random.normal(3, 1, (3 * N, 4))
    errors = random.normal(0, 1, predicted.shape) * np.where(folds == "P10", 3.0, 1.0)[:, None]
    table = make_table(predicted + errors, folds, fold=folds)
    table.layers["ridge"] = predicted.astype(np.float32)
    table.layers["tuned_ridge"] = predicted.astype(np.float32)
    table.uns["stpredict"] = {"cross_validate": {"methods": ["ridge"], "leaky": False}}
    return SpatialData.init_from_elements({**make_shapes(folds), "out_of_fold": table})


@pytest.fixture
def calibrated():
    """Predictions with intervals that hold every value of S1, and every other one of S2."""
    sections = np.repeat(["S1", "S2"], 20)
    measured = np.tile(np.arange(40.0)[:, None], (1, 3))
    table = make_table(measured, sections)
    table.layers["log1p"] = table.X.copy()
    predicted = make_table(measured, sections)
    outside = ((sections == "S2") & (np.arange(40) % 2 == 0))[:, None]
    predicted.layers["lower"] = predicted.X - 1 + 5 * outside
    predicted.layers["upper"] = predicted.X + 1 + 5 * outside
    predicted.uns["stpredict"] = {"predict": {"layer": "log1p", "units": "log1p", "level": 0.8}}
    return SpatialData.init_from_elements(
        {**make_shapes(sections), "table": table, "predicted": predicted}
    )


def dots(ax):
    """Heights and shares of the means of the rows."""
    return {
        ax.get_yticklabels()[round(line.get_ydata()[0])].get_text(): line.get_xdata()[0]
        for line in ax.lines
        if line.get_marker() == "o"
    }


class TestOutOfFold:
    def test_the_curve_is_the_coverage_of_intervals_from_the_other_folds(self, validated, folds):
        table = validated.tables["out_of_fold"]
        curve_ax, _ = stp.pl.calibration(validated)
        *pale, mean = [x for x in curve_ax.lines if x.get_linestyle() == "-"]
        levels = mean.get_xdata()
        assert list(levels) == [0.5, 0.7, 0.8, 0.9, 0.95]
        expected = [
            uncertainty.coverage_by_group(
                table.X, table.layers["ridge"], folds, level=level
            )[1].mean(axis=1)
            for level in levels
        ]  # fmt: skip
        np.testing.assert_allclose(mean.get_ydata(), np.mean(expected, axis=1), atol=1e-6)
        drawn = np.sort([line.get_ydata() for line in pale], axis=0)
        np.testing.assert_allclose(drawn, np.sort(np.transpose(expected), axis=0), atol=1e-6)

    def test_the_diagonal_is_the_ideal_coverage(self, validated):
        ax = stp.pl.calibration(validated)[0]
        (diagonal,) = [line for line in ax.lines if line.get_linestyle() == "--"]
        np.testing.assert_array_equal(diagonal.get_xdata(), diagonal.get_ydata())
        assert ax.get_xlim() == ax.get_ylim()
        assert ax.get_aspect() == 1

    def test_a_fold_with_larger_errors_has_lower_coverage(self, validated):
        _, ax = stp.pl.calibration(validated)
        shares = dots(ax)
        assert list(shares) == ["P2", "P10", "P1"]  # in the order of the table
        assert shares["P10"] < 0.6
        assert shares["P1"] > 0.9
        assert [text.get_text() for text in ax.texts] == [f"{x:.2f}" for x in shares.values()]
        (level,) = [line for line in ax.lines if line.get_linestyle() == "--"]
        assert set(level.get_xdata()) == {0.9}
        assert ax.get_xlim()[0] <= 0.75

    def test_large_tables_are_subsampled(self, validated, monkeypatch):
        monkeypatch.setattr("stpredict.pl._drawing._coverage._MAX_GENES", 2)
        monkeypatch.setattr("stpredict.pl._drawing._coverage._MAX_SPOTS", 50)
        table = validated.tables["out_of_fold"]
        # the genes between the first and the last are not read
        table.layers["ridge"][:, 1:3] = np.inf
        axes = stp.pl.calibration(validated)
        assert axes[0].get_title() == "ridge, out of fold (2 of 4 genes)"

    def test_levels_that_need_more_rows_are_left_out(self, validated, folds):
        rows = np.concatenate([np.flatnonzero(folds == fold)[:12] for fold in ("P2", "P10", "P1")])
        validated.tables["out_of_fold"] = validated.tables["out_of_fold"][rows].copy()
        ax = stp.pl.calibration(validated)[0]
        assert list(ax.lines[-1].get_xdata()) == [0.5, 0.7, 0.8, 0.9]

    def test_a_method_that_failed_in_a_fold(self, validated, folds):
        validated.tables["out_of_fold"].layers["ridge"][folds == "P10"] = np.nan
        # measured values are not needed there either
        validated.tables["out_of_fold"].X[folds == "P10"] = np.nan
        curve_ax, ax = stp.pl.calibration(validated)
        assert list(dots(ax)) == ["P2", "P1"]
        assert [text.get_text() for text in ax.texts].count("no intervals") == 1
        labels = [text.get_text() for text in curve_ax.get_legend().get_texts()]
        assert "a fold (of 2)" in labels

    def test_one_of_several_methods_must_be_named(self, validated):
        table = validated.tables["out_of_fold"]
        table.layers["blind"] = np.zeros_like(table.X)
        table.uns["stpredict"]["cross_validate"]["methods"] = ["ridge", "blind"]
        with pytest.raises(ValueError, match=r"there are 2 methods .*, choose one: method='ridge'"):
            stp.pl.calibration(validated)
        assert stp.pl.calibration(validated, method="blind")[0].get_title() == "blind, out of fold"
        tuned = stp.pl.calibration(validated, method="tuned_ridge")[0]
        assert tuned.get_title() == "tuned_ridge, out of fold"

    def test_a_split_that_leaks_is_told_plainly(self, validated):
        validated.tables["out_of_fold"].uns["stpredict"]["cross_validate"]["leaky"] = True
        for ax in stp.pl.calibration(validated):
            assert ax.get_title().startswith("LEAKY · ")
            assert same_color(ax.title.get_color(), _scores.LEAKY)

    def test_an_unknown_method_is_refused(self, validated):
        with pytest.raises(
            KeyError, match="'cnn' has no prediction; methods with it: ridge, tuned"
        ):
            stp.pl.calibration(validated, method="cnn")
        assert not plt.get_fignums()

    def test_folds_that_are_too_small_are_refused(self, validated):
        few = validated.tables["out_of_fold"][[0, 1, N, N + 1]].copy()
        few.uns["spatialdata_attrs"]["region"] = ["P2", "P10"]
        validated.tables["out_of_fold"] = few
        with pytest.raises(ValueError, match="need at least"):
            stp.pl.calibration(validated)
        assert not plt.get_fignums()


class TestSections:
    def test_coverage_of_every_section_at_the_calibrated_level(self, calibrated):
        (ax,) = stp.pl.calibration(calibrated)
        assert dots(ax) == {"S1": 1.0, "S2": 0.5}
        assert ax.get_title() == "80 % intervals of predictions"
        (level,) = [line for line in ax.lines if line.get_linestyle() == "--"]
        assert set(level.get_xdata()) == {0.8}
        assert ax.get_ylim()[0] > ax.get_ylim()[1]

    def test_rows_and_genes_are_matched_by_name(self, calibrated):
        calibrated.tables["table"] = calibrated.tables["table"][::-1, [2, 0]].copy()
        assert dots(stp.pl.calibration(calibrated)[0]) == {"S1": 1.0, "S2": 0.5}

    def test_sections_of_the_training_are_marked(self, calibrated):
        record = calibrated.tables["predicted"].uns["stpredict"]["predict"]
        record["training_sections"] = np.array(["S2"])
        assert list(dots(stp.pl.calibration(calibrated)[0])) == ["S1", "S2\n(trained on)"]

    def test_counts_are_compared_as_they_are_predicted(self, calibrated):
        table, predicted = calibrated.tables["table"], calibrated.tables["predicted"]
        table.X += 1
        record = predicted.uns["stpredict"]["predict"]
        del record["layer"]  # X, as of models of counts
        record["units"] = "counts per 10,000"
        share = table.X / table.X.sum(axis=1, keepdims=True) * 1e4
        predicted.layers["lower"], predicted.layers["upper"] = share - 1, share + 1
        assert dots(stp.pl.calibration(calibrated)[0]) == {"S1": 1.0, "S2": 1.0}

    def test_lines_extend_over_the_genes(self, calibrated):
        lower = calibrated.tables["predicted"].layers["lower"]
        lower[:20, 0] += 2  # no value of the first gene is inside
        (ax,) = stp.pl.calibration(calibrated)
        assert dots(ax)["S1"] == pytest.approx(2 / 3)
        thin, thick = [line for line in ax.lines if list(line.get_ydata()) == [0, 0]]
        np.testing.assert_allclose(thin.get_xdata(), np.percentile([0, 1, 1], [5, 95]))
        np.testing.assert_allclose(thick.get_xdata(), np.percentile([0, 1, 1], [25, 75]))

    def test_both_tables_make_three_panels(self, calibrated, validated):
        for name, shapes in validated.shapes.items():
            calibrated.shapes[name] = shapes
        calibrated.tables["out_of_fold"] = validated.tables["out_of_fold"]
        assert len(stp.pl.calibration(calibrated)) == 3
        _, grid = plt.subplots(1, 2)
        with pytest.raises(ValueError, match="3 axes are needed, 2 given"):
            stp.pl.calibration(calibrated, axes=grid)

    def test_axes_of_the_caller_are_used(self, calibrated):
        _, grid = plt.subplots()
        assert stp.pl.calibration(calibrated, axes=grid)[0] is grid
        assert len(plt.get_fignums()) == 1

    @pytest.mark.parametrize("missing", ["intervals", "measured", "predicted"])
    def test_without_coverage_an_error_is_raised(self, calibrated, missing):
        if missing == "intervals":
            del calibrated.tables["predicted"].layers["upper"]
        elif missing == "measured":
            del calibrated.tables["table"].layers["log1p"]
        else:
            del calibrated.tables["predicted"]
        with pytest.raises(
            KeyError, match=r"no cross-validation and no intervals.*run stp\.tl\.cross_val"
        ):
            stp.pl.calibration(calibrated)
        assert not plt.get_fignums()

    def test_a_method_without_a_cross_validation(self, calibrated):
        with pytest.raises(KeyError, match="no cross-validation with method='ridge'"):
            stp.pl.calibration(calibrated, method="ridge")
        with pytest.raises(KeyError, match="in the tables ''; tables"):
            stp.pl.calibration(calibrated, key="")
