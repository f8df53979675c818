"""Finetuning of networks on pixels: they learn another stain, and frozen parts stay."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import stpredict as stp
from helpers import only
from stpredict import metrics
from stpredict.datasets._phantom_parts import _draw_tissue
from stpredict.models._restrict import restrict
from stpredict.nn import TileCNN
from stpredict.tl import Augmentation

SHARED = {
    "tile_um": 40.0,
    "augmentation": Augmentation(flip=True, rotate=True),
    "device": "cpu",
}
SCHEDULE = stp.tl.Schedule(
    max_epochs=5, patience=5, batch_size=16, learning_rate=3e-3, weight_decay=1e-4, monitor="loss"
)


def fit_cnn(sdata, **options):
    defaults = {"network": stp.tl.CNNNetwork(tile_px=20), "schedule": SCHEDULE}
    return stp.tl.fit_cnn(sdata, **SHARED, **defaults | options)


def fit_multiscale(sdata):
    network = stp.tl.MultiScaleNetwork(
        tile_px=24, n_subtiles=2, widths=(4, 8, 8), n_tile=16, n_subtile=8
    )
    schedule = replace(SCHEDULE, patience=10, weight_decay=1e-3, decay="cosine", monitor="spearman")
    return stp.tl.fit_multiscale(sdata, network=network, schedule=schedule, **SHARED)


METHODS = {"cnn": fit_cnn, "multiscale": fit_multiscale}
HEADS = {"cnn": "head.", "multiscale": "decoder."}


def tuning(**changes):
    options = {"max_epochs": 8, "learning_rate": 3e-3, "batch_size": 16, "monitor": "loss"}
    return stp.tl.Schedule(**options | changes)


TUNE = {"schedule": tuning(), "device": "cpu"}
BRIEF = {"schedule": tuning(max_epochs=1), "device": "cpu"}
every_method = pytest.mark.parametrize("method", METHODS)


def prepared():
    sdata = stp.datasets.phantom(
        5, size_px=400, mpp=1.0, pitch_um=40.0, n_morphology=4, n_neighborhood=0, n_null=0
    )
    stp.pp.normalize(sdata)
    stp.pp.select_genes(sdata, list(sdata.tables["table"].var_names))
    return sdata


@pytest.fixture(scope="module")
def sections():
    """Sections S1 to S3 as usual; S4 and S5 of the same tissue with the dyes exchanged."""
    with pytest.MonkeyPatch.context() as patch:
        usual = prepared()
        dyes = _draw_tissue.HAEMATOXYLIN, _draw_tissue.EOSIN
        patch.setattr(_draw_tissue, "EOSIN", dyes[0])
        patch.setattr(_draw_tissue, "HAEMATOXYLIN", dyes[1])
        exchanged = prepared()
    return {"old": only(usual, ["S1", "S2"]), "exchanged": exchanged}


@pytest.fixture(scope="module")
def models(sections):
    return {name: fit(sections["old"]) for name, fit in METHODS.items()}


@pytest.fixture
def new(sections):
    return only(sections["exchanged"], ["S3", "S4"])


@pytest.fixture
def test(sections):
    return only(sections["exchanged"], ["S5"])


def predicted(sdata, model):
    return stp.tl.predict(sdata, model, device="cpu", copy=True).tables["predicted"]


def scores(sdata, model):
    expected = sdata.tables["table"][:, list(model.genes)].layers["expected"]
    values = predicted(sdata, model).X
    return np.mean(metrics.pcc(expected, values)), np.mean(metrics.rmse(expected, values))


def state(model):
    return {name: tensor.clone() for name, tensor in model.network.state_dict().items()}


@pytest.mark.parametrize("train", ["all", "head"])
@every_method
def test_another_stain_is_learnt(method, train, models, new, test, tmp_path):
    model = models[method]
    before, records = state(model), repr((model.training, model.hyperparameters, model.recipe))
    images = sorted(new.images)
    tuned = stp.tl.finetune(new, model, train=train, **TUNE)
    pcc, rmse = scores(test, model)
    tuned_pcc, tuned_rmse = scores(test, tuned)
    assert tuned_pcc > max(pcc, 0) + 0.2
    assert tuned_rmse < 0.9 * rmse

    # the original and the sections are unchanged
    assert all(torch.equal(before[name], tensor) for name, tensor in state(model).items())
    assert repr((model.training, model.hyperparameters, model.recipe)) == records
    assert (sorted(new.images), list(new.tables)) == (images, ["table"])
    after = state(tuned)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    if train == "head":
        assert changed
        assert all(name.startswith(HEADS[method]) for name in changed)
    else:
        constants = {"normalize.mean", "normalize.std"}
        assert changed == before.keys() - constants
    assert tuned.training.finetuned_on == ("S3", "S4")
    assert tuned.recipe == model.recipe
    assert tuned.inputs is None
    np.testing.assert_array_equal(tuned.targets.mean, model.targets.mean)

    tuned.save(tmp_path / "tuned")
    loaded = stp.models.load(tmp_path / "tuned")
    np.testing.assert_array_equal(predicted(test, loaded).X, predicted(test, tuned).X)


@every_method
def test_some_genes_are_those_of_a_sliced_model(method, models, new, test):
    model = models[method]
    genes = [model.genes[2], model.genes[0]]
    random = torch.random.get_rng_state()
    sliced = restrict(model, genes)
    assert torch.equal(random, torch.random.get_rng_state())
    unchanged = tuning(max_epochs=1, learning_rate=0.0)
    tuned = stp.tl.finetune(new, model, train="head", genes=genes, schedule=unchanged)
    expected = predicted(test, model)[:, genes].X
    for table in (predicted(test, sliced), predicted(test, tuned)):
        assert list(table.var_names) == genes
        np.testing.assert_allclose(table.X, expected, rtol=1e-5, atol=1e-5)


def test_a_loaded_model_is_finetuned_like_the_original(models, new, tmp_path):
    model = models["cnn"]
    model.save(tmp_path / "model")
    loaded = stp.models.load(tmp_path / "model")
    first, second = (state(stp.tl.finetune(new, each, **BRIEF, seed=3)) for each in (model, loaded))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_augmentation_is_that_of_its_training(models, new, monkeypatch):
    calls = []
    change = Augmentation.__call__

    def spy(self, tiles, **options):
        calls.append(self)
        return change(self, tiles, **options)

    monkeypatch.setattr(Augmentation, "__call__", spy)
    stp.tl.finetune(new, models["cnn"], **BRIEF)
    assert set(calls) == {SHARED["augmentation"]}


def test_frozen_blocks_stay_frozen(sections, new, tmp_path):
    published = TileCNN(1, backbone="test_resnet", tile_px=32).backbone
    save_file(published.state_dict(), tmp_path / "weights.safetensors")
    model = fit_cnn(
        sections["old"],
        network=stp.tl.CNNNetwork("test_resnet", tile_px=32, trainable=1),
        pretrained=tmp_path / "weights.safetensors",
        schedule=replace(SCHEDULE, max_epochs=1),
    )
    for train, start in (("head", "head."), ("all", ("head.", "backbone.layer4."))):
        tuned = stp.tl.finetune(new, model, train=train, **BRIEF)
        before, after = state(model), state(tuned)
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        assert changed == {name for name in before if name.startswith(start)}
        frozen = [not parameter.requires_grad for parameter in tuned.network.parameters()]
        assert frozen == [not parameter.requires_grad for parameter in model.network.parameters()]
        assert any(frozen)


# ---- bad input -----------------------------------------------------------------------------


def test_images_of_another_stain_are_refused(sections, new):
    normalized = only(sections["old"], ["S1", "S2"])
    stp.pp.normalize_stain(normalized, method="reinhard")
    model = fit_cnn(normalized, schedule=replace(SCHEDULE, max_epochs=1))
    with pytest.raises(ValueError, match=r"the images are raw.*stp\.pp\.prepare"):
        stp.tl.finetune(new, model)
    stp.pp.prepare(new, model)
    tuned = stp.tl.finetune(new, model, **BRIEF)
    assert tuned.recipe.tiles == model.recipe.tiles


def test_bad_options_are_refused_before_tiles_are_read(models, new, monkeypatch):
    def read(*_, **__):
        raise AssertionError("tiles were read")

    monkeypatch.setattr("stpredict._sdata._pixels.stream_tiles", read)
    for options, message in (
        ({"genes": ["ERBB2"]}, "1 of 1 genes are not among the model's 4"),
        ({"loss": "poisson"}, "likelihood of counts"),
        ({"train": "decoder"}, "train='decoder' is not one of 'all', 'head'"),
    ):
        with pytest.raises(ValueError, match=message):
            stp.tl.finetune(new, models["cnn"], **options)
    with pytest.raises(KeyError, match="no column groups='donor'"):
        stp.tl.finetune(new, models["cnn"], groups="donor")
