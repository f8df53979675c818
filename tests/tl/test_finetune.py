"""Finetuning: a planted change is learnt, what is to stay stays, bad input is told."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import stpredict as stp
from stpredict import metrics
from stpredict._sdata._elements import copy_of
from stpredict.models._restrict import restrict
from stpredict.tl._crossval import _folds

NETWORK = {"embedding": "X_colour", "n_hidden": 32, "n_phi": 3, "n_rho": 3, "device": "cpu"}
FIT = NETWORK | {"max_epochs": 40, "learning_rate": 3e-3}
SHORT = NETWORK | {"max_epochs": 2}
TUNE = {"max_epochs": 40, "learning_rate": 3e-3, "device": "cpu"}


def only(sdata, names):
    region = _sections.region_of(sdata.tables["table"])
    return _folds.only(sdata, np.flatnonzero(np.isin(region, names)))


def colour(tiles):
    return torch.cat([tiles.mean((-2, -1)), tiles.std((-2, -1))], dim=1)


@pytest.fixture(scope="module")
def sections():
    """Six sections; in the last three, half of the genes are shifted, the others are mirrored."""
    sdata = stp.datasets.phantom(
        6, size_px=800, mpp=0.5, pitch_um=40, n_morphology=6, n_neighborhood=2, n_null=0
    )
    stp.pp.normalize(sdata)
    stp.pp.select_genes(sdata, n_top_genes=6, flavor="variance")
    stp.pp.embed(sdata, colour, key_added="X_colour", tile_um=40, n_subtiles=1)
    stp.pp.neighbors(sdata)
    table = sdata.tables["table"]
    values = table.layers["log1p"].toarray()
    new = table.obs["region"].isin(["S4", "S5", "S6"]).to_numpy()
    values[np.ix_(new, np.arange(0, 8, 2))] += 1
    mirrored = np.ix_(new, np.arange(1, 8, 2))
    values[mirrored] = 2 * values[:, 1::2].mean(axis=0) - values[mirrored]
    table.layers["log1p"] = values
    return sdata


@pytest.fixture(scope="module")
def model(sections):
    model = stp.tl.fit_deepspot(only(sections, ["S1", "S2", "S3"]), **FIT)
    return model


@pytest.fixture
def new(sections):
    return only(sections, ["S4", "S5"])


@pytest.fixture
def test(sections):
    return only(sections, ["S6"])


def predicted(sdata, model):
    return stp.tl.predict(sdata, model, device="cpu", copy=True).tables["predicted"]


def scores(sdata, model):
    truth = sdata.tables["table"][:, list(model.genes)].layers["log1p"]
    found = predicted(sdata, model).X
    return np.mean(metrics.pcc(truth, found)), np.mean(metrics.rmse(truth, found))


def state(model):
    return {name: tensor.clone() for name, tensor in model.network.state_dict().items()}


@pytest.mark.parametrize("train", ["all", "head"])
def test_a_planted_change_is_learnt(train, model, new, test, tmp_path):
    before, ridge = state(model), model.ridge.coefficients.copy()
    remembered = repr((model.training, model.hyperparameters, model.recipe))
    tuned = stp.tl.finetune(model, new, train=train, **TUNE)
    pcc, rmse = scores(test, model)
    tuned_pcc, tuned_rmse = scores(test, tuned)
    assert tuned_pcc > pcc + 0.3
    assert tuned_rmse < 0.7 * rmse

    # the original is what it was
    assert all(torch.equal(before[name], tensor) for name, tensor in state(model).items())
    assert repr((model.training, model.hyperparameters, model.recipe)) == remembered
    np.testing.assert_array_equal(model.ridge.coefficients, ridge)
    after = state(tuned)
    for name, tensor in before.items():
        trained = train == "all" or name.startswith("rho.")
        assert torch.equal(tensor, after[name]) != trained, name
    assert all(parameter.requires_grad for parameter in tuned.network.parameters())
    np.testing.assert_array_equal(tuned.inputs.mean, model.inputs.mean)
    np.testing.assert_array_equal(tuned.targets.mean, model.targets.mean)
    assert not np.array_equal(tuned.ridge.coefficients, ridge)

    tuned.save(tmp_path / "tuned")
    loaded = stp.models.load(tmp_path / "tuned")
    np.testing.assert_array_equal(predicted(test, tuned).X, predicted(test, loaded).X)
    card = (tmp_path / "tuned" / "README.md").read_text(encoding="utf-8")
    assert "- sections: S1, S2, S3 (" in card
    assert "- finetuned on: S4, S5 (" in card


def test_a_model_remembers_old_and_new_sections(model, new):
    tuned = stp.tl.finetune(model, new, max_epochs=1, device="cpu", seed=5)
    assert tuned.training["sections"] == ["S1", "S2", "S3", "S4", "S5"]
    assert tuned.training["finetuned_on"] == ["S4", "S5"]
    assert tuned.training["before"] == model.training
    assert tuned.training["seed"] == 5
    assert tuned.training["groups"] == sorted({*model.training["groups"], "P4", "P5"})
    assert tuned.hyperparameters["loss"] == "mse"
    assert tuned.hyperparameters["train"] == "all"
    assert tuned.hyperparameters["n_hidden"] == 32
    stp.tl.predict(new, tuned)
    assert "NOT held out" in stp.tl.evaluate(new).attrs["protocol"]


@pytest.mark.parametrize("targets", ["genes", "svd"])
def test_some_genes_are_those_of_a_sliced_model(targets, sections, new, test):
    old = only(sections, ["S1", "S2", "S3"])
    n_factors = None if targets == "genes" else 3
    model = stp.tl.fit_deepspot(old, **SHORT, targets=targets, n_factors=n_factors)
    genes = [model.genes[4], model.genes[1]]
    sliced = restrict(model, genes)
    whole = predicted(test, model)[:, genes]
    part = predicted(test, sliced)
    for found in (part, predicted(test, stp.tl.finetune(model, new, genes=genes, learning_rate=0))):
        assert list(found.var_names) == genes
        np.testing.assert_allclose(found.X, whole.X, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(found.layers["std"], whole.layers["std"], atol=1e-5)
    np.testing.assert_allclose(part.layers["ridge"], whole.layers["ridge"], rtol=1e-5)
    n_outputs = 2 if targets == "genes" else 3
    assert sliced.targets.n_outputs == sliced.network.n_targets == n_outputs
    assert sliced.network.rho.weight.shape[1] == n_outputs


def test_sliced_training_is_training_of_the_slice(model, new, test):
    genes = list(model.genes[1:4])
    sliced = stp.tl.finetune(model, new, genes=genes, **TUNE | {"max_epochs": 3})
    again = stp.tl.finetune(restrict(model, genes), new, **TUNE | {"max_epochs": 3})
    np.testing.assert_array_equal(predicted(test, sliced).X, predicted(test, again).X)


def test_factors_need_the_genes_they_are_made_of_in_any_order(sections, new, test):
    old = only(sections, ["S1", "S2", "S3"])
    model = stp.tl.fit_deepspot(old, **SHORT, targets="svd", n_factors=3)
    tuned = stp.tl.finetune(model, new, **TUNE | {"max_epochs": 2})
    turned = only(new, ["S4", "S5"])
    table = turned.tables["table"]
    turned.tables["table"] = table[:, table.var_names[::-1]].copy()
    again = stp.tl.finetune(model, turned, **TUNE | {"max_epochs": 2})
    np.testing.assert_allclose(predicted(test, tuned).X, predicted(test, again).X, rtol=1e-4)
    turned.tables["table"] = table[:, table.var_names[1:]].copy()
    with pytest.raises(KeyError, match=r"1 of 8 genes are not in the table"):
        stp.tl.finetune(model, turned)


def test_counts_stay_counts(sections, new, test):
    old = only(sections, ["S1", "S2", "S3"])
    model = stp.tl.fit_deepspot(old, **SHORT, layer=None, loss="poisson")
    tuned = stp.tl.finetune(model, new, genes=model.genes[:2], max_epochs=2, device="cpu")
    assert tuned.units == "counts per 10,000"
    assert (predicted(test, tuned).X >= 0).all()
    with pytest.raises(ValueError, match=r"loss='mse' is not a likelihood.*counts per 10,000"):
        stp.tl.finetune(model, new, loss="mse")


def test_deepcell_is_finetuned(sections, new):
    old = only(sections, ["S1", "S2", "S3"])
    model = stp.tl.fit_deepcell(old, **SHORT)
    tuned = stp.tl.finetune(model, new, train="head", max_epochs=1, device="cpu")
    before, after = state(model), state(tuned)
    assert torch.equal(before["phi.weight"], after["phi.weight"])
    assert not torch.equal(before["rho.weight"], after["rho.weight"])


def test_the_same_seed_gives_the_same_model(model, new):
    first, second = (state(stp.tl.finetune(model, new, max_epochs=2, seed=3)) for _ in "ab")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_another_layer_gives_its_units(model, new):
    table = new.tables["table"]
    table.layers["mine"] = table.layers["log1p"] * 2
    tuned = stp.tl.finetune(model, new, layer="mine", max_epochs=1, device="cpu")
    assert tuned.units == "mine"
    assert tuned.recipe["layer"] == "mine"
    assert tuned.recipe["embed"] == model.recipe["embed"]


# ---- bad input -----------------------------------------------------------------------------


def test_what_is_not_trained_step_by_step(sections, new):
    old = only(sections, ["S1", "S2"])
    options = {"embedding": "X_colour"}
    for name, fit in (("ridge", stp.tl.fit_ridge), ("trees", stp.tl.fit_trees)):
        with pytest.raises(ValueError, match=rf"of {name} is fitted in one go.*fit_{name} on all"):
            stp.tl.finetune(fit(old, **options), new)

    def ridge(sdata):
        return stp.tl.fit_ridge(sdata, **options)

    stack = stp.tl.fit_stacking(old, {"a": ridge, "b": ridge}, meta="mean")
    with pytest.raises(ValueError, match=r"a stack is not trained further: finetune its bases"):
        stp.tl.finetune(stack, new)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"train": "phi"}, ValueError, "train='phi' is not one of 'all', 'head'"),
        ({"genes": []}, ValueError, "genes= is empty"),
        ({"genes": ["a", "a"]}, ValueError, "repeated: a"),
        ({"genes": ["ERBB2"]}, ValueError, "1 of 1 genes are none of the model's 6: ERBB2"),
        ({"groups": "donor"}, KeyError, "groups='donor' is no column"),
        ({"layer": "ranks"}, KeyError, r"no layers\['ranks'\]"),
        ({"loss": "poisson"}, ValueError, "loss='poisson' is a likelihood of counts, but"),
        ({"loss": "mse_pearsen"}, ValueError, "did you mean 'mse_pearson'"),
        ({"max_epochs": 0}, ValueError, "max_epochs must be"),
    ],
)
def test_what_cannot_be(model, new, options, error, message):
    with pytest.raises(error, match=message):
        stp.tl.finetune(model, new, **options)


def test_sections_that_were_made_differently(model, new):
    stp.pp.neighbors(new, n_neighbors=3)
    with pytest.raises(ValueError, match=r"neighbors step was run differently.*pp\.prepare"):
        stp.tl.finetune(model, new)


def test_a_layer_in_other_units(model, new):
    stp.pp.normalize(new, target_sum=1e6)
    with pytest.raises(ValueError, match=r"counts per 1,000,000.*counts per 10,000.*pp\.prepare"):
        stp.tl.finetune(model, new)


def test_genes_that_were_not_measured(model, new):
    table = new.tables["table"]
    kept = [name for name in table.var_names if name != model.genes[0]]
    new.tables["table"] = table[:, kept].copy()
    with pytest.raises(KeyError, match=rf"1 of 6 genes are not in the table: {model.genes[0]}"):
        stp.tl.finetune(model, new)
    stp.tl.finetune(model, new, genes=model.genes[1:], max_epochs=1, device="cpu")


def test_a_loss_of_ones_own_is_asked_for(sections, new):
    model = stp.tl.fit_deepspot(only(sections, ["S1", "S2"]), **SHORT, loss=torch.nn.L1Loss())
    with pytest.raises(ValueError, match=r"a loss of one's own, give it as loss=: L1Loss\(\)"):
        stp.tl.finetune(model, new)
    stp.tl.finetune(model, new, loss=torch.nn.L1Loss(), max_epochs=1, device="cpu")
