"""Calibrated models: what their intervals hold, which genes and slides they know."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import spatialdata as sd
from anndata import AnnData
from spatialdata.models import Image2DModel, TableModel, get_table_keys
from spatialdata.transformations import get_transformation

import stpredict as stp
from stpredict import uncertainty
from stpredict._sdata import _sections

FINE = {"mpp": 0.5, "pitch_um": 40.0, "n_morphology": 12, "n_neighborhood": 8, "n_null": 12}
TRAINING, NEW = ("S1", "S2", "S3", "S4", "S5", "S6"), ("S7", "S8", "S9", "S10")


@pytest.fixture(autouse=True)
def _silent(monkeypatch):
    monkeypatch.setattr(stp.settings, "verbosity", 0)


def part(sdata, names):
    """Some of the sections, copied."""
    elements = [element for name in names for element in (name, f"{name}_image")]
    return _sections.copy_of(sdata.subset(elements, filter_tables=True))


def cross_validated(sdata, fit, *, method="ridge", groups=None):
    """Write ``tables["out_of_fold"]`` as cross-validation does: every group from the others."""
    table = sdata.tables["table"]
    region = _sections.region_of(table)
    labels = region if groups is None else table.obs[groups].astype(str).to_numpy()
    first = fit(sdata)
    genes = list(first.genes)
    predicted = np.full((table.n_obs, len(genes)), np.nan, dtype=np.float32)
    for group in dict.fromkeys(labels):
        inside = labels == group
        model = fit(part(sdata, dict.fromkeys(region[~inside])))
        test = part(sdata, dict.fromkeys(region[inside]))
        stp.tl.predict(test, model)
        found = test.tables["predicted"]
        known = [gene for gene in found.var_names if gene in genes]
        places = [genes.index(gene) for gene in known]
        rows = table.obs_names.get_indexer(found.obs_names)
        predicted[np.ix_(rows, places)] = found[:, known].X
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
            "groups": "section" if groups is None else groups,
            "layer": "log1p",
            "units": first.units,
            "seed": 0,
        }
    }
    regions, region_key, instance_key = get_table_keys(table)
    sdata.tables["out_of_fold"] = TableModel.parse(
        held_out, region=regions, region_key=region_key, instance_key=instance_key
    )
    return first


@pytest.fixture(scope="module")
def phantom():
    """Ten sections; the genes of the first six are predicted out of fold by ridge."""
    verbosity, stp.settings.verbosity = stp.settings.verbosity, 0
    sdata = stp.datasets.phantom(10, size_px=900, **FINE)
    stp.pp.normalize(sdata)
    sdata.tables["table"].var["selected"] = True
    stp.pp.embed(sdata, tile_um=40, n_subtiles=1)
    stp.pp.neighbors(sdata)
    training = part(sdata, TRAINING)
    model = cross_validated(training, stp.tl.fit_ridge)
    stp.settings.verbosity = verbosity
    return training, part(sdata, NEW), model


@pytest.fixture
def training(phantom):
    return _sections.copy_of(phantom[0])


@pytest.fixture
def model(phantom):
    return phantom[2]


@pytest.fixture(scope="module")
def calibrated(phantom):
    verbosity, stp.settings.verbosity = stp.settings.verbosity, 0
    found = stp.tl.calibrate(phantom[2], phantom[0], method="ridge")
    stp.settings.verbosity = verbosity
    return found


@pytest.fixture
def predicted(phantom, calibrated):
    new = _sections.copy_of(phantom[1])
    stp.tl.predict(new, calibrated)
    return new


def measured_of(sdata, genes):
    values = sdata.tables["table"][:, list(genes)].layers["log1p"]
    return np.asarray(values.toarray() if hasattr(values, "toarray") else values)


def test_intervals_hold_what_they_promise_of_groups_never_seen(predicted, calibrated):
    table = predicted.tables["predicted"]
    measured = measured_of(predicted, table.var_names)
    lower, upper = table.layers["lower"], table.layers["upper"]
    region = _sections.region_of(table)
    of_sections = [
        uncertainty.coverage(*(x[region == name] for x in (measured, lower, upper))).mean()
        for name in NEW
    ]
    assert 0.88 <= np.mean(of_sections) <= 0.92
    assert all(0.85 <= found <= 0.95 for found in of_sections)
    assert 0.88 <= calibrated.calibration.mean_coverage <= 0.92
    # narrower than what is known without the image
    spread = np.diff(np.quantile(measured, [0.05, 0.95], axis=0), axis=0)[0]
    of_tissue = predicted.tables["table"].var["planted"].isin(["morphology"]).to_numpy()
    assert np.median(((upper - lower).mean(axis=0) / spread)[of_tissue]) < 0.95


def test_the_table_has_what_is_known_of_every_value(predicted, calibrated, tmp_path):
    table = predicted.tables["predicted"]
    for name in ("lower", "upper"):
        assert table.layers[name].dtype == np.float32
        assert table.layers[name].shape == table.shape
    assert (table.layers["lower"] <= table.X).mean() > 0.99
    assert (table.layers["upper"] >= table.X).mean() > 0.99
    assert table.var["reliable"].dtype == bool
    assert table.obs["familiarity"].dtype == np.float32
    assert table.obs["familiarity"].between(0, 1).all()
    assert table.uns["stpredict"]["predict"]["level"] == 0.9
    assert "familiarity" not in predicted.tables["table"].obs
    predicted.write(tmp_path / "new.zarr")
    read = sd.read_zarr(tmp_path / "new.zarr").tables["predicted"]
    np.testing.assert_array_equal(read.layers["lower"], table.layers["lower"])
    np.testing.assert_array_equal(read.var["reliable"], table.var["reliable"])
    np.testing.assert_array_equal(read.obs["familiarity"], table.obs["familiarity"])


def test_reliable_genes_are_those_that_were_planted(calibrated, phantom):
    planted = phantom[0].tables["table"].var["planted"][list(calibrated.genes)].to_numpy()
    found = calibrated.calibration
    assert found.reliable[planted == "morphology"].all()
    assert found.reliable[planted == "neighborhood"].all()
    # counts per 10,000 are shares, so that what planted genes do moves the others a little
    assert found.reliable[planted == "null"].mean() <= 0.25
    assert found.reliability.pcc[planted == "null"].max() < 0.25


def test_new_sections_of_the_same_kind_are_familiar(predicted):
    table = predicted.tables["predicted"]
    medians = table.obs.groupby("region", observed=True)["familiarity"].median()
    assert medians.between(0.25, 0.85).all()


def test_a_restained_slide_is_foreign_and_told(phantom, calibrated):
    new = part(phantom[1], ["S7"])
    image = new.images["S7_image"]["scale0"]["image"]
    darker = (255 - (255.0 - image.to_numpy()) * [[[1.6]], [[1.0]], [[1.9]]]).clip(0, 255)
    transformations = get_transformation(new.images["S7_image"], get_all=True)
    new.images["S7_image"] = Image2DModel.parse(
        darker.astype(np.uint8),
        dims=("c", "y", "x"),
        transformations=transformations,
        scale_factors=[2],
    )
    stp.pp.embed(new, tile_um=40, n_subtiles=1)
    with pytest.warns(UserWarning, match=r"S7 \(median familiarity 0\.0\d\) look unlike.*S1, S2"):
        stp.tl.predict(new, calibrated)
    assert new.tables["predicted"].obs["familiarity"].median() < 0.05


def test_a_calibrated_model_is_saved_and_loaded(calibrated, phantom, tmp_path):
    calibrated.save(tmp_path / "model")
    loaded = stp.models.load(tmp_path / "model")
    new, again = (_sections.copy_of(phantom[1]) for _ in range(2))
    stp.tl.predict(new, calibrated)
    stp.tl.predict(again, loaded)
    one, other = new.tables["predicted"], again.tables["predicted"]
    for name in ("lower", "upper"):
        np.testing.assert_array_equal(one.layers[name], other.layers[name])
    assert one.obs.equals(other.obs)
    assert one.var.equals(other.var)
    assert loaded.calibration.coverage_of_groups == calibrated.calibration.coverage_of_groups
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    assert "intervals that are to hold 90 %" in card
    assert f"{calibrated.calibration.reliable.sum()} of 32 genes are reliable" in card
    assert "S1 9" in card or "S1 8" in card


def test_neither_the_model_nor_the_sections_are_changed(training, model):
    before = training.tables["out_of_fold"].copy()
    found = stp.tl.calibrate(model, training, method="ridge", level=0.8)
    assert model.calibration is None
    assert found.calibration.level == 0.8
    assert found.network is model.network
    after = training.tables["out_of_fold"]
    np.testing.assert_array_equal(after.layers["ridge"], before.layers["ridge"])
    assert list(after.obs) == list(before.obs)


def test_coverage_is_told(training, model, monkeypatch, capsys):
    monkeypatch.setattr(stp.settings, "verbosity", 1)
    stp.tl.calibrate(model, training, method="ridge")
    said = capsys.readouterr().out
    assert "calibrated on 'ridge': intervals at 90 % hold S1 " in said
    assert "of 32 genes are reliable" in said


def test_factors_have_no_intervals(training, phantom):
    fit = partial(stp.tl.fit_ridge, targets="svd", n_factors=3)
    three = part(training, TRAINING[:3])
    model = stp.tl.calibrate(cross_validated(three, fit), three, method="ridge")
    new = _sections.copy_of(phantom[1])
    stp.tl.predict(new, model, space="factors")
    table = new.tables["predicted"]
    assert not {"lower", "upper"} & set(table.layers)
    assert "reliable" not in table.var
    assert "familiarity" not in table.obs


def test_genes_that_folds_did_not_choose_have_no_intervals(training, model, phantom):
    held_out = training.tables["out_of_fold"]
    held_out.layers["ridge"][:, 0] = np.nan
    held_out.layers["ridge"][held_out.obs["fold"] != "S1", 1] = np.nan
    found = stp.tl.calibrate(model, training, method="ridge").calibration
    np.testing.assert_array_equal(found.intervals.available[:3], [False, False, True])
    assert not found.reliable[:2].any()
    new = _sections.copy_of(phantom[1])
    stp.tl.predict(new, replace(model, calibration=found))
    table = new.tables["predicted"]
    assert np.isnan(table.layers["lower"][:, :2]).all()
    assert np.isfinite(table.layers["lower"][:, 2:]).all()


def test_genes_may_come_in_another_order_or_be_absent(training, model):
    whole = stp.tl.calibrate(model, training, method="ridge").calibration
    held_out = training.tables["out_of_fold"]
    training.tables["out_of_fold"] = held_out[
        :, held_out.var_names[:0:-1]
    ].copy()  # without the first
    found = stp.tl.calibrate(model, training, method="ridge").calibration
    np.testing.assert_array_equal(found.intervals.lower[1:], whole.intervals.lower[1:])
    assert not found.intervals.available[0]


def test_a_fold_in_which_the_method_failed_is_left_out(training, model):
    held_out = training.tables["out_of_fold"]
    held_out.layers["ridge"][(held_out.obs["fold"] == "S3").to_numpy()] = np.nan
    found = stp.tl.calibrate(model, training, method="ridge").calibration
    assert found.intervals.available.all()
    assert np.isnan(found.coverage_of_groups["S3"])
    assert 0.85 < found.mean_coverage < 0.95


def test_what_cross_validation_writes_is_read(training):
    three = part(training, TRAINING[:3])
    stp.pp.select_genes(three, n_top_genes=14)  # anew in every fold
    stp.tl.cross_validate(three, {"svd": partial(stp.tl.fit_ridge, targets="svd", n_factors=3)})
    model = stp.tl.fit_ridge(three, targets="svd", n_factors=3)
    found = stp.tl.calibrate(model, three, method="svd").calibration
    assert found.groups == ("P1", "P2", "P3")
    assert found.method == "svd"
    assert 0.85 < found.mean_coverage < 0.95
    n_folds = three.tables["out_of_fold"].var["n_folds"].reindex(model.genes, fill_value=0)
    np.testing.assert_array_equal(found.intervals.available, n_folds >= 2)
    planted = np.array([not gene.startswith("null") for gene in model.genes])
    np.testing.assert_array_equal(found.reliable, planted & found.intervals.available)


def test_groups_of_a_column_are_left_out_together(training):
    table = training.tables["table"]
    table.obs["block"] = np.where(table.obs["region"].isin(["S1", "S2"]), "a", "b")
    model = cross_validated(training, stp.tl.fit_ridge, groups="block")
    found = stp.tl.calibrate(model, training, method="ridge").calibration
    assert found.groups == ("a", "b")


def test_a_stack_and_a_model_on_pixels_know_what_is_familiar(training, model, phantom):
    two = part(training, TRAINING[:2])

    def stack(sdata):
        bases = {"one": stp.tl.fit_ridge, "two": partial(stp.tl.fit_ridge, context="spot")}
        return stp.tl.fit_stacking(sdata, bases, meta="mean")

    def pixels(sdata):
        return stp.tl.fit_cnn(sdata, tile_um=40, tile_px=16, max_epochs=1)

    cross_validated(two, stp.tl.fit_ridge)  # whose errors they are does not matter here
    for fit in (stack, pixels):
        found = stp.tl.calibrate(fit(two), two, method="ridge")
        new = part(phantom[1], ["S7"])
        stp.tl.predict(new, found)
        assert 0.2 < new.tables["predicted"].obs["familiarity"].median() < 0.9


def test_a_finetuned_model_has_to_be_calibrated_again(training, phantom):
    one = part(training, TRAINING[:2])
    model = stp.tl.fit_deepspot(one, n_hidden=4, n_phi=1, n_rho=1, max_epochs=1)
    cross_validated(one, stp.tl.fit_ridge)
    known = stp.tl.calibrate(model, one, method="ridge")
    assert stp.tl.finetune(known, one, max_epochs=1).calibration is None


class TestBadInput:
    """Each is told before anything is written; there is nothing that is written."""

    def refused(self, error, message, sdata, model, **options):
        with pytest.raises(error, match=message):
            stp.tl.calibrate(model, sdata, **{"method": "ridge", **options})

    def test_no_cross_validation(self, training, model):
        del training.tables["out_of_fold"]
        self.refused(KeyError, r"no tables\['out_of_fold'\].*cross_validate", training, model)

    def test_a_table_of_something_else(self, training, model):
        del training.tables["out_of_fold"].uns["stpredict"]
        self.refused(ValueError, "not written by stp.tl.cross_validate", training, model)

    def test_a_method_that_was_not_validated(self, training, model):
        self.refused(KeyError, "'trees' was not.*there are: ridge", training, model, method="trees")

    def test_a_split_that_leaks(self, training, model):
        training.tables["out_of_fold"].uns["stpredict"]["cross_validate"]["leaky"] = True
        self.refused(ValueError, "leaks a group", training, model)

    def test_other_rows(self, training, model):
        held_out = training.tables["out_of_fold"]
        training.tables["out_of_fold"] = held_out[1:].copy()
        self.refused(ValueError, "has other rows than the table", training, model)

    def test_other_sections(self, phantom, training):
        model = stp.tl.fit_ridge(part(training, ["S1", "S2"]))
        self.refused(
            ValueError, "trained on S1, S2, but cross-validated were S1, S2, S3", training, model
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
        training.tables["out_of_fold"].uns["stpredict"]["cross_validate"]["groups"] = "all"
        self.refused(ValueError, "one group only, 'everyone'", training, model)

    def test_nan_in_some_rows_of_a_fold(self, training, model):
        training.tables["out_of_fold"].layers["ridge"][3, :2] = np.nan
        self.refused(
            ValueError, "in fold 'S1', 2 genes are predicted in some rows", training, model
        )

    def test_measured_values_that_are_not_there(self, training, model):
        training.tables["out_of_fold"].X[7, 1] = np.nan
        self.refused(ValueError, r"X is NaN or infinite at 1 of the predicted", training, model)

    def test_infinite_predictions(self, training, model):
        training.tables["out_of_fold"].layers["ridge"][3, 2] = np.inf
        self.refused(ValueError, "1 predictions of 'ridge' are infinite", training, model)

    def test_genes_predicted_in_one_group_only(self, training, model):
        held_out = training.tables["out_of_fold"]
        held_out.layers["ridge"][(held_out.obs["fold"] != "S3").to_numpy()] = np.nan
        self.refused(ValueError, "no gene was predicted in two groups", training, model)

    def test_too_few_rows_for_the_level(self, training, model):
        self.refused(ValueError, "needs at least 1999 held-out rows", training, model, level=0.999)

    def test_too_few_rows_beside_a_group(self, training, model):
        n = training.tables["table"].n_obs
        level = 1 - 2 / (n - 5)
        self.refused(ValueError, "without group 'S1'", training, model, level=level)

    @pytest.mark.parametrize("level", [0, 1, 90, "0.9", True])
    def test_a_level_that_is_none(self, training, model, level):
        self.refused(ValueError, "between 0 and 1", training, model, level=level)

    def test_embeddings_that_are_gone(self, training, model):
        del training.tables["table"].obsm["X_texture"]
        self.refused(KeyError, "X_texture", training, model)
