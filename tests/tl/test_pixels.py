"""Networks on pixels recover planted genes, stream their predictions, and refuse bad input."""

from __future__ import annotations

import inspect
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import stpredict as stp
from stpredict import metrics
from stpredict._sdata._pixels import stream_tiles
from stpredict._sdata._spot_table import copy_of, open_table
from stpredict._sdata._steps import TilesStep
from stpredict.nn import TileCNN
from stpredict.tl import Augmentation, CNNNetwork, MultiScaleNetwork, Schedule

FINE = {"mpp": 1.0, "pitch_um": 40.0}
#: As by default, but short.
CNN_SCHEDULE = Schedule(max_epochs=1, patience=5, batch_size=32, weight_decay=1e-4, monitor="loss")
MULTISCALE_SCHEDULE = Schedule(
    max_epochs=1, batch_size=32, weight_decay=1e-3, decay="cosine", monitor="spearman"
)
MULTISCALE = MultiScaleNetwork(tile_px=36, widths=(4, 4, 8, 8), n_tile=8, n_subtile=8)


def fit_cnn(sdata, **options):
    defaults = {"network": CNNNetwork(tile_px=32), "schedule": CNN_SCHEDULE, "tile_um": 40.0}
    return stp.tl.fit_cnn(sdata, **defaults | options, device="cpu")


def fit_multiscale(sdata, **options):
    defaults = {"network": MULTISCALE, "schedule": MULTISCALE_SCHEDULE, "tile_um": 40.0}
    return stp.tl.fit_multiscale(sdata, **defaults | options, device="cpu")


METHODS = {"cnn": fit_cnn, "multiscale": fit_multiscale}
every_method = pytest.mark.parametrize("method", METHODS)


def only(sdata, names):
    return sdata.subset([element for name in names for element in (name, f"{name}_image")])


def prepared(n_sections, **options):
    sdata = stp.datasets.phantom(
        n_sections, **{**FINE, "n_morphology": 4, "n_neighborhood": 1, "n_null": 2, **options}
    )
    stp.pp.normalize(sdata)
    stp.pp.select_genes(sdata, list(sdata.tables["table"].var_names))
    return sdata


@pytest.fixture(scope="module")
def two_sections():
    sdata = prepared(2, size_px=400)
    return sdata


@pytest.fixture
def sdata(two_sections):
    return copy_of(two_sections)


# ---- recovery ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def held_out():
    """Three training sections, and one held out."""
    sdata = prepared(4, size_px=600)
    return only(sdata, ["S1", "S2", "S3"]), only(sdata, ["S4"])


@pytest.mark.parametrize(
    ("method", "options", "least"),
    [
        (
            "cnn",
            {
                "network": CNNNetwork(tile_px=40),
                "schedule": replace(CNN_SCHEDULE, learning_rate=3e-3, max_epochs=5),
            },
            0.6,
        ),
        (
            "multiscale",
            {
                "network": replace(MULTISCALE, widths=(4, 8, 8, 16), n_tile=16),
                "schedule": replace(MULTISCALE_SCHEDULE, learning_rate=3e-3, max_epochs=4),
            },
            0.5,
        ),
    ],
)
def test_planted_morphology_is_recovered_in_a_new_section(held_out, method, options, least):
    train, test = held_out
    test = copy_of(test)
    model = METHODS[method](train, augmentation=Augmentation(flip=True, rotate=True), **options)
    stp.pp.prepare(test, model)
    stp.tl.predict(test, model, device="cpu")
    table, predicted = test.tables["table"], test.tables["predicted"]
    of_morphology = (table.var["planted"] == "morphology").to_numpy()
    pcc = metrics.pcc(table.layers["expected"], np.asarray(predicted.X))
    assert pcc[of_morphology].mean() > least
    measured = np.asarray(table.layers["log1p"].todense())
    error = metrics.rmse(measured, np.asarray(predicted.X))
    by_mean = metrics.rmse(
        measured, np.broadcast_to(predicted.var["training_mean"].to_numpy(), measured.shape)
    )
    assert error[of_morphology].mean() < 0.9 * by_mean[of_morphology].mean()


