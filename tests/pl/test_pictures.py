"""Pictures: the right values, on the right scale, the right way up."""

from __future__ import annotations

import dataclasses

import dask.array as da
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.collections import EllipseCollection
from spatialdata.models import Image2DModel
from spatialdata.transformations import get_transformation

import stpredict as stp
from stpredict import metrics
from stpredict._sdata import _sections


def colour(tiles):
    return torch.cat([tiles.mean((-2, -1)), tiles.std((-2, -1))], dim=1)


@pytest.fixture(scope="module")
def predicted():
    """Two sections, wider than high, with predictions; and the model."""
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
    stp.pp.embed(sdata, colour, key_added="X_colour", tile_um=40, n_subtiles=1)
    stp.pp.neighbors(sdata)
    model = stp.tl.fit_deepspot(
        sdata,
        embedding="X_colour",
        context="spot_neighbors",
        genes=["morphology_001", "null_001"],
        n_hidden=16,
        n_phi=2,
        n_rho=2,
        learning_rate=5e-3,
        max_epochs=12,
        batch_size=16,
    )
    stp.tl.predict(sdata, model)
    stp.settings.verbosity = verbosity
    return sdata, model


@pytest.fixture
def model(predicted):
    return predicted[1]


@pytest.fixture
def sdata(predicted):
    return _sections.copy_of(predicted[0])


@pytest.fixture
def one(predicted):
    return _sections.copy_of(predicted[0].subset(["S1", "S1_image"]))


def spots_of(ax):
    (found,) = [c for c in ax.collections if isinstance(c, EllipseCollection)]
    return found


def drawn(ax):
    ax.figure.canvas.draw()
    return ax


