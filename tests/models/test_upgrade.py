"""Models that were saved in formats 2 to 4 load, and predict as before."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import stpredict as stp
from stpredict._sdata._steps import NormalizeStep, RankStep, TilesStep
from stpredict.models._config import Config
from stpredict.models._records import (
    CNNNetwork,
    DeepSpotNetwork,
    RidgeOptions,
    SampleWeight,
    StackNetwork,
    TreesOptions,
)
from stpredict.models._upgrade import upgrade
from stpredict.training import Augmentation, Schedule

#: Written by the last version with format 3, with its predictions of 20 spots of a phantom.
GOLDEN = Path(__file__).parents[1] / "golden" / "format_3"
MODELS = ("deepspot", "ridge_svd_ranks", "stack", "calibrated")
#: The same model, saved by the last version with format 4.
FORMAT_4 = GOLDEN.parent / "format_4" / "deepspot"
#: Largest difference, in standard deviations of the spots: a few pixels of a phantom differ by one
#: level between processors, because numpy's float32 functions do in their last bit.
TOLERANCE = 5e-3


@pytest.mark.parametrize("name", MODELS)
def test_models_of_format_3_predict_as_before(name):
    expected = np.load(GOLDEN / "expected.npz")
    model = stp.models.load(GOLDEN / name)
    sdata = stp.datasets.phantom(
        1, size_px=800, mpp=0.5, pitch_um=40, n_morphology=3, n_neighborhood=3, n_null=2
    )
    stp.pp.prepare(sdata, model)
    stp.tl.predict(sdata, model)
    predicted = sdata.tables["predicted"]
    spread = expected[name].std(axis=0)
    for key, desired in expected.items():
        of_model, _, layer = key.partition("/")
        if of_model == name:
            actual = predicted.layers[layer] if layer else predicted.X
            np.testing.assert_allclose(
                actual[:20] / spread, desired / spread, rtol=0, atol=TOLERANCE
            )


@pytest.mark.parametrize("name", MODELS)
def test_models_of_format_3_are_saved_in_the_current_format(name, tmp_path):
    model = stp.models.load(GOLDEN / name)
    model.save(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["format_version"] == 5
    loaded = stp.models.load(tmp_path / "model")
    assert list(loaded.bases) == list(model.bases)
    for field in ("genes", "units", "context", "hyperparameters", "recipe", "training"):
        assert getattr(loaded, field) == getattr(model, field), field


def test_a_model_of_format_4_is_loaded_as_a_single_network():
    model, older = stp.models.load(FORMAT_4), stp.models.load(GOLDEN / "deepspot")
    assert model.hyperparameters == older.hyperparameters
    assert model.training == older.training
    assert model.training.best_epochs == (1,)
    assert set(model.history["network"]) == {1}
    for name, tensor in model.network.state_dict().items():
        torch.testing.assert_close(tensor, older.network.state_dict()[name], rtol=0, atol=0)


def test_flat_options_become_records():
    hyperparameters = stp.models.load(GOLDEN / "deepspot").hyperparameters
    assert hyperparameters.network == DeepSpotNetwork(
        n_hidden=4, n_phi=2, n_rho=2, n_networks=1, dropout=0.3
    )
    assert hyperparameters.schedule == Schedule(
        max_epochs=2,
        patience=10,
        batch_size=64,
        learning_rate=1e-3,
        weight_decay=1e-6,
        monitor="pearson",
    )
    assert hyperparameters.loss == "mse"
    assert hyperparameters.estimator is None


def test_the_steps_of_a_layer_are_in_order():
    recipe = stp.models.load(GOLDEN / "ridge_svd_ranks").recipe
    assert recipe.layer == "ranks"
    assert recipe.layer_steps == (
        NormalizeStep(target_sum=10_000.0),
        RankStep(key_added="ranks", layer="log1p", n_genes=8),
    )


def test_the_bases_of_a_stack_have_names():
    stack = stp.models.load(GOLDEN / "stack")
    assert stack.hyperparameters.network == StackNetwork(meta="ridge")
    assert stack.hyperparameters.estimator == RidgeOptions(alpha=10.0)
    assert list(stack.bases) == ["ridge", "trees"]
    assert stack.bases["trees"].hyperparameters.estimator == TreesOptions(n_trees=3)


def upgraded(name="deepspot", **changes):
    """Configuration of a model of format 3 with some changes, upgraded and checked."""
    path = GOLDEN / (f"{name}.json" if name == "cnn" else f"{name}/config.json")
    old = json.loads(path.read_text())
    for part, values in changes.items():
        old[part] = {**old[part], **values}
    return Config.from_plain(upgrade(old))


def test_models_on_pixels_are_upgraded():
    config = upgraded("cnn")
    assert config.hyperparameters.network == CNNNetwork(backbone="small", tile_px=32)
    assert config.hyperparameters.augmentation == Augmentation(
        flip=True, rotate=True, stain=0.1, color=0.1
    )
    assert config.recipe.tiles == TilesStep(tile_um=40.0, tile_px=32)


def test_format_2_has_no_calibration():
    old = json.loads((GOLDEN / "deepspot" / "config.json").read_text())
    del old["calibration"]
    assert Config.from_plain(upgrade({**old, "format_version": 2})).calibration is None


def test_finetuned_models_are_upgraded():
    before = upgraded().training
    old = json.loads((GOLDEN / "deepspot" / "config.json").read_text())["training"]
    config = upgraded(
        training={"finetuned_on": ["S4"], "before": old}, hyperparameters={"train": "head"}
    )
    assert config.hyperparameters.finetuned == "head"
    assert config.training.finetuned_on == ("S4",)
    assert config.training.before == before


def test_tuned_models_list_the_best_candidate_first():
    tuned = {"chosen": "b", "pcc": {"a": 0.1, "b": 0.4, "c": 0.2}}
    assert list(upgraded(training={"tuned": tuned}).training.tuned.items()) == [
        ("b", 0.4),
        ("c", 0.2),
        ("a", 0.1),
    ]


@pytest.mark.parametrize(
    ("balance", "balanced_by"),
    [({"by": ["region"]}, ("region",)), ({"resolution": 1.0, "seed": 0}, ()), (None, None)],
)
def test_sample_weights_are_upgraded(balance, balanced_by):
    weight = {"column": "w", **({} if balance is None else {"balance": balance})}
    config = upgraded(training={"sample_weight": weight})
    assert config.training.sample_weight == SampleWeight("w", balanced_by)


def test_published_weights_are_upgraded():
    config = upgraded(
        recipe={"embedding": "X_uni", "embed": {"encoder": "uni"}, "neighbors": {}},
        hyperparameters={"published": {"random_seed": 3}},
        training={"knows_mean": False},
    )
    assert config.recipe.embed.encoder == "uni"
    assert not config.recipe.embed.is_complete
    assert config.hyperparameters.published == {"random_seed": 3}
    assert not config.training.knows_mean


def test_missing_name_is_reported():
    old = json.loads((GOLDEN / "deepspot" / "config.json").read_text())
    del old["training"]["seed"]
    with pytest.raises(ValueError, match=r"training\.seed: Field required"):
        Config.from_plain(upgrade(old))