# ---- contract ------------------------------------------------------------------------------


@every_method
def test_a_loaded_model_predicts_identically(sdata, method, tmp_path):
    before = sdata.tables["table"].copy()
    model = METHODS[method](sdata)
    assert sdata.tables["table"].uns.keys() == before.uns.keys()
    assert list(sdata.tables) == ["table"]
    model.save(tmp_path / "model")
    loaded = stp.models.load(tmp_path / "model")
    assert loaded.recipe == model.recipe
    assert loaded.recipe.tiles == TilesStep(tile_um=40.0, tile_px=32 if method == "cnn" else 36)
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    assert "- tiles: pixels of 40 µm at" in card
    predictions = []
    for each in (model, loaded):
        stp.tl.predict(sdata, each, device="cpu")
        predictions.append(sdata.tables["predicted"].X)
    np.testing.assert_array_equal(*predictions)
    assert np.isfinite(predictions[0]).all()
    assert stp.tl.evaluate(sdata).leaky


@every_method
def test_the_same_seed_gives_the_same_model(sdata, method):
    models = (METHODS[method](sdata, seed=seed) for seed in (1, 1, 2))
    state = [model.network.state_dict() for model in models]
    assert all(torch.equal(state[0][k], state[1][k]) for k in state[0])
    assert any(not torch.equal(state[0][k], state[2][k]) for k in state[0])


@every_method
def test_streamed_tiles_and_an_array_give_the_same_predictions(sdata, method):
    model = METHODS[method](sdata)
    stp.tl.predict(sdata, model, device="cpu")
    spots, step = open_table(sdata), model.recipe.tiles
    tiles = np.empty((spots.table.n_obs, 3, step.tile_px, step.tile_px), dtype=np.uint8)
    for rows, batch in stream_tiles(spots.sections, step, description=""):
        tiles[rows] = batch.numpy()
    direct = model.predict_array(tiles, device="cpu")
    np.testing.assert_allclose(sdata.tables["predicted"].X, direct, rtol=1e-4, atol=1e-5)


def test_averaging_over_symmetries_is_part_of_the_model(sdata, tmp_path):
    model = fit_cnn(sdata, average_symmetries=True, schedule=replace(CNN_SCHEDULE, max_epochs=2))
    model.save(tmp_path / "model")
    model = stp.models.load(tmp_path / "model")
    px = 32
    tiles = np.random.default_rng(0).integers(0, 256, (3, 3, px, px), dtype=np.uint8)
    turned = np.ascontiguousarray(np.rot90(tiles, axes=(2, 3)))
    averaged = model.predict_array(tiles, device="cpu")
    np.testing.assert_allclose(
        averaged, model.predict_array(turned, device="cpu"), rtol=1e-4, atol=1e-5
    )
    plain = replace(model, hyperparameters=replace(model.hyperparameters, average_symmetries=False))
    single = plain.predict_array(tiles, device="cpu")
    assert not np.allclose(single, plain.predict_array(turned, device="cpu"), atol=1e-7)


@pytest.mark.parametrize(
    "options", [{"genes": ["morphology_1"]}, {"targets": "svd", "n_factors": 2}]
)
def test_one_gene_or_factors_are_learnt(sdata, options):
    table = sdata.tables["table"]
    if "genes" in options:
        options = {"genes": [table.var_names[0]]}
    model = fit_cnn(sdata, **options)
    stp.tl.predict(sdata, model, device="cpu")
    assert list(sdata.tables["predicted"].var_names) == options.get(
        "genes", table.var_names.tolist()
    )


def test_training_starts_from_pretrained_weights(sdata, tmp_path):
    torch.manual_seed(0)
    published = TileCNN(1, backbone="test_resnet", tile_px=32).backbone
    save_file(published.state_dict(), tmp_path / "weights.safetensors")
    model = fit_cnn(
        sdata,
        network=CNNNetwork("test_resnet", tile_px=32, trainable=1),
        pretrained=tmp_path / "weights.safetensors",
    )
    before, after = published.state_dict(), model.network.backbone.state_dict()
    unchanged = {name for name in before if torch.equal(before[name], after[name])}
    assert unchanged == {name for name in before if not name.startswith("layer4.")}
    assert model.hyperparameters.pretrained is True
    model.save(tmp_path / "model")
    loaded = stp.models.load(tmp_path / "model")  # without the file of weights
    state = loaded.network.backbone.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in state.items())