class TestLossCurve:
    def test_every_step_and_every_validation_is_drawn(self, model):
        ax = drawn(stp.pl.loss_curve(model))
        history = model.history
        training = history[history["split"] == "training"]
        validation = history[history["split"] == "validation"]
        steps, smooth, held_out = ax.lines[:3]
        np.testing.assert_array_equal(steps.get_ydata(), training["loss"])
        np.testing.assert_array_equal(held_out.get_ydata(), validation["loss"])
        assert steps.get_alpha() < 0.5
        assert np.std(smooth.get_ydata()) < np.std(steps.get_ydata())
        # validation stands at the end of its epoch
        np.testing.assert_allclose(held_out.get_xdata(), 1 + validation["epoch"])
        assert steps.get_xdata().max() == held_out.get_xdata().max()

    def test_the_chosen_epoch_is_marked(self, model):
        ax = stp.pl.loss_curve(model)
        best = model.training["best_epoch"]
        validation = model.history[model.history["split"] == "validation"]
        chosen = validation.loc[validation["epoch"] == best, "loss"].item()
        mark = ax.lines[-1]
        assert list(mark.get_xdata()) == [best + 1]
        assert list(mark.get_ydata()) == [chosen]
        labels = [text.get_text() for text in ax.get_legend().get_texts()]
        assert f"chosen by pearson: epoch {best + 1}, loss {chosen:.3f}" in labels
        assert any(model.training["held_out"] in label for label in labels)

    def test_axes_are_labelled(self, model):
        ax = stp.pl.loss_curve(model)
        assert ax.get_xlabel() == "epoch"
        assert "mse" in ax.get_ylabel()
        assert model.units in ax.get_ylabel()

    def test_a_model_that_was_not_trained_in_steps(self, model):
        bare = dataclasses.replace(model, history=model.history.iloc[:0])
        with pytest.raises(ValueError, match=r"\(deepspot\) has no history"):
            stp.pl.loss_curve(bare)
        assert not plt.get_fignums()

    def test_axes_of_the_caller_are_drawn_on(self, model):
        _, ax = plt.subplots()
        assert stp.pl.loss_curve(model, ax=ax) is ax
        assert len(plt.get_fignums()) == 1

    def test_a_model_that_was_loaded_is_drawn_alike(self, model, tmp_path):
        model.save(tmp_path / "model")
        before = stp.pl.loss_curve(model)
        after = stp.pl.loss_curve(stp.models.load(tmp_path / "model"))
        for old, new in zip(before.lines, after.lines, strict=True):
            np.testing.assert_allclose(old.get_xydata(), new.get_xydata())


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
        assert {ax.get_xlabel() for ax in axes} == {"µm"}

    def test_axes_are_equal_and_rows_count_downwards(self, one):
        section = _sections.sections(one)[0]
        for ax in stp.pl.prediction(one, "morphology_001"):
            drawn(ax)
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

    def test_measured_and_predicted_have_one_scale_and_their_own_values(self, one):
        table, predicted = one.tables["table"], one.tables["predicted"]
        _, measured_ax, predicted_ax = stp.pl.prediction(one, "morphology_001")
        measured, prediction = spots_of(measured_ax), spots_of(predicted_ax)
        assert measured.norm is prediction.norm
        assert measured.get_cmap() == prediction.get_cmap()
        column = table[:, "morphology_001"].layers["log1p"].toarray().ravel()
        np.testing.assert_allclose(measured.get_array(), column)
        np.testing.assert_allclose(prediction.get_array(), predicted[:, "morphology_001"].X.ravel())

    def test_spots_lie_where_they_are_and_are_as_large_as_they_are(self, one):
        section = _sections.sections(one)[0]
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

    def test_the_colour_bar_tells_the_units(self, one):
        axes = stp.pl.prediction(one, "morphology_001")
        (bar,) = axes[-1].child_axes
        assert bar.get_ylabel() == "log(1 + counts per 10,000)"
        assert bar.get_ylim() == spots_of(axes[-1]).get_clim()

    def test_one_of_several_sections_is_chosen(self, sdata):
        axes = stp.pl.prediction(sdata, "morphology_001", section="S2")
        assert axes[0].get_title() == "S2: H&E"
        rows = (sdata.tables["predicted"].obs["region"] == "S2").to_numpy()
        values = sdata.tables["predicted"][rows, "morphology_001"].X.ravel()
        np.testing.assert_array_equal(spots_of(axes[-1]).get_array(), values)

    def test_measured_values_are_found_by_name(self, one):
        table = one.tables["table"]
        before = spots_of(stp.pl.prediction(one, "null_001")[1]).get_array()
        one.tables["table"] = table[::-1, ::-1].copy()
        after = spots_of(stp.pl.prediction(one, "null_001")[1]).get_array()
        np.testing.assert_array_equal(after, before)

    def test_a_model_of_counts_has_its_units(self, one):
        """It is fitted to X, of which the record of the layer says nothing."""
        table, predicted = one.tables["table"], one.tables["predicted"]
        how = predicted.uns["stpredict"]["predict"]
        del how["layer"]
        how["units"] = "counts per 10,000"
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

    def test_axes_of_the_caller_are_drawn_on(self, one):
        _, given = plt.subplots(1, 3)
        axes = stp.pl.prediction(one, "morphology_001", axes=given)
        assert list(axes) == list(given)
        _, two = plt.subplots(1, 2)
        with pytest.raises(ValueError, match="3 axes are needed, 2 given"):
            stp.pl.prediction(one, "morphology_001", axes=two)

    def test_it_can_be_saved(self, one, tmp_path):
        figure = stp.pl.prediction(one, "morphology_001")[0].figure
        figure.savefig(tmp_path / "prediction.png")
        assert (tmp_path / "prediction.png").stat().st_size > 10_000

    def test_several_sections_and_none_chosen(self, sdata):
        with pytest.raises(ValueError, match="2 sections, choose one: section='S1'"):
            stp.pl.prediction(sdata, "morphology_001")

    def test_a_section_that_is_not_there(self, sdata):
        with pytest.raises(KeyError, match="no section 'S9'; sections: S1, S2"):
            stp.pl.prediction(sdata, "morphology_001", section="S9")

    def test_a_gene_that_was_not_predicted(self, one):
        with pytest.raises(KeyError, match=r"'ERBB2' was not predicted.*morphology_001, null_001"):
            stp.pl.prediction(one, "ERBB2")

    def test_nothing_was_predicted(self, one):
        del one.tables["predicted"]
        with pytest.raises(KeyError, match=r"run stp\.tl\.predict first"):
            stp.pl.prediction(one, "morphology_001")


