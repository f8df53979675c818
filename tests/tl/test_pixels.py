"""Networks on pixels find what is planted, stream what they predict, and tell bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import stpredict as stp
from stpredict import metrics
from stpredict._sdata import _pixels, _sections
from stpredict.nn import TileCNN
from stpredict.tl import Augmentation

FINE = {"mpp": 1.0, "pitch_um": 40.0}
TINY_NET = {"tile_um": 40.0, "max_epochs": 1, "device": "cpu"}
DOORS = {
    "cnn": lambda sdata, **options: stp.tl.fit_cnn(sdata, **{**TINY_NET, "tile_px": 32, **options}),
    "multiscale": lambda sdata, **options: stp.tl.fit_multiscale(
        sdata,
        **{
            **TINY_NET,
            "tile_px": 36,
            "widths": (4, 4, 8, 8),
            "n_tile": 8,
            "n_subtile": 8,
            **options,
        },
    ),
}
every_door = pytest.mark.parametrize("door", DOORS)


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
    ("door", "options", "least"),
    [
        ("cnn", {"tile_px": 40, "learning_rate": 3e-3, "max_epochs": 5}, 0.6),
        (
            "multiscale",
            {"widths": (4, 8, 8, 16), "n_tile": 16, "max_epochs": 4, "learning_rate": 3e-3},
            0.5,
        ),
    ],
)
def test_planted_morphology_is_found_in_a_section_never_seen(held_out, door, options, least):
    train, test = held_out
    test = copy_of(test)
    model = DOORS[door](train, augmentation=Augmentation(flip=True, rotate=True), **options)
    stp.pp.prepare(test, model)
    stp.tl.predict(test, model, device="cpu")
    table, predicted = test.tables["table"], test.tables["predicted"]
    of_morphology = (table.var["planted"] == "morphology").to_numpy()
    found = metrics.pcc(table.layers["expected"], np.asarray(predicted.X))
    assert found[of_morphology].mean() > least
    ridge = metrics.pcc(table.layers["expected"], predicted.layers["ridge"])
    assert ridge[of_morphology].mean() > 0.4
    measured = np.asarray(table.layers["log1p"].todense())
    error = metrics.rmse(measured, np.asarray(predicted.X))
    by_mean = metrics.rmse(
        measured, np.broadcast_to(predicted.var["training_mean"].to_numpy(), measured.shape)
    )
    assert error[of_morphology].mean() < 0.9 * by_mean[of_morphology].mean()


# ---- contract ------------------------------------------------------------------------------


@every_door
def test_saved_loaded_and_predicted_bit_by_bit(sdata, door, tmp_path):
    before = sdata.tables["table"].copy()
    model = DOORS[door](sdata)
    assert sdata.tables["table"].uns.keys() == before.uns.keys()
    assert list(sdata.tables) == ["table"]
    model.save(tmp_path / "model")
    again = stp.models.load(tmp_path / "model")
    assert again.recipe == model.recipe
    assert again.recipe["tiles"] == {"tile_um": 40.0, "tile_px": 32 if door == "cnn" else 36}
    assert "pixels: tiles of 40 µm" in (tmp_path / "model" / "README.md").read_text()
    predictions = []
    for each in (model, again):
        stp.tl.predict(sdata, each, device="cpu")
        predictions.append(sdata.tables["predicted"])
    assert np.array_equal(predictions[0].X, predictions[1].X)
    assert np.array_equal(predictions[0].layers["ridge"], predictions[1].layers["ridge"])
    assert np.isfinite(predictions[0].layers["ridge"]).all()
    scores = stp.tl.evaluate(sdata)
    assert "ridge" in scores.attrs["summary"]


@every_door
def test_same_seed_same_model(sdata, door):
    first, again, other = (DOORS[door](sdata, seed=seed) for seed in (1, 1, 2))
    state = [model.network.state_dict() for model in (first, again, other)]
    assert all(torch.equal(state[0][k], state[1][k]) for k in state[0])
    assert any(not torch.equal(state[0][k], state[2][k]) for k in state[0])


@every_door
def test_a_stream_predicts_what_the_tiles_themselves_do(sdata, door):
    model = DOORS[door](sdata)
    stp.tl.predict(sdata, model, device="cpu")
    found = _sections.sections(sdata)
    n = sdata.tables["table"].n_obs
    px = model.recipe["tiles"]["tile_px"]
    tiles = np.empty((n, 3, px, px), dtype=np.uint8)
    for rows, batch in _pixels.stream(found, model.recipe["tiles"], description=""):
        tiles[rows] = batch.numpy()
    direct = model.predict_array(tiles, device="cpu")
    np.testing.assert_allclose(sdata.tables["predicted"].X, direct, rtol=1e-4, atol=1e-5)


def test_averaging_over_symmetries_is_part_of_the_model(sdata, tmp_path):
    model = DOORS["cnn"](sdata, average_symmetries=True, max_epochs=2)
    model.save(tmp_path / "model")
    model = stp.models.load(tmp_path / "model")
    px = 32
    tiles = np.random.default_rng(0).integers(0, 256, (3, 3, px, px), dtype=np.uint8)
    turned = np.ascontiguousarray(np.rot90(tiles, axes=(2, 3)))
    averaged = model.predict_array(tiles, device="cpu")
    np.testing.assert_allclose(
        averaged, model.predict_array(turned, device="cpu"), rtol=1e-4, atol=1e-5
    )
    model.hyperparameters["average_symmetries"] = False
    plain = model.predict_array(tiles, device="cpu")
    assert not np.allclose(plain, model.predict_array(turned, device="cpu"), atol=1e-7)


@pytest.mark.parametrize(
    "options", [{"genes": ["morphology_1"]}, {"targets": "svd", "n_factors": 2}]
)
def test_one_gene_or_factors(sdata, options):
    table = sdata.tables["table"]
    if "genes" in options:
        options = {"genes": [table.var_names[0]]}
    model = DOORS["cnn"](sdata, **options)
    stp.tl.predict(sdata, model, device="cpu")
    assert list(sdata.tables["predicted"].var_names) == options.get(
        "genes", table.var_names.tolist()
    )


def test_pretrained_weights_are_where_training_starts(sdata, tmp_path):
    torch.manual_seed(0)
    published = TileCNN(1, backbone="test_resnet", tile_px=32).backbone
    save_file(published.state_dict(), tmp_path / "weights.safetensors")
    model = DOORS["cnn"](
        sdata,
        backbone="test_resnet",
        pretrained=tmp_path / "weights.safetensors",
        trainable=1,
    )
    wanted, found = published.state_dict(), model.network.backbone.state_dict()
    same = {k for k in wanted if torch.equal(wanted[k], found[k])}
    assert same == {k for k in wanted if not k.startswith("layer4.")}
    assert model.hyperparameters["pretrained"] is True
    model.save(tmp_path / "model")
    again = stp.models.load(tmp_path / "model")  # without the file of weights
    assert all(torch.equal(found[k], v) for k, v in again.network.backbone.state_dict().items())


def test_multiscale_stops_early_by_rank_correlation_on_a_cosine(sdata):
    model = DOORS["multiscale"](sdata, max_epochs=2)
    assert model.hyperparameters["monitor"] == "spearman"
    assert model.hyperparameters["decay"] == "cosine"


# ---- stain ---------------------------------------------------------------------------------


def test_a_model_of_normalised_stain_wants_it(sdata):
    raw = copy_of(sdata)
    stp.pp.normalize_stain(sdata, method="reinhard")
    model = DOORS["cnn"](sdata)
    assert model.recipe["tiles"]["stain"]["method"] == "reinhard"
    with pytest.raises(ValueError, match=r"its images are raw.*stp\.pp\.prepare"):
        stp.tl.predict(raw, model)
    assert "predicted" not in raw.tables
    stp.pp.prepare(raw, model)
    stp.tl.predict(raw, model, device="cpu")
    stp.tl.predict(sdata, model, device="cpu")
    np.testing.assert_allclose(
        raw.tables["predicted"].X, sdata.tables["predicted"].X, rtol=1e-4, atol=1e-5
    )


def test_a_model_of_raw_images_reads_raw_images(sdata):
    model = DOORS["cnn"](sdata)
    stp.tl.predict(sdata, model, device="cpu")
    wanted = sdata.tables["predicted"].X
    stp.pp.normalize_stain(sdata, method="reinhard")
    stp.tl.predict(sdata, model, device="cpu")
    assert np.array_equal(sdata.tables["predicted"].X, wanted)


# ---- bad input -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("door", "options", "error", "message"),
    [
        ("cnn", {"tile_px": 8}, ValueError, "8 px is too small for 'small', .* at least 16 px"),
        ("multiscale", {"tile_px": 30}, ValueError, "30 px is too small for 3 × 3 sub-tiles"),
        ("cnn", {"tile_um": -1.0}, ValueError, "tile_um"),
        ("cnn", {"tile_um": 1000.0}, ValueError, "larger than the image of section 'S1'"),
        ("cnn", {"backbone": "resnet17"}, KeyError, "No backbone 'resnet17'"),
        ("cnn", {"trainable": 1}, ValueError, "trainable=1 freezes .* random numbers"),
        ("cnn", {"pretrained": True}, ValueError, "'small' has no published weights"),
        (
            "cnn",
            {"backbone": "test_resnet", "pretrained": "nothing.safetensors"},
            FileNotFoundError,
            "nothing.safetensors",
        ),
        ("cnn", {"augmentation": None}, TypeError, r"stp\.tl\.Augmentation"),
        ("cnn", {"decay": "linear"}, ValueError, "decay.*'linear'"),
        ("cnn", {"monitor": "pcc"}, ValueError, "monitor.*'pcc'"),
        ("multiscale", {"genes": ["MORPH"]}, ValueError, "monitor='spearman'"),
        ("cnn", {"layer": "nothing"}, KeyError, "nothing"),
        ("cnn", {"loss": "msee"}, (KeyError, ValueError), "mse"),
        ("cnn", {"sample_weight": "nothing"}, KeyError, "nothing"),
    ],
)
def test_bad_input_is_told_and_nothing_is_changed(sdata, door, options, error, message):
    if options.get("genes"):
        options = {"genes": [sdata.tables["table"].var_names[0]]}
    before = (list(sdata.tables), sorted(sdata.tables["table"].uns), sorted(sdata.images))
    with pytest.raises(error, match=message):
        DOORS[door](sdata, **options)
    assert (list(sdata.tables), sorted(sdata.tables["table"].uns), sorted(sdata.images)) == before


def test_wrong_tiles_are_told(sdata):
    model = DOORS["cnn"](sdata)
    with pytest.raises(TypeError, match="uint8, not float64"):
        model.predict_array(np.zeros((2, 3, 32, 32)))
    with pytest.raises(ValueError, match="8 px is too small"):
        model.predict_array(np.zeros((2, 3, 8, 8), dtype=np.uint8))
