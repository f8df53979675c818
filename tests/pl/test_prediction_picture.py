"""Genes on the tissue: values, colour scales, panels, sections and tables."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.collections import EllipseCollection

import stpredict as stp
from helpers import scale_bars
from stpredict import metrics
from stpredict._sdata._spot_table import copy_of, open_table

GENES = ["morphology_001", "null_001"]


@pytest.fixture(scope="module")
def predicted():
    """Two sections, wider than high, with predictions made of the measured values and noise."""
    verbosity, stp.settings.verbosity = stp.settings.verbosity, 0
    sdata = stp.datasets.phantom(
        2,
        size_px=(700, 1100),
        mpp=0.5,
        pitch_um=40.0,
        n_morphology=4,
        n_neighborhood=2,
        n_null=2,
    )
    stp.pp.normalize(sdata)
    stp.settings.verbosity = verbosity
    spots = open_table(sdata)
    measured = spots.table[:, GENES].layers["log1p"].toarray()
    noise = np.random.default_rng(0).normal(scale=0.3, size=measured.shape)
    table = AnnData(
        X=(measured + noise).astype(np.float32),
        obs=spots.table.obs.copy(),
        var=pd.DataFrame(index=GENES),
        uns={"stpredict": {"predict": {"units": "log(1 + counts per 10,000)", "layer": "log1p"}}},
    )
    spots.add_table("predicted", table)
    return sdata


@pytest.fixture
def sdata(predicted):
    return copy_of(predicted)


@pytest.fixture
def one(predicted):
    return copy_of(predicted.subset(["S1", "S1_image"]))


def spots_of(ax):
    (spots,) = [c for c in ax.collections if isinstance(c, EllipseCollection)]
    return spots


def render(ax):
    ax.figure.canvas.draw()
    return ax


def test_a_gene_that_is_no_valid_formula_is_drawn(one):
    for table in one.tables.values():
        table.var_names = [name.replace("null_001", r"A$\no{B$") for name in table.var_names]
    axes = stp.pl.prediction(one, r"A$\no{B$")
    render(axes[0])
    assert axes[1].get_title() == r"A\$\no{B\$ measured"


def test_a_layer_in_other_units_is_not_drawn_as_measured(one):
    record = one.tables["predicted"].uns["stpredict"]["predict"]
    record["training_sections"] = ["S9"]
    stp.pl.prediction(one, "morphology_001")
    stp.pp.normalize(one, target_sum=1e6)
    with pytest.raises(ValueError, match=r"layers\['log1p'\] holds log\(1 \+ counts per 1,000,000"):
        stp.pl.prediction(one, "morphology_001")


class TestPrediction:
    def test_three_panels_with_titles(self, one):
        axes = stp.pl.prediction(one, "morphology_001")
        titles = [ax.get_title() for ax in axes]
        table, predicted = one.tables["table"], one.tables["predicted"]
        score = metrics.pcc(
            table[:, "morphology_001"].layers["log1p"].toarray(),
            predicted[:, "morphology_001"].X,
        )[0]
        assert titles == [
            "S1: H&E",
            "morphology_001 measured",
            f"morphology_001 predicted (PCC {score:.2f})",
        ]
        assert not any(ax.get_xticks().size for ax in axes)

    @pytest.mark.parametrize("panels", [["image", "measured"], ["measured", "predicted"]])
    @pytest.mark.parametrize("img_alpha", [0.0, 0.5])
    def test_the_first_panel_of_a_row_has_a_scale_bar(self, one, panels, img_alpha):
        genes = ["null_001", "morphology_001"]
        axes = stp.pl.prediction(one, genes, panels=panels, img_alpha=img_alpha)
        assert [[len(scale_bars(ax)) for ax in row] for row in axes] == [[1, 0], [1, 0]]

    def test_the_scale_bar_has_the_length_that_it_names(self, one):
        ax = stp.pl.prediction(one, "morphology_001")[0]
        render(ax)
        info = scale_bars(ax)[0].info
        assert info.scale_text.split()[0] == "125"
        assert info.units == "um"
        assert info.length_px == pytest.approx(125)  # px of the axes are µm

    def test_values_are_drawn_over_a_pale_image(self, one):
        image, measured, predicted = stp.pl.prediction(one, "morphology_001", img_alpha=0.3)
        assert [ax.images[0].get_alpha() for ax in (image, measured, predicted)] == [1, 0.3, 0.3]
        pixels = image.images[0].get_array()
        np.testing.assert_array_equal(measured.images[0].get_array(), pixels)
        assert measured.images[0].zorder < spots_of(measured).zorder
        _, measured, _ = stp.pl.prediction(one, "morphology_001", img_alpha=0)
        assert not measured.images
        with pytest.raises(ValueError, match="img_alpha"):
            stp.pl.prediction(one, "morphology_001", img_alpha=2)

    def test_axes_are_equal_and_rows_count_downwards(self, one):
        section = open_table(one).sections[0]
        for ax in stp.pl.prediction(one, "morphology_001"):
            render(ax)
            assert ax.get_aspect() == 1
            bottom, top = ax.get_ylim()
            assert bottom > top
            left, right = ax.get_xlim()
            assert left < right
            low, high = section.centers_um.min(axis=0), section.centers_um.max(axis=0)
            assert left < low[0]
            assert right > high[0]
            assert top < low[1]
            assert bottom > high[1]

    def test_measured_and_predicted_share_one_scale(self, one):
        table, predicted = one.tables["table"], one.tables["predicted"]
        _, measured_ax, predicted_ax = stp.pl.prediction(one, "morphology_001")
        measured, prediction = spots_of(measured_ax), spots_of(predicted_ax)
        assert measured.norm is prediction.norm
        assert measured.get_cmap() == prediction.get_cmap()
        column = table[:, "morphology_001"].layers["log1p"].toarray().ravel()
        np.testing.assert_allclose(measured.get_array(), column)
        np.testing.assert_allclose(prediction.get_array(), predicted[:, "morphology_001"].X.ravel())

    def test_spots_have_their_true_position_and_size(self, one):
        section = open_table(one).sections[0]
        _, measured_ax, _ = stp.pl.prediction(one, "morphology_001")
        spots = spots_of(measured_ax)
        np.testing.assert_allclose(spots.get_offsets(), section.centers_um)
        np.testing.assert_allclose(spots._widths * 2, 2 * section.radius_um)

    def test_the_image_lies_under_the_spots(self, one):
        image = np.asarray(one.images["S1_image"]["scale0"].ds["image"].data).transpose(1, 2, 0)
        ax = stp.pl.prediction(one, "morphology_001")[0]
        (shown,) = ax.images
        left, right, bottom, top = shown.get_extent()
        mpp = 0.5
        rows = slice(round(top / mpp), round(bottom / mpp))
        columns = slice(round(left / mpp), round(right / mpp))
        np.testing.assert_array_equal(shown.get_array(), image[rows, columns])

    def test_the_colour_bar_has_the_units(self, one):
        axes = stp.pl.prediction(one, "morphology_001")
        (bar,) = axes[-1].child_axes
        assert bar.get_ylabel() == "log(1 + counts per 10,000)"
        assert bar.get_ylim() == spots_of(axes[-1]).get_clim()

    def test_one_of_several_sections_is_drawn(self, sdata):
        axes = stp.pl.prediction(sdata, "morphology_001", section="S2")
        assert axes[0].get_title() == "S2: H&E"
        rows = (sdata.tables["predicted"].obs["region"] == "S2").to_numpy()
        values = sdata.tables["predicted"][rows, "morphology_001"].X.ravel()
        np.testing.assert_array_equal(spots_of(axes[-1]).get_array(), values)

    def test_measured_values_are_matched_by_name(self, one):
        table = one.tables["table"]
        before = spots_of(stp.pl.prediction(one, "null_001")[1]).get_array()
        one.tables["table"] = table[::-1, ::-1].copy()
        after = spots_of(stp.pl.prediction(one, "null_001")[1]).get_array()
        np.testing.assert_array_equal(after, before)

    def test_a_model_of_counts_has_its_units(self, one):
        """Such a model is fitted to X, and its record has no layer."""
        table, predicted = one.tables["table"], one.tables["predicted"]
        record = predicted.uns["stpredict"]["predict"]
        del record["layer"]
        record["units"] = "counts per 10,000"
        counts = table.X.toarray() if hasattr(table.X, "toarray") else table.X
        expected = counts / counts.sum(axis=1, keepdims=True) * 1e4
        axes = stp.pl.prediction(one, "morphology_001")
        np.testing.assert_allclose(
            spots_of(axes[1]).get_array(), expected[:, table.var_names.get_loc("morphology_001")]
        )

    def test_without_measured_values_two_panels_are_drawn(self, one):
        one.tables["table"] = one.tables["table"][:, ["null_002"]].copy()
        axes = stp.pl.prediction(one, "morphology_001")
        assert [ax.get_title() for ax in axes] == ["S1: H&E", "morphology_001 predicted"]

    def test_axes_of_the_caller_are_used(self, one):
        _, grid = plt.subplots(1, 3)
        axes = stp.pl.prediction(one, "morphology_001", axes=grid)
        assert list(axes) == list(grid)
        _, two = plt.subplots(1, 2)
        with pytest.raises(ValueError, match="3 axes are needed, 2 given"):
            stp.pl.prediction(one, "morphology_001", axes=two)

    def test_all_sections_are_drawn_by_default_one_per_row(self, sdata):
        axes = stp.pl.prediction(sdata, "morphology_001")
        assert axes.shape == (2, 3)
        assert [ax.get_title() for ax in axes[:, 0]] == ["S1: H&E", "S2: H&E"]
        (_, measured, predicted) = axes[1]
        rows = (sdata.tables["predicted"].obs["region"] == "S2").to_numpy()
        values = sdata.tables["predicted"][rows, "morphology_001"].X.ravel()
        np.testing.assert_array_equal(spots_of(predicted).get_array(), values)
        assert spots_of(measured).norm is spots_of(predicted).norm

    def test_several_genes_are_drawn_one_per_row(self, one):
        axes = stp.pl.prediction(one, ["null_001", "morphology_001"], panels=["measured"])
        assert [ax.get_title() for ax in axes[:, 0]] == [
            "null_001 measured", "morphology_001 measured",
        ]  # fmt: skip

    def test_several_tables_are_compared_on_one_scale(self, one):
        ridge = one.tables["predicted"].copy()
        ridge.X = ridge.X[::-1].copy()
        one.tables["ridge"] = ridge
        axes = stp.pl.prediction(one, "morphology_001", key=["predicted", "ridge"])
        titles = [ax.get_title().split(" (")[0] for ax in axes]
        assert titles == [
            "S1: H&E", "morphology_001 measured", "morphology_001: predicted",
            "morphology_001: ridge",
        ]  # fmt: skip
        assert len({id(spots_of(ax).norm) for ax in axes[1:]}) == 1
        assert [len(ax.child_axes) for ax in axes] == [0, 0, 0, 1]
        np.testing.assert_array_equal(
            spots_of(axes[3]).get_array(), ridge[:, "morphology_001"].X.ravel()
        )

    def test_tables_with_different_units_are_refused(self, one):
        counts = one.tables["predicted"].copy()
        counts.uns["stpredict"]["predict"]["units"] = "counts per 10,000"
        one.tables["counts"] = counts
        with pytest.raises(ValueError, match="the tables have different units"):
            stp.pl.prediction(one, "morphology_001", key=["predicted", "counts"])

    def test_colours_and_size_of_the_spots_can_be_chosen(self, one, tmp_path):
        path = tmp_path / "prediction.png"
        axes = stp.pl.prediction(
            one, "morphology_001", cmap="magma", vmin=1, vmax=3, spot_size=10, alpha=0.5, save=path
        )
        spots = spots_of(axes[-1])
        assert spots.get_cmap().name == "magma"
        assert spots.get_clim() == (1, 3)
        assert spots.get_alpha() == 0.5
        np.testing.assert_allclose(spots._widths * 2, 10)
        assert path.stat().st_size > 10_000

    def test_a_section_that_does_not_exist(self, sdata):
        with pytest.raises(ValueError, match="section='S9' is not one of 'S1', 'S2'"):
            stp.pl.prediction(sdata, "morphology_001", section="S9")

    def test_a_gene_without_predictions_is_refused(self, one):
        with pytest.raises(KeyError, match=r"not in the table: ERBB2; .* morphology_001, null_001"):
            stp.pl.prediction(one, "ERBB2")

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"genes": [GENES]}, TypeError, "genes must be a string or a list of str"),
            ({"genes": []}, ValueError, "genes= is empty"),
            (
                {"genes": GENES, "key": [["predicted"]]},
                TypeError,
                "key must be a string or a list of str",
            ),
        ],
    )
    def test_names_that_are_no_names_are_refused(self, one, options, error, message):
        with pytest.raises(error, match=message):
            stp.pl.prediction(one, **options)
        assert not plt.get_fignums()

    def test_without_predictions_an_error_is_raised(self, one):
        del one.tables["predicted"]
        with pytest.raises(KeyError, match=r"run stp\.tl\.predict first"):
            stp.pl.prediction(one, "morphology_001")


class TestUncertainty:
    """Panels of the uncertainty of a prediction."""

    PANELS = ("image", "measured", "predicted", "width", "familiarity")

    @pytest.fixture
    def calibrated(self, one):
        table = one.tables["predicted"]
        half = np.linspace(0.1, 0.6, table.n_obs, dtype=np.float32)[:, None]
        table.layers["lower"] = table.X - half
        table.layers["upper"] = table.X + 3 * half
        table.obs["familiarity"] = np.linspace(0, 1, table.n_obs)
        return one

    def test_the_width_and_the_familiarity_of_every_spot(self, calibrated):
        axes = stp.pl.prediction(calibrated, "morphology_001", panels=self.PANELS)
        n = calibrated.tables["predicted"].n_obs
        assert [ax.get_title().split(" (")[0] for ax in axes] == [
            "S1: H&E",
            "morphology_001 measured",
            "morphology_001 predicted",
            "morphology_001 width of the interval",
            "familiarity of the tiles",
        ]
        width, familiarity = spots_of(axes[3]), spots_of(axes[4])
        np.testing.assert_allclose(width.get_array(), 4 * np.linspace(0.1, 0.6, n), rtol=1e-5)
        np.testing.assert_allclose(familiarity.get_array(), np.linspace(0, 1, n))
        assert width.get_clim()[0] == 0
        assert familiarity.get_clim() == (0, 1)

    def test_one_colour_bar_per_scale(self, calibrated):
        axes = stp.pl.prediction(calibrated, "morphology_001", panels=self.PANELS)
        bars = [[bar.get_ylabel() for bar in ax.child_axes] for ax in axes]
        units = "log(1 + counts per 10,000)"
        assert bars == [[], [], [units], [units], ["1: as in training"]]

    def test_panels_follow_the_given_order(self, calibrated):
        axes = stp.pl.prediction(calibrated, "morphology_001", panels=["predicted", "measured"])
        assert [len(ax.child_axes) for ax in axes] == [0, 1]
        assert axes[1].get_title() == "morphology_001 measured"
        (alone,) = stp.pl.prediction(calibrated, "morphology_001", panels=["width"])
        assert len(alone.child_axes) == 1

    def test_the_default_panels_do_not_depend_on_calibration(self, calibrated):
        assert len(stp.pl.prediction(calibrated, "morphology_001")) == 3

    def test_another_section(self, sdata):
        table = sdata.tables["predicted"]
        table.obs["familiarity"] = np.where(table.obs["region"] == "S2", 0.75, 0.25)
        (ax,) = stp.pl.prediction(sdata, "null_001", section="S2", panels=["familiarity"])
        assert set(spots_of(ax).get_array()) == {0.75}

    @pytest.mark.parametrize(
        ("panels", "error", "message"),
        [
            (["width"], KeyError, r"no layers\['lower'\].*stp\.tl\.calibrate"),
            (["familiarity"], KeyError, r"no obs\['familiarity'\].*stp\.tl\.calibrate"),
            (["std"], ValueError, r"panels=\['std'\] is not a list of one of 'image', 'measured'"),
            (["width", "width"], ValueError, "panels are not unique, repeated: width"),
            ([], ValueError, "panels= is empty"),
            ("width", TypeError, r"panels='width' is one name; give a list: \['width'\]"),
        ],
    )
    def test_missing_values_raise(self, one, panels, error, message):
        with pytest.raises(error, match=message):
            stp.pl.prediction(one, "morphology_001", panels=panels)
        assert not plt.get_fignums()

    def test_missing_measured_values_raise(self, one):
        one.tables["table"] = one.tables["table"][:, ["null_002"]].copy()
        with pytest.raises(KeyError, match="measured values of 'morphology_001' are missing"):
            stp.pl.prediction(one, "morphology_001", panels=["measured", "predicted"])