def test_multiscale_stops_early_by_rank_correlation_on_a_cosine():
    schedule = inspect.signature(stp.tl.fit_multiscale).parameters["schedule"].default
    assert schedule == replace(MULTISCALE_SCHEDULE, max_epochs=schedule.max_epochs)


# ---- stain ---------------------------------------------------------------------------------


def test_a_model_of_normalised_images_refuses_raw_ones(sdata):
    raw = copy_of(sdata)
    stp.pp.normalize_stain(sdata, method="reinhard")
    model = fit_cnn(sdata)
    assert model.recipe.tiles.stain.method == "reinhard"
    with pytest.raises(ValueError, match=r"the images are raw.*stp\.pp\.prepare"):
        stp.tl.predict(raw, model)
    assert "predicted" not in raw.tables
    stp.pp.prepare(raw, model)
    stp.tl.predict(raw, model, device="cpu")
    stp.tl.predict(sdata, model, device="cpu")
    np.testing.assert_allclose(
        raw.tables["predicted"].X, sdata.tables["predicted"].X, rtol=1e-4, atol=1e-5
    )


def test_a_model_of_raw_images_ignores_normalised_ones(sdata):
    model = fit_cnn(sdata)
    stp.tl.predict(sdata, model, device="cpu")
    expected = sdata.tables["predicted"].X
    stp.pp.normalize_stain(sdata, method="reinhard")
    stp.tl.predict(sdata, model, device="cpu")
    assert np.array_equal(sdata.tables["predicted"].X, expected)


# ---- bad input -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "options", "error", "message"),
    [
        (
            "cnn",
            {"network": CNNNetwork(tile_px=8)},
            ValueError,
            "8 px is too small for 'small'.*16 px",
        ),
        (
            "multiscale",
            {"network": replace(MULTISCALE, tile_px=30)},
            ValueError,
            "30 px is too small for 3 × 3 sub-tiles",
        ),
        ("cnn", {"tile_um": -1.0}, ValueError, "tile_um"),
        ("cnn", {"tile_um": 1000.0}, ValueError, "larger than the image of section 'S1'"),
        ("cnn", {"network": CNNNetwork("resnet17")}, KeyError, "No backbone 'resnet17'"),
        ("cnn", {"network": CNNNetwork(trainable=1)}, ValueError, "freezes .* random weights"),
        ("cnn", {"pretrained": True}, ValueError, "'small' has no published weights"),
        (
            "cnn",
            {"network": CNNNetwork("test_resnet", 32), "pretrained": "missing.safetensors"},
            FileNotFoundError,
            "missing.safetensors",
        ),
        ("cnn", {"augmentation": None}, TypeError, "augmentation must be an Augmentation"),
        ("multiscale", {"genes": ["MORPH"]}, ValueError, "monitor='spearman'"),
        ("cnn", {"layer": "missing"}, KeyError, "missing"),
        ("cnn", {"loss": "msee"}, (KeyError, ValueError), "mse"),
        ("cnn", {"sample_weight": "missing"}, KeyError, "missing"),
    ],
)
def test_bad_input_is_refused_and_changes_nothing(sdata, method, options, error, message):
    if options.get("genes"):
        options = {"genes": [sdata.tables["table"].var_names[0]]}
    before = (list(sdata.tables), sorted(sdata.tables["table"].uns), sorted(sdata.images))
    with pytest.raises(error, match=message):
        METHODS[method](sdata, **options)
    assert (list(sdata.tables), sorted(sdata.tables["table"].uns), sorted(sdata.images)) == before


def test_wrong_tiles_are_refused(sdata):
    model = fit_cnn(sdata)
    with pytest.raises(TypeError, match="uint8, not float64"):
        model.predict_array(np.zeros((2, 3, 32, 32)))
    with pytest.raises(ValueError, match="8 px is too small"):
        model.predict_array(np.zeros((2, 3, 8, 8), dtype=np.uint8))
