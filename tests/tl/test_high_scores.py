"""High or low expression in cross-validation, tuning, stacks and evaluation."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import spatialdata as sd
from scipy.special import expit, logit
from sklearn.metrics import average_precision_score, roc_auc_score

import stpredict as stp
from helpers import only, prepared_phantom
from stpredict._sdata._spot_table import copy_of, open_table

HIGH = functools.partial(stp.tl.fit_ridge, targets="high")
SPOT = functools.partial(HIGH, context="spot")
NAMES = ["S1", "S2", "S3"]
QUICK = stp.tl.Schedule(max_epochs=2, monitor="loss")


def rare(sdata):
    return HIGH(sdata, quantile=0.8)


@pytest.fixture(scope="module")
def sections():
    design = {"size_px": 800, "n_morphology": 3, "n_neighborhood": 1, "n_null": 2}
    return prepared_phantom(3, design, select={"n_top_genes": 6}, encoder="texture")


@pytest.fixture(scope="module")
def validated(sections):
    sdata = copy_of(sections)
    return sdata, stp.tl.cross_validate(sdata, {"rare": rare})


def high_without(sdata, section, quantile):
    """Whether genes of a section are above a quantile of the others, straight from the layer."""
    names = open_table(sdata, "table").section_of_row
    values = sdata["table"].layers["log1p"].toarray()
    threshold = np.quantile(values[names != section], quantile, axis=0, method="lower")
    return (values[names == section] > threshold).astype(float)


def test_held_out_rows_are_scored_at_the_threshold_of_the_other_sections(validated):
    sdata, scores = validated
    out_of_fold = sdata["out_of_fold"]
    names = open_table(sdata, "out_of_fold").section_of_row
    auc, precision = scores.values("auc"), scores.values("average_precision")
    assert scores.protocol.units.startswith("probability of high")
    for section in NAMES:
        is_high = high_without(sdata, section, 0.8)
        np.testing.assert_array_equal(out_of_fold.X[names == section], is_high)
        predicted = out_of_fold.layers["rare"][names == section]
        for place, gene in enumerate(out_of_fold.var_names):
            key = (slice(None), section, gene)
            pair = is_high[:, place], predicted[:, place]
            assert auc.loc[key, "rare"].item() == pytest.approx(roc_auc_score(*pair))
            expected = average_precision_score(*pair)
            assert precision.loc[key, "rare"].item() == pytest.approx(expected)
            # chance is what the training mean scores, which is equal for all spots
            assert auc.loc[key, "training_mean"].item() == 0.5
            share = is_high[:, place].mean()
            assert precision.loc[key, "training_mean"].item() == pytest.approx(share)


def test_planted_genes_score_above_their_nulls_and_others_do_not(validated):
    sdata, scores = validated
    by_gene = scores.genes("rare")
    planted = sdata["table"].var["planted"].astype(str).reindex(by_gene.index)
    morphology, null = by_gene[planted == "morphology"], by_gene[planted == "null"]
    assert (morphology["auc"] > 0.8).all()
    assert (morphology["auc"] > morphology["auc_spatial_null"] + 0.2).all()
    nulls = morphology["average_precision_spatial_null"]
    assert (morphology["average_precision"] > nulls + 0.2).all()
    assert (np.abs(null["auc"] - 0.5) < 0.15).all()  # counts of other genes dilute them
    assert np.abs(by_gene["auc_shuffled"] - 0.5).max() < 0.05


def test_the_baseline_learns_whether_the_same_genes_are_high(validated):
    sdata, scores = validated
    predicted = sdata["out_of_fold"].layers["tuned_ridge"]
    assert 0 <= predicted.min() < predicted.max() <= 1
    assert scores.baselines == ("tuned_ridge",)
    # the shares of high spots in training are near 1 - quantile, for genes without ties
    assert predicted.mean() == pytest.approx(0.2, abs=0.05)
    assert "average_precision" in repr(scores)


def test_predictions_of_a_loaded_model_read_from_zarr_have_the_same_scores(sections, tmp_path):
    model = HIGH(only(sections, NAMES[:2]))
    model.save(tmp_path / "model")
    new = only(sections, ["S3"])
    stp.tl.predict(new, stp.models.load(tmp_path / "model"))
    again = stp.tl.predict(new, model, copy=True)["predicted"].X
    np.testing.assert_array_equal(new["predicted"].X, again)
    scores = stp.tl.evaluate(new)
    new.write(tmp_path / "new.zarr")
    read = stp.tl.evaluate(sd.read_zarr(tmp_path / "new.zarr"))
    for metric in ("auc", "average_precision", "auc_spatial_null"):
        np.testing.assert_array_equal(scores.values(metric), read.values(metric))
    assert scores.summary().loc["predicted", "auc"] > 0.6
    assert scores.summary().loc["training_mean", "auc"] == 0.5


def test_tables_with_other_thresholds_are_not_compared(sections):
    new = only(sections, ["S3"])
    stp.tl.predict(new, HIGH(only(sections, ["S1", "S2"])), key_added="two")
    stp.tl.predict(new, SPOT(only(sections, ["S1", "S2"])), key_added="spot")
    stp.tl.predict(new, HIGH(only(sections, ["S1", "S2"]), quantile=0.7), key_added="rare")
    assert stp.tl.evaluate(new, ["two", "spot"]).methods == ("two", "spot")
    message = "'two' and 'rare' call genes high above different thresholds"
    with pytest.raises(ValueError, match=message):
        stp.tl.evaluate(new, ["two", "rare"])


def test_the_candidate_with_the_highest_auc_is_fitted(sections):
    def noise(sdata):
        values = np.random.default_rng(0).normal(size=(sdata["table"].n_obs, 5))
        sdata["table"].obsm["noise"] = values.astype(np.float32)
        return SPOT(sdata, alpha=1e9)

    sdata = copy_of(sections)
    model = stp.tl.fit_tuned(sdata, {"strong": noise, "ridge": SPOT})
    assert list(model.training.tuned) == ["ridge", "strong"]
    scores = stp.tl.cross_validate(sdata, {"ridge": SPOT})
    by_section = scores.values("auc", methods=["ridge"]).groupby("section").mean()["ridge"]
    assert model.training.tuned["ridge"] == pytest.approx(by_section.mean())


@pytest.mark.parametrize("meta", ["mean", "ridge", "mlp"])
def test_a_stack_combines_log_odds_and_predicts_probabilities(sections, tmp_path, meta):
    training, new = only(sections, NAMES[:2]), only(sections, ["S3"])
    bases = {"ridge": HIGH, "spot": SPOT}
    stack = stp.tl.fit_stacking(training, bases, meta=meta, schedule=QUICK, device="cpu")
    expected = stp.tl.fit_ridge(training, targets="high").targets.threshold
    np.testing.assert_array_equal(stack.targets.threshold, expected)
    stp.tl.predict(new, stack)
    predicted = new["predicted"].X
    assert 0 <= predicted.min() < predicted.max() <= 1
    stack.save(tmp_path / "stack")
    loaded = stp.models.load(tmp_path / "stack")
    again = stp.tl.predict(new, loaded, copy=True)["predicted"].X
    np.testing.assert_array_equal(predicted, again)
    if meta == "mean":
        each = [stp.tl.predict(new, one, copy=True)["predicted"].X for one in stack.bases.values()]
        mean = expit(np.mean([logit(values.astype(float)) for values in each], axis=0))
        np.testing.assert_allclose(predicted, mean, atol=1e-5)
        np.testing.assert_allclose(new["predicted"].layers["std"], np.std(each, 0), atol=1e-5)
    scores = stp.tl.evaluate(new)
    assert scores.values("auc")["predicted"].max() > 0.8


EXPRESSION = stp.tl.fit_ridge


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            lambda sdata: stp.tl.cross_validate(sdata, {"a": HIGH, "b": EXPRESSION}),
            "methods must predict in the same units",
        ),
        (
            lambda sdata: stp.tl.cross_validate(sdata, {"a": HIGH, "b": rare}),
            r"the scores of a \(quantile 0.5\), b \(quantile 0.8\) cannot be compared: give all",
        ),
        (
            lambda sdata: stp.tl.fit_tuned(sdata, {"a": EXPRESSION, "b": HIGH}),
            r"the scores of a \(values\), b \(quantile 0.5\) cannot be compared",
        ),
        (
            lambda sdata: stp.tl.fit_stacking(sdata, {"a": EXPRESSION, "b": HIGH}),
            "the bases must predict in the same units",
        ),
        (
            lambda sdata: stp.tl.fit_stacking(sdata, {"a": HIGH, "b": rare}),
            "the bases must have the same quantile=, but 'b' has 0.8 and 'a' 0.5",
        ),
        (
            lambda sdata: stp.tl.calibrate(sdata, HIGH(sdata)),
            "probabilities of high expression, which have no intervals",
        ),
    ],
)
def test_what_cannot_be_compared_or_combined_is_refused(sections, function, message):
    sdata = only(sections, ["S1", "S2"])
    before = set(sdata.tables)
    with pytest.raises(ValueError, match=message):
        function(sdata)
    assert set(sdata.tables) == before


def test_a_network_on_pixels_takes_a_quantile(sections):
    sdata = only(sections, ["S1", "S2"])
    network, schedule = stp.tl.CNNNetwork(tile_px=16), stp.tl.Schedule(max_epochs=1)
    options = {"tile_um": 40, "network": network, "schedule": schedule, "device": "cpu"}
    model = stp.tl.fit_cnn(sdata, targets="high", quantile=0.7, **options)
    values = sdata["table"][:, list(model.genes)].layers["log1p"].toarray()
    expected = np.quantile(values, 0.7, axis=0, method="lower").astype(np.float32)
    np.testing.assert_array_equal(model.targets.threshold, expected)
    with pytest.raises(ValueError, match=r"quantile=0.7 is only for targets=.high"):
        stp.tl.fit_cnn(sdata, quantile=0.7, **options)