class TestTrust:
    """Panels that tell how far a prediction can be trusted."""

    SHOW = ("image", "measured", "predicted", "width", "familiarity")

    @pytest.fixture
    def calibrated(self, one):
        table = one.tables["predicted"]
        half = np.linspace(0.1, 0.6, table.n_obs, dtype=np.float32)[:, None]
        table.layers["lower"] = table.X - half
        table.layers["upper"] = table.X + 3 * half
        table.obs["familiarity"] = np.linspace(0, 1, table.n_obs)
        return one

    def test_the_width_and_the_familiarity_of_every_spot(self, calibrated):
        axes = stp.pl.prediction(calibrated, "morphology_001", show=self.SHOW)
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
        axes = stp.pl.prediction(calibrated, "morphology_001", show=self.SHOW)
        bars = [[bar.get_ylabel() for bar in ax.child_axes] for ax in axes]
        units = "log(1 + counts per 10,000)"
        assert bars == [[], [], [units], [units], ["1: as in training"]]

    def test_panels_stand_in_the_order_asked_for(self, calibrated):
        axes = stp.pl.prediction(calibrated, "morphology_001", show=["predicted", "measured"])
        assert [len(ax.child_axes) for ax in axes] == [0, 1]
        assert axes[1].get_title() == "morphology_001 measured"
        (alone,) = stp.pl.prediction(calibrated, "morphology_001", show=["width"])
        assert len(alone.child_axes) == 1

    def test_without_a_word_the_panels_are_those_of_any_prediction(self, calibrated):
        assert len(stp.pl.prediction(calibrated, "morphology_001")) == 3

    def test_another_section(self, sdata):
        table = sdata.tables["predicted"]
        table.obs["familiarity"] = np.where(table.obs["region"] == "S2", 0.75, 0.25)
        (ax,) = stp.pl.prediction(sdata, "null_001", section="S2", show=["familiarity"])
        assert set(spots_of(ax).get_array()) == {0.75}

    @pytest.mark.parametrize(
        ("show", "error", "message"),
        [
            (["width"], KeyError, r"no layers\['lower'\].*stp\.tl\.calibrate"),
            (["familiarity"], KeyError, r"no obs\['familiarity'\].*stp\.tl\.calibrate"),
            (["std"], ValueError, "show='std' is not one of 'image', 'measured'"),
            (["width", "width"], ValueError, "panels are not unique, repeated: width"),
            ([], ValueError, r"show must name panels, such as .*: \[\]"),
            ("width", ValueError, "show must name panels, such as .*: 'width'"),
        ],
    )
    def test_what_is_not_there_is_told(self, one, show, error, message):
        with pytest.raises(error, match=message):
            stp.pl.prediction(one, "morphology_001", show=show)
        assert not plt.get_fignums()

    def test_measured_values_that_are_not_there(self, one):
        one.tables["table"] = one.tables["table"][:, ["null_002"]].copy()
        with pytest.raises(KeyError, match="measured values of 'morphology_001' are not known"):
            stp.pl.prediction(one, "morphology_001", show=["measured", "predicted"])


@pytest.fixture(scope="module")
def stained():
    verbosity, stp.settings.verbosity = stp.settings.verbosity, 0
    sdata = stp.datasets.phantom(
        3, size_px=600, mpp=0.5, pitch_um=40.0, n_morphology=2, stain_variation=1.0
    )
    stp.pp.normalize_stain(sdata)
    stp.settings.verbosity = verbosity
    return sdata


