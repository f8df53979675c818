"""Finetuning of networks on pixels: they learn another stain, and what is to stay stays."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import stpredict as stp
from stpredict import metrics
from stpredict._sdata._elements import copy_of
from stpredict.datasets import _phantom_image
from stpredict.models._restrict import restrict
from stpredict.tl import Augmentation
from stpredict.tl._crossval import _folds

SHARED = {
    "tile_um": 40.0,
    "augmentation": Augmentation(flip=True, rotate=True),
    "max_epochs": 5,
    "learning_rate": 3e-3,
    "device": "cpu",
}
DOORS = {
    "cnn": lambda sdata, **options: stp.tl.fit_cnn(
        sdata, **{**SHARED, "tile_px": 20, "batch_size": 16, **options}
    ),
    "multiscale": lambda sdata, **options: stp.tl.fit_multiscale(
        sdata,
        **{
            **SHARED,
            "tile_px": 24,
            "n_subtiles": 2,
            "widths": (4, 8, 8),
            "n_tile": 16,
            "n_subtile": 8,
            "batch_size": 16,
            **options,
        },
    ),
}
HEADS = {"cnn": "head.", "multiscale": "decoder."}
TUNE = {"max_epochs": 8, "learning_rate": 3e-3, "batch_size": 16, "device": "cpu"}
every_door = pytest.mark.parametrize("door", DOORS)


def only(sdata, names):
    region = _sections.region_of(sdata.tables["table"])
    return _folds.only(sdata, np.flatnonzero(np.isin(region, names)))


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
        patch.setattr(stp.settings, "verbosity", 0)
        usual = prepared()
        dyes = _phantom_image.HAEMATOXYLIN, _phantom_image.EOSIN
        patch.setattr(_phantom_image, "EOSIN", dyes[0])
        patch.setattr(_phantom_image, "HAEMATOXYLIN", dyes[1])
        exchanged = prepared()
    return {"old": only(usual, ["S1", "S2"]), "exchanged": exchanged}


@pytest.fixture(scope="module")
def models(sections):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stp.settings, "verbosity", 0)
        return {name: fit(sections["old"]) for name, fit in DOORS.items()}


@pytest.fixture
def new(sections):
    return only(sections["exchanged"], ["S3", "S4"])


@pytest.fixture
def test(sections):
    return only(sections["exchanged"], ["S5"])


def predicted(sdata, model):
    return stp.tl.predict(sdata, model, device="cpu", copy=True).tables["predicted"]


def scores(sdata, model):
    truth = sdata.tables["table"][:, list(model.genes)].layers["expected"]
    found = predicted(sdata, model).X
    return np.mean(metrics.pcc(truth, found)), np.mean(metrics.rmse(truth, found))


def state(model):
    return {name: tensor.clone() for name, tensor in model.network.state_dict().items()}


@pytest.mark.parametrize("train", ["all", "head"])
@every_door
def test_another_stain_is_learnt(door, train, models, new, test, tmp_path):
    model = models[door]
    before, remembered = state(model), repr((model.training, model.hyperparameters, model.recipe))
    images = sorted(new.images)
    tuned = stp.tl.finetune(model, new, train=train, **TUNE)
    pcc, rmse = scores(test, model)
    tuned_pcc, tuned_rmse = scores(test, tuned)
    assert tuned_pcc > max(pcc, 0) + 0.2
    assert tuned_rmse < 0.9 * rmse

    # the original, and the sections, are what they were
    assert all(torch.equal(before[name], tensor) for name, tensor in state(model).items())
    assert repr((model.training, model.hyperparameters, model.recipe)) == remembered
    assert (sorted(new.images), list(new.tables)) == (images, ["table"])
    after = state(tuned)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    if train == "head":
        assert changed
        assert all(name.startswith(HEADS[door]) for name in changed)
    else:
        constants = {"normalize.mean", "normalize.std"}
        assert changed == before.keys() - constants
    assert tuned.training["finetuned_on"] == ["S3", "S4"]
    assert tuned.recipe == model.recipe
    assert not np.array_equal(tuned.ridge.coefficients, model.ridge.coefficients)
    np.testing.assert_array_equal(tuned.inputs.mean, model.inputs.mean)

    tuned.save(tmp_path / "tuned")
    loaded = stp.models.load(tmp_path / "tuned")
    again = predicted(test, loaded)
    wanted = predicted(test, tuned)
    np.testing.assert_array_equal(again.X, wanted.X)
    np.testing.assert_array_equal(again.layers["ridge"], wanted.layers["ridge"])


@every_door
def test_some_genes_are_those_of_a_sliced_model(door, models, new, test):
    model = models[door]
    genes = [model.genes[2], model.genes[0]]
    random = torch.random.get_rng_state()
    sliced = restrict(model, genes)
    assert torch.equal(random, torch.random.get_rng_state())
    tuned = stp.tl.finetune(model, new, train="head", genes=genes, max_epochs=1, learning_rate=0.0)
    whole = predicted(test, model)[:, genes].X
    for found in (predicted(test, sliced), predicted(test, tuned)):
        assert list(found.var_names) == genes
        np.testing.assert_allclose(found.X, whole, rtol=1e-5, atol=1e-5)


def test_a_loaded_model_is_tuned_as_the_one_that_was_saved(models, new, tmp_path):
    model = models["cnn"]
    model.save(tmp_path / "model")
    loaded = stp.models.load(tmp_path / "model")
    short = TUNE | {"max_epochs": 1, "seed": 3}
    first, second = (state(stp.tl.finetune(each, new, **short)) for each in (model, loaded))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_augmentation_is_that_of_its_training(models, new, monkeypatch):
    seen = []
    change = Augmentation.__call__

    def watched(self, tiles, **options):
        seen.append(self)
        return change(self, tiles, **options)

    monkeypatch.setattr(Augmentation, "__call__", watched)
    stp.tl.finetune(models["cnn"], new, max_epochs=1, device="cpu")
    assert set(seen) == {SHARED["augmentation"]}


def test_frozen_blocks_stay_frozen(sections, new, tmp_path):
    from safetensors.torch import save_file

    from stpredict.nn import TileCNN

    published = TileCNN(1, backbone="test_resnet", tile_px=32).backbone
    save_file(published.state_dict(), tmp_path / "weights.safetensors")
    model = DOORS["cnn"](
        sections["old"],
        backbone="test_resnet",
        tile_px=32,
        pretrained=tmp_path / "weights.safetensors",
        trainable=1,
        max_epochs=1,
    )
    for train, start in (("head", "head."), ("all", ("head.", "backbone.layer4."))):
        tuned = stp.tl.finetune(model, new, train=train, **TUNE | {"max_epochs": 1})
        before, after = state(model), state(tuned)
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        assert changed == {name for name in before if name.startswith(start)}
        frozen = [not parameter.requires_grad for parameter in tuned.network.parameters()]
        assert frozen == [not parameter.requires_grad for parameter in model.network.parameters()]
        assert any(frozen)


# ---- bad input -----------------------------------------------------------------------------


def test_another_stain_than_the_images_are_normalised_to(sections, new):
    normalized = only(sections["old"], ["S1", "S2"])
    stp.pp.normalize_stain(normalized, method="reinhard")
    model = DOORS["cnn"](normalized, max_epochs=1)
    with pytest.raises(ValueError, match=r"its images are raw.*stp\.pp\.prepare"):
        stp.tl.finetune(model, new)
    stp.pp.prepare(new, model)
    tuned = stp.tl.finetune(model, new, max_epochs=1, device="cpu")
    assert tuned.recipe["tiles"] == model.recipe["tiles"]


def test_what_is_wrong_is_told_before_tiles_are_read(models, new, monkeypatch):
    def read(*_, **__):
        raise AssertionError("tiles were read")

    monkeypatch.setattr("stpredict._sdata._pixels.stream", read)
    for options, message in (
        ({"genes": ["ERBB2"]}, "1 of 1 genes are none of the model's 4"),
        ({"loss": "poisson"}, "likelihood of counts"),
        ({"train": "decoder"}, "train='decoder' is not one of 'all', 'head'"),
    ):
        with pytest.raises(ValueError, match=message):
            stp.tl.finetune(models["cnn"], new, **options)
    with pytest.raises(KeyError, match="groups='donor' is no column"):
        stp.tl.finetune(models["cnn"], new, groups="donor")
