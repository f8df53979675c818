"""Calibrated models: coverage of intervals, reliable genes, familiar sections."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
import torch
from anndata import AnnData
from scipy.ndimage import gaussian_filter
from spatialdata.models import Image2DModel, TableModel, get_table_keys
from spatialdata.transformations import get_transformation

import stpredict as stp
from stpredict import uncertainty
from stpredict._sdata._spot_table import copy_of, open_table
from stpredict.tl._crossval._options import options_of

FINE = {"mpp": 0.5, "pitch_um": 40.0, "n_morphology": 12, "n_neighborhood": 8, "n_null": 12}
TRAINING, NEW = ("S1", "S2", "S3", "S4", "S5", "S6"), ("S7", "S8", "S9", "S10")


def part(sdata, names):
    """Some of the sections, copied."""
    elements = [element for name in names for element in (name, f"{name}_image")]
    return copy_of(sdata.subset(elements, filter_tables=True))


def cross_validated(sdata, fit, *, method="ridge", groups=None):
    """Write ``tables["out_of_fold"]`` as cross-validation does: every group from the others."""
    table = sdata.tables["table"]
    section = open_table(sdata).section_of_row
    labels = section if groups is None else table.obs[groups].astype(str).to_numpy()
    final = fit(sdata)
    genes = list(final.genes)
    predicted = np.full((table.n_obs, len(genes)), np.nan, dtype=np.float32)
    for group in dict.fromkeys(labels):
        inside = labels == group
        model = fit(part(sdata, dict.fromkeys(section[~inside])))
        test = part(sdata, dict.fromkeys(section[inside]))
        stp.tl.predict(test, model)
        rows = table.obs_names.get_indexer(test.tables["predicted"].obs_names)
        predicted[rows] = test.tables["predicted"][:, genes].X
    values = table[:, genes].layers["log1p"]
    values = values.toarray() if hasattr(values, "toarray") else values
    values = np.where(np.isnan(predicted), np.nan, values).astype(np.float32)
    held_out = AnnData(values, obs=table.obs.copy())
    held_out.var_names = genes
    held_out.layers[method] = predicted
    held_out.obs["fold"] = labels
    held_out.uns["stpredict"] = {
        "cross_validate": {
            "methods": [method],
            "group_kind": "section" if groups is None else groups,
            "layer": "log1p",
            "units": final.units,
            "seed": 0,
            "options": {method: [options_of(final)]},
        }
    }
    regions, region_key, instance_key = get_table_keys(table)
    sdata.tables["out_of_fold"] = TableModel.parse(
        held_out, region=regions, region_key=region_key, instance_key=instance_key
    )
    return final


def record_options(sdata, *models):
    """Record models as those of the folds of "ridge"."""
    protocol = sdata.tables["out_of_fold"].uns["stpredict"]["cross_validate"]
    protocol["options"] = {"ridge": [options_of(model) for model in models]}


@pytest.fixture(scope="module")
def phantom():
    """Ten sections; the genes of the first six are predicted out of fold by ridge."""
    sdata = stp.datasets.phantom(10, size_px=900, **FINE)
    stp.pp.normalize(sdata)
    sdata.tables["table"].var["selected"] = True
    stp.pp.embed(sdata, tile_um=40, n_subtiles=1)
    stp.pp.neighbors(sdata)
    training = part(sdata, TRAINING)
    model = cross_validated(training, stp.tl.fit_ridge)
    return training, part(sdata, NEW), model


@pytest.fixture
def training(phantom):
    return copy_of(phantom[0])


@pytest.fixture
def model(phantom):
    return phantom[2]


@pytest.fixture(scope="module")
def calibrated(phantom):
    return stp.tl.calibrate(phantom[0], phantom[2], method="ridge")


@pytest.fixture
def predicted(phantom, calibrated):
    new = copy_of(phantom[1])
    stp.tl.predict(new, calibrated)
    return new


def measured_of(sdata, genes):
    values = sdata.tables["table"][:, list(genes)].layers["log1p"]
    return np.asarray(values.toarray() if hasattr(values, "toarray") else values)


def test_intervals_cover_their_share_of_new_groups(predicted, calibrated):
    table = predicted.tables["predicted"]
    measured = measured_of(predicted, table.var_names)
    lower, upper = table.layers["lower"], table.layers["upper"]
    section = open_table(predicted).section_of_row
    coverages = [
        uncertainty.coverage(*(x[section == name] for x in (measured, lower, upper))).mean()
        for name in NEW
    ]
    assert 0.88 <= np.mean(coverages) <= 0.92
    assert all(0.85 <= coverage <= 0.95 for coverage in coverages)
    assert 0.88 <= calibrated.calibration.mean_coverage <= 0.92
    # narrower than intervals without the image
    spread = np.diff(np.quantile(measured, [0.05, 0.95], axis=0), axis=0)[0]
    of_tissue = predicted.tables["table"].var["planted"].isin(["morphology"]).to_numpy()
    assert np.median(((upper - lower).mean(axis=0) / spread)[of_tissue]) < 0.95


def test_the_table_has_intervals_reliable_genes_and_familiarity(predicted, tmp_path):
    table = predicted.tables["predicted"]
    for name in ("lower", "upper"):
        assert table.layers[name].dtype == np.float32
        assert table.layers[name].shape == table.shape
    assert (table.layers["lower"] <= table.X).mean() > 0.99
    assert (table.layers["upper"] >= table.X).mean() > 0.99
    assert table.var["reliable"].dtype == "boolean"
    assert table.var["reliable"].notna().all()
    assert table[:, table.var["reliable"]].n_vars == table.var["reliable"].sum() > 0
    assert table.obs["familiarity"].dtype == np.float32
    assert table.obs["familiarity"].between(0, 1).all()
    assert table.uns["stpredict"]["predict"]["level"] == 0.9
    assert "familiarity" not in predicted.tables["table"].obs
    predicted.write(tmp_path / "new.zarr")
    read = sd.read_zarr(tmp_path / "new.zarr").tables["predicted"]
    np.testing.assert_array_equal(read.layers["lower"], table.layers["lower"])
    pd.testing.assert_series_equal(read.var["reliable"], table.var["reliable"])
    np.testing.assert_array_equal(read.obs["familiarity"], table.obs["familiarity"])


def test_intervals_of_log_counts_are_not_negative(phantom, calibrated):
    network = copy.deepcopy(calibrated.network)
    with torch.no_grad():
        network.linear.bias -= 1e3
    new = copy_of(phantom[1])
    stp.tl.predict(new, replace(calibrated, network=network))
    table = new.tables["predicted"]
    lower, upper = calibrated.calibration.intervals.around(table.X)
    assert lower.min() < 0
    np.testing.assert_array_equal(table.layers["lower"], np.maximum(lower, 0))
    np.testing.assert_array_equal(table.layers["upper"], np.maximum(upper, 0))


def test_planted_genes_are_reliable(calibrated, phantom):
    planted = phantom[0].tables["table"].var["planted"][list(calibrated.genes)].to_numpy()
    calibration = calibrated.calibration
    assert calibration.reliable[planted == "morphology"].all()
    assert calibration.reliable[planted == "neighborhood"].all()
    # counts per 10,000 are shares, so that planted genes influence the others a little
    assert calibration.reliable[planted == "null"].mean() <= 0.25
    assert calibration.reliability.pcc[planted == "null"].max() < 0.25


def test_new_sections_of_the_same_kind_are_familiar(predicted):
    table = predicted.tables["predicted"]
    medians = table.obs.groupby("region", observed=True)["familiarity"].median()
    assert medians.between(0.25, 0.85).all()


def darken(pixels):
    """Pixels (3, y, x) of another stain."""
    return (255 - (255.0 - pixels) * [[[1.6]], [[1.0]], [[1.9]]]).clip(0, 255)


def blur(pixels):
    """Pixels (3, y, x) out of focus, by 2 µm."""
    return gaussian_filter(pixels.astype(float), (0, 4, 4))


def restain(sdata, section, change=darken):
    """Replace the image of a section by a changed one, and embed again."""
    name = f"{section}_image"
    image = sdata.images[name]["scale0"]["image"]
    transformations = get_transformation(sdata.images[name], get_all=True)
    sdata.images[name] = Image2DModel.parse(
        change(image.to_numpy()).astype(np.uint8),
        dims=("c", "y", "x"),
        transformations=transformations,
        scale_factors=[2],
    )
    stp.pp.embed(sdata, tile_um=40, n_subtiles=1)


def test_a_section_of_another_stain_is_unfamiliar_and_warned_about(phantom, calibrated):
    new = part(phantom[1], ["S7"])
    restain(new, "S7")
    with pytest.warns(UserWarning, match=r"S7 \(median familiarity 0\.0\d\) look unlike"):
        stp.tl.predict(new, calibrated)
    assert new.tables["predicted"].obs["familiarity"].median() < 0.05


def test_unfamiliar_sections_have_no_intervals_and_no_reliable_genes(phantom, calibrated, tmp_path):
    new = part(phantom[1], ["S7", "S8"])
    restain(new, "S7")
    with pytest.warns(UserWarning, match=r"no intervals and var\['reliable'\] is missing"):
        stp.tl.predict(new, calibrated)
    new.write(tmp_path / "new.zarr")
    for sdata in (new, sd.read_zarr(tmp_path / "new.zarr")):
        table = sdata.tables["predicted"]
        is_familiar = (table.obs["region"] == "S8").to_numpy()
        for name in ("lower", "upper"):
            assert np.isnan(table.layers[name][~is_familiar]).all()
            assert np.isfinite(table.layers[name][is_familiar]).all()
        assert np.isfinite(table.X).all()
        assert table.var["reliable"].dtype == "boolean"
        assert table.var["reliable"].isna().all()
        step = table.uns["stpredict"]["predict"]
        assert step["unfamiliar_sections"] == ["S7"]
        assert list(step["interval_notes"]) == ["S7"]
        assert "no intervals: median familiarity 0.0" in step["interval_notes"]["S7"]
    axes = stp.pl.calibration(new)
    assert "no intervals" in [text.get_text() for text in axes[0].texts]
    gene = calibrated.genes[0]
    panels = stp.pl.prediction(new, gene, section="S7", panels=["width"])
    assert panels[0].get_title() == f"{gene}: no interval"


@pytest.fixture(scope="module")
def standardized(phantom):
    """A calibrated model on features that are standardised within sections."""
    fit = partial(stp.tl.fit_ridge, standardize="section")
    training = copy_of(phantom[0])
    return stp.tl.calibrate(training, cross_validated(training, fit), method="ridge")


def coverages(sdata, key="predicted"):
    """Coverage of every section, NaN without intervals."""
    table = sdata.tables[key]
    measured, section = measured_of(sdata, table.var_names), open_table(sdata).section_of_row
    layers = table.layers["lower"], table.layers["upper"]
    return {
        name: uncertainty.coverage(*(x[section == name] for x in (measured, *layers))).mean()
        for name in np.unique(section)
    }


def test_without_sections_of_their_own_statistics_no_interval_is_widened(calibrated, predicted):
    rule = calibrated.calibration.section_rule
    assert len(rule.widths) == 0
    assert 0 < rule.limit <= 0.1
    assert "interval_notes" not in predicted.tables["predicted"].uns["stpredict"]["predict"]


@pytest.mark.parametrize("change", [darken, blur])
def test_intervals_cover_or_are_withheld_on_changed_images(
    phantom, calibrated, standardized, change
):
    new = part(phantom[1], ["S7"])
    restain(new, "S7", change)
    with pytest.warns(UserWarning, match="no intervals"):
        stp.tl.predict(new, calibrated)
    assert np.isnan(coverages(new)["S7"])
    # the shift is the same for all tiles of the section
    stp.tl.predict(new, standardized)
    assert coverages(new)["S7"] >= 0.8


def test_intervals_are_wider_on_sections_of_another_composition(
    phantom, standardized, capsys, monkeypatch
):
    rule = standardized.calibration.section_rule
    assert rule.widths[0] > 1.1
    assert rule.width(0.65) < 1.05
    spots = open_table(copy_of(phantom[1]))
    kind = spots.table.obs["region_truth"].to_numpy()
    new = spots.subset(np.flatnonzero(kind == "immune")).sdata
    monkeypatch.setattr(stp.settings, "verbosity", 1)
    with pytest.warns(UserWarning, match="fewer than 60"):
        stp.tl.predict(new, standardized)
    printed = capsys.readouterr().out
    table = new.tables["predicted"]
    notes = table.uns["stpredict"]["predict"]["interval_notes"]
    section = open_table(new).section_of_row
    plain = standardized.calibration.intervals.around(table.X)
    measured = measured_of(new, table.var_names)
    for name, share in coverages(new).items():
        assert "times as wide: median familiarity 0." in notes[name]
        assert notes[name] in printed
        narrow = uncertainty.coverage(*(x[section == name] for x in (measured, *plain))).mean()
        assert narrow < share
    assert np.mean(list(coverages(new).values())) >= 0.8
    assert table.var["reliable"].notna().all()


def test_a_calibrated_model_is_saved_and_loaded(calibrated, phantom, tmp_path):
    calibrated.save(tmp_path / "model")
    loaded = stp.models.load(tmp_path / "model")
    new = copy_of(phantom[1])
    stp.tl.predict(new, calibrated)
    stp.tl.predict(new, loaded, key_added="loaded")
    expected, predicted = new.tables["predicted"], new.tables["loaded"]
    for name in ("lower", "upper"):
        np.testing.assert_array_equal(predicted.layers[name], expected.layers[name])
    assert predicted.obs.equals(expected.obs)
    assert predicted.var.equals(expected.var)
    assert loaded.calibration.coverage_of_groups == calibrated.calibration.coverage_of_groups
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    assert "- intervals: 90 % of measured values" in card
    assert f"- reliable genes: {calibrated.calibration.reliable.sum()} of 32" in card
    assert "S1 9" in card or "S1 8" in card


def test_calibrating_changes_neither_model_nor_sections(training, model):
    before = training.tables["out_of_fold"].copy()
    calibrated = stp.tl.calibrate(training, model, method="ridge", level=0.8)
    assert model.calibration is None
    assert calibrated.calibration.level == 0.8
    assert calibrated.network is model.network
    after = training.tables["out_of_fold"]
    np.testing.assert_array_equal(after.layers["ridge"], before.layers["ridge"])
    assert list(after.obs) == list(before.obs)


def test_coverage_is_printed(training, model, monkeypatch, capsys):
    monkeypatch.setattr(stp.settings, "verbosity", 1)
    stp.tl.calibrate(training, model, method="ridge")
    printed = capsys.readouterr().out
    assert "calibrated on 'ridge': intervals at 90 % cover S1 " in printed
    assert "of 32 genes are reliable" in printed


def test_factors_have_no_intervals(training, phantom):
    fit = partial(stp.tl.fit_ridge, targets="svd", n_factors=3)
    three = part(training, TRAINING[:3])
    model = stp.tl.calibrate(three, cross_validated(three, fit), method="ridge")
    new = copy_of(phantom[1])
    stp.tl.predict(new, model, space="factors")
    table = new.tables["predicted"]
    assert not {"lower", "upper"} & set(table.layers)
    assert "reliable" not in table.var
    assert "familiarity" not in table.obs


def test_genes_of_fewer_than_two_folds_have_no_intervals(training, model, phantom):
    held_out = training.tables["out_of_fold"]
    held_out.layers["ridge"][:, 0] = np.nan
    held_out.layers["ridge"][held_out.obs["fold"] != "S1", 1] = np.nan
    calibration = stp.tl.calibrate(training, model, method="ridge").calibration
    np.testing.assert_array_equal(calibration.intervals.available[:3], [False, False, True])
    assert not calibration.reliable[:2].any()
    new = copy_of(phantom[1])
    stp.tl.predict(new, replace(model, calibration=calibration))
    table = new.tables["predicted"]
    assert np.isnan(table.layers["lower"][:, :2]).all()
    assert np.isfinite(table.layers["lower"][:, 2:]).all()


def test_genes_are_matched_by_name_and_may_be_absent(training, model):
    expected = stp.tl.calibrate(training, model, method="ridge").calibration
    held_out = training.tables["out_of_fold"]
    without_first = held_out.var_names[:0:-1]
    training.tables["out_of_fold"] = held_out[:, without_first].copy()
    calibration = stp.tl.calibrate(training, model, method="ridge").calibration
    np.testing.assert_array_equal(calibration.intervals.lower[1:], expected.intervals.lower[1:])
    assert not calibration.intervals.available[0]


def test_a_fold_in_which_the_method_failed_is_left_out(training, model):
    held_out = training.tables["out_of_fold"]
    held_out.layers["ridge"][(held_out.obs["fold"] == "S3").to_numpy()] = np.nan
    calibration = stp.tl.calibrate(training, model, method="ridge").calibration
    assert calibration.intervals.available.all()
    assert np.isnan(calibration.coverage_of_groups["S3"])
    assert 0.85 < calibration.mean_coverage < 0.95


def test_a_real_cross_validation_calibrates_the_method_and_its_baseline(training, tmp_path):
    three = part(training, TRAINING[:3])
    stp.pp.select_genes(three, n_top_genes=14)  # selected again in every fold
    stp.tl.cross_validate(three, {"svd": partial(stp.tl.fit_ridge, targets="svd", n_factors=3)})
    model = stp.tl.fit_ridge(three, targets="svd", n_factors=3)
    calibration = stp.tl.calibrate(three, model, method="svd").calibration
    assert calibration.groups == ("P1", "P2", "P3")
    assert calibration.method == "svd"
    assert 0.85 < calibration.mean_coverage < 0.95
    n_folds = three.tables["out_of_fold"].var["n_folds"].reindex(model.genes, fill_value=0)
    np.testing.assert_array_equal(calibration.intervals.available, n_folds >= 2)
    planted = np.array([not gene.startswith("null") for gene in model.genes])
    np.testing.assert_array_equal(calibration.reliable, planted & calibration.intervals.available)
    ridge = stp.tl.fit_ridge(three, context="spot", scaling="standard")
    baseline = stp.tl.calibrate(three, ridge, method="tuned_ridge").calibration
    assert 0.85 < baseline.mean_coverage < 0.95
    # the options of the model decide, also after a round trip
    assert stp.tl.calibrate(three, ridge).calibration.method == "tuned_ridge"
    three.write(tmp_path / "three.zarr")
    three = sd.read_zarr(tmp_path / "three.zarr")
    assert stp.tl.calibrate(three, model).calibration.method == "svd"
    with pytest.raises(ValueError, match=r"other options.*targets.kind='svd' \(model: 'genes'"):
        stp.tl.calibrate(three, ridge, method="svd")


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        ({"context": "spot"}, r"context='spot_neighbors' \(model: 'spot'"),
        ({"alpha": 10.0}, r"alpha_from='tuned' \(model: 'given'"),
        ({"n_components": 5}, r"n_components=None \(model: 5"),
        ({"targets": "svd", "n_factors": 3}, r"kind='genes' \(model: 'svd'"),
    ],
)
def test_a_model_of_other_options_is_refused(training, options, difference):
    model = stp.tl.fit_ridge(training, **options)
    with pytest.raises(ValueError, match=f"no cross-validated method .*{difference}"):
        stp.tl.calibrate(training, model)
    with pytest.raises(ValueError, match=f"method='ridge' was cross-validated.*{difference}"):
        stp.tl.calibrate(training, model, method="ridge")


def test_a_model_of_another_method_is_refused(training):
    trees = stp.tl.fit_trees(training, n_trees=2)
    with pytest.raises(ValueError, match=r"method='ridge' \(model: 'trees'"):
        stp.tl.calibrate(training, trees, method="ridge")


def test_the_method_is_inferred_if_a_single_one_has_the_options(training, model):
    assert stp.tl.calibrate(training, model).calibration.method == "ridge"
    held_out = training.tables["out_of_fold"]
    held_out.layers["copy"] = held_out.layers["ridge"].copy()
    protocol = held_out.uns["stpredict"]["cross_validate"]
    protocol["options"]["copy"] = protocol["options"]["ridge"]
    with pytest.raises(ValueError, match="the methods ridge, copy all have"):
        stp.tl.calibrate(training, model)
    protocol["baselines"] = ["copy"]
    assert stp.tl.calibrate(training, model).calibration.method == "ridge"


def test_a_tuned_model_matches_its_candidates_whichever_is_best(training, model):
    one = replace(model, training=replace(model.training, tuned={"a": 0.2, "b": 0.1}))
    other = stp.tl.fit_ridge(training, context="spot")
    other = replace(other, training=replace(other.training, tuned={"b": 0.3, "a": 0.1}))
    record_options(training, one)
    assert stp.tl.calibrate(training, other).calibration.method == "ridge"
    with pytest.raises(ValueError, match="no cross-validated method"):
        stp.tl.calibrate(training, model)


def test_a_table_without_options_has_to_be_cross_validated_again(training, model):
    del training.tables["out_of_fold"].uns["stpredict"]["cross_validate"]["options"]
    with pytest.raises(ValueError, match="does not record the options"):
        stp.tl.calibrate(training, model, method="ridge")


def test_groups_of_a_column_are_left_out_together(training):
    table = training.tables["table"]
    table.obs["block"] = np.where(table.obs["region"].isin(["S1", "S2"]), "a", "b")
    model = cross_validated(training, stp.tl.fit_ridge, groups="block")
    calibration = stp.tl.calibrate(training, model, method="ridge").calibration
    assert calibration.groups == ("a", "b")


def test_stacks_and_models_on_pixels_measure_familiarity(training, phantom):
    two = part(training, TRAINING[:2])

    def stack(sdata):
        bases = {"one": stp.tl.fit_ridge, "two": partial(stp.tl.fit_ridge, context="spot")}
        return stp.tl.fit_stacking(sdata, bases, meta="mean")

    def pixels(sdata):
        schedule = stp.tl.Schedule(max_epochs=1, batch_size=32)
        return stp.tl.fit_cnn(
            sdata, network=stp.tl.CNNNetwork(tile_px=16), tile_um=40, schedule=schedule
        )

    cross_validated(two, stp.tl.fit_ridge)  # familiarity does not depend on the errors
    for fit in (stack, pixels):
        model = fit(two)
        record_options(two, model)
        calibrated = stp.tl.calibrate(two, model)
        new = part(phantom[1], ["S7"])
        stp.tl.predict(new, calibrated)
        assert 0.2 < new.tables["predicted"].obs["familiarity"].median() < 0.9


def test_a_finetuned_model_has_to_be_calibrated_again(training):
    two = part(training, TRAINING[:2])
    short = stp.tl.Schedule(max_epochs=1)
    network = stp.tl.DeepSpotNetwork(n_hidden=4, n_phi=1, n_rho=1, n_networks=1)
    model = stp.tl.fit_deepspot(two, network=network, schedule=short)
    cross_validated(two, stp.tl.fit_ridge)
    record_options(two, model)
    calibrated = stp.tl.calibrate(two, model, method="ridge")
    assert stp.tl.finetune(two, calibrated, schedule=short).calibration is None


class TestBadInput:
    """Bad input is refused."""

    def refused(self, error, message, sdata, model, **options):
        tables = list(sdata.tables)
        with pytest.raises(error, match=message):
            stp.tl.calibrate(sdata, model, **{"method": "ridge", **options})
        assert list(sdata.tables) == tables
        assert model.calibration is None

    def test_no_cross_validation(self, training, model):
        del training.tables["out_of_fold"]
        self.refused(KeyError, r"no 'out_of_fold'.*cross_validate", training, model)

    def test_a_table_of_something_else(self, training, model):
        del training.tables["out_of_fold"].uns["stpredict"]
        self.refused(ValueError, "not written by stp.tl.cross_validate", training, model)

    def test_a_method_that_was_not_validated(self, training, model):
        self.refused(KeyError, "'trees' was not.*methods: ridge", training, model, method="trees")

    def test_a_split_that_leaks(self, training, model):
        training.tables["out_of_fold"].uns["stpredict"]["cross_validate"]["leaky"] = True
        self.refused(ValueError, "leaks a group", training, model)

    def test_other_rows(self, training, model):
        held_out = training.tables["out_of_fold"]
        training.tables["out_of_fold"] = held_out[1:].copy()
        self.refused(ValueError, "have different rows", training, model)

    def test_other_sections(self, training):
        model = stp.tl.fit_ridge(part(training, ["S1", "S2"]))
        self.refused(
            ValueError,
            "trained on S1, S2, but .* used S1, S2, S3",
            training,
            model,
        )

    def test_other_units(self, training, model):
        self.refused(
            ValueError,
            r"is in log\(1 \+ counts.*the model predicts counts",
            training,
            replace(model, units="counts"),
        )

    def test_none_of_the_genes(self, training, model):
        other = replace(model, genes=tuple(f"ENSG{i:011d}" for i in range(len(model.genes))))
        self.refused(KeyError, "none of the model.*32 genes.*Ensembl", training, other)

    def test_one_group(self, training, model):
        training.tables["table"].obs["all"] = "everyone"
        training.tables["out_of_fold"].uns["stpredict"]["cross_validate"]["group_kind"] = "all"
        self.refused(ValueError, "only one group, 'everyone'", training, model)

    def test_nan_in_some_rows_of_a_fold(self, training, model):
        training.tables["out_of_fold"].layers["ridge"][3, :2] = np.nan
        self.refused(ValueError, "predicts 2 genes in only some rows of fold 'S1'", training, model)

    def test_measured_values_with_nan(self, training, model):
        training.tables["out_of_fold"].X[7, 1] = np.nan
        self.refused(ValueError, "1 measured values .* are NaN", training, model)

    def test_infinite_predictions(self, training, model):
        training.tables["out_of_fold"].layers["ridge"][3, 2] = np.inf
        self.refused(ValueError, "1 predictions of 'ridge' are infinite", training, model)

    def test_genes_predicted_in_one_group_only(self, training, model):
        held_out = training.tables["out_of_fold"]
        held_out.layers["ridge"][(held_out.obs["fold"] != "S3").to_numpy()] = np.nan
        self.refused(ValueError, "predicted no gene in two groups", training, model)

    def test_too_few_rows_for_the_level(self, training, model):
        self.refused(ValueError, "needs at least 1999 held-out rows", training, model, level=0.999)

    def test_too_few_rows_without_a_group(self, training, model):
        n = training.tables["table"].n_obs
        level = 1 - 2 / (n - 5)
        self.refused(ValueError, "without group 'S1'", training, model, level=level)

    @pytest.mark.parametrize("level", [0, 1, 90, "0.9", True])
    def test_a_level_out_of_range(self, training, model, level):
        errors, message = (ValueError, TypeError), "between 0 and 1|level must be a finite number"
        self.refused(errors, message, training, model, level=level)

    def test_missing_embeddings(self, training, model):
        del training.tables["table"].obsm["X_texture"]
        self.refused(KeyError, "X_texture", training, model)