class TestStain:
    def test_above_as_scanned_below_normalised(self, stained):
        axes = stp.pl.stain(stained)
        assert axes.shape == (2, 3)
        assert [ax.get_title() for ax in axes[0]] == [f"S{i}: as scanned" for i in (1, 2, 3)]
        assert [ax.get_title() for ax in axes[1]] == [f"S{i}: normalised" for i in (1, 2, 3)]
        for row, suffix in zip(axes, ("", "_normalized"), strict=True):
            image = np.asarray(stained.images[f"S2_image{suffix}"]["scale0"].ds["image"].data)
            (shown,) = row[1].images
            left, right, bottom, top = (round(edge / 0.5) for edge in shown.get_extent())
            np.testing.assert_array_equal(
                shown.get_array(), image[:, top:bottom, left:right].transpose(1, 2, 0)
            )
            assert row[1].get_xlabel() == "µm"

    def test_some_sections_on_axes_of_the_caller(self, stained):
        _, given = plt.subplots(2, 2)
        axes = stp.pl.stain(stained, sections=["S3", "S1"], axes=given)
        assert axes.ravel().tolist() == given.ravel().tolist()
        assert [ax.get_title()[:2] for ax in axes[1]] == ["S3", "S1"]
        assert stp.pl.stain(stained, sections="S2").shape == (2, 1)
        with pytest.raises(ValueError, match="6 axes are needed, two for each section; 4 given"):
            stp.pl.stain(stained, axes=given)

    def test_a_section_that_was_left_alone(self, stained):
        sdata = _sections.copy_of(stained)
        del sdata.images["S2_image_normalized"]
        known = sdata.tables["table"].uns["stpredict"]["normalize_stain"]
        known["skipped"] = ["S2"]
        axes = stp.pl.stain(sdata)
        assert axes[1, 1].get_title() == "S2: left as it is"

    def test_an_image_is_read_once_for_both(self, stained):
        sdata = stained.subset(["S1", "S1_image"])
        transformations = get_transformation(sdata.images["S1_image"], get_all=True)
        pixels = np.asarray(sdata.images.pop("S1_image")["scale0"].ds["image"].data)
        read = []

        def decode(chunk, block_info=None):
            read.append(block_info[0]["chunk-location"])
            return chunk

        sdata.images["S1_image"] = Image2DModel.parse(
            da.from_array(pixels, chunks=(3, 100, 100)).map_blocks(decode, meta=np.empty(0, "u1")),
            dims=("c", "y", "x"),
            scale_factors=[2],
            transformations=transformations,
        )
        stp.pp.normalize_stain(sdata)
        read.clear()
        stp.pl.stain(sdata)
        assert read
        assert len(read) == len(set(read))

    def test_nothing_was_normalised(self, stained):
        sdata = stained.subset(["S1", "S1_image"])
        with pytest.raises(ValueError, match=r"run stp\.pp\.normalize_stain\(sdata\) first"):
            stp.pl.stain(sdata)

    def test_a_section_that_is_not_there(self, stained):
        with pytest.raises(KeyError, match="no section 'S9'; sections: S1, S2, S3"):
            stp.pl.stain(stained, sections=["S1", "S9"])


class TestRealignment:
    @pytest.fixture
    def misaligned(self):
        return stp.datasets.phantom(size_px=1600, misalignment_um=(60, -40), seed=2)

    def test_spots_before_and_after_and_the_score_of_shifts(self, misaligned):
        (before,) = (s.centers_um for s in _sections.sections(misaligned))
        stp.pp.realign(misaligned)
        (after,) = (s.centers_um for s in _sections.sections(misaligned))
        axes = stp.pl.realignment(misaligned)
        assert len(axes) == 2
        spots = [c for c in axes[0].collections if isinstance(c, EllipseCollection)]
        np.testing.assert_allclose(spots[0].get_offsets(), after)
        np.testing.assert_allclose(spots[1].get_offsets(), before, atol=1e-6)
        record = misaligned.tables["table"].uns["stpredict"]["realign"]["S1"]
        assert f"required {record['required']:.3f}" in axes[1].get_title()
        (surface,) = axes[1].images
        np.testing.assert_array_equal(surface.get_array(), record["surface"])
        # the brightest pixel lies where the chosen shift is marked
        left, right, bottom, top = surface.get_extent()
        row, column = np.unravel_index(record["surface"].argmax(), record["surface"].shape)
        n = len(record["surface"])
        brightest = (
            left + (column + 0.5) * (right - left) / n,
            top + (row + 0.5) * (bottom - top) / n,
        )
        chosen = axes[1].lines[-1].get_xydata()[0]
        np.testing.assert_allclose(chosen, (after - before).mean(axis=0), atol=1e-6)
        np.testing.assert_allclose(chosen, brightest, atol=35)

    def test_a_given_shift_has_no_surface(self, misaligned):
        stp.pp.realign(misaligned, shift_um=(-60, 40))
        axes = stp.pl.realignment(misaligned)
        assert len(axes) == 1
        assert axes[0].get_title() == "S1: moved by 72 µm (median)"

    def test_without_realignment(self, misaligned):
        with pytest.raises(KeyError, match=r"'S1' was not realigned: run stp.pp.realign"):
            stp.pl.realignment(misaligned)
        stp.pp.realign(misaligned, shift_um=(1, 1))
        with pytest.raises(ValueError, match="1 axes are needed, 2 given"):
            stp.pl.realignment(misaligned, axes=plt.subplots(1, 2)[1])
