"""Finetuning: a planted change is learnt, frozen parts stay, bad input is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import stpredict as stp
from helpers import only, prepared_phantom
from stpredict import metrics
from stpredict.models._restrict import restrict

SHORT = {
    "embedding": "X_colour",
    "network": stp.tl.DeepSpotNetwork(n_hidden=32, n_phi=3, n_rho=3, n_networks=1),
    "schedule": stp.tl.Schedule(max_epochs=2),
    "device": "cpu",
}


def tuning(**changes):
    """Schedule of a finetuning; learning rate and monitor are the default ones."""
    return stp.tl.Schedule(**{"learning_rate": 1e-4, "monitor": "loss", **changes})


TUNE = {"schedule": tuning(max_epochs=40, learning_rate=3e-3), "device": "cpu"}
BRIEF = {"schedule": tuning(max_epochs=1), "device": "cpu"}


@pytest.fixture(scope="module")
def sections():
    """Six sections; in the last three, half of the genes are shifted, the others are mirrored."""
    design = {"size_px": 800, "n_morphology": 6, "n_neighborhood": 2, "n_null": 0}
    sdata = prepared_phantom(6, design, select={"n_top_genes": 6, "flavor": "variance"})
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
    schedule = stp.tl.Schedule(max_epochs=40, learning_rate=3e-3)
    return stp.tl.fit_deepspot(only(sections, ["S1", "S2", "S3"]), **SHORT | {"schedule": schedule})


@pytest.fixture
def new(sections):
    return only(sections, ["S4", "S5"])


@pytest.fixture
def test(sections):
    return only(sections, ["S6"])


def predicted(sdata, model):
    return stp.tl.predict(sdata, model, device="cpu", copy=True).tables["predicted"]


def scores(sdata, model):
    measured = sdata.tables["table"][:, list(model.genes)].layers["log1p"]
    values = predicted(sdata, model).X
    return np.mean(metrics.pcc(measured, values)), np.mean(metrics.rmse(measured, values))


def state(model):
    return {name: tensor.clone() for name, tensor in model.network.state_dict().items()}


@pytest.mark.parametrize("train", ["all", "head"])
def test_a_planted_change_is_learnt(train, model, new, test, tmp_path):
    before = state(model)
    records = repr((model.training, model.hyperparameters, model.recipe))
    tuned = stp.tl.finetune(new, model, train=train, **TUNE)
    pcc, rmse = scores(test, model)
    tuned_pcc, tuned_rmse = scores(test, tuned)
    assert tuned_pcc > pcc + 0.3
    assert tuned_rmse < 0.7 * rmse

    # the original is unchanged
    assert all(torch.equal(before[name], tensor) for name, tensor in state(model).items())
    assert repr((model.training, model.hyperparameters, model.recipe)) == records
    after = state(tuned)
    for name, tensor in before.items():
        trained = train == "all" or name.startswith("rho.")
        assert torch.equal(tensor, after[name]) != trained, name
    assert all(parameter.requires_grad for parameter in tuned.network.parameters())
    np.testing.assert_array_equal(tuned.inputs.mean, model.inputs.mean)
    np.testing.assert_array_equal(tuned.targets.mean, model.targets.mean)

    tuned.save(tmp_path / "tuned")
    loaded = stp.models.load(tmp_path / "tuned")
    np.testing.assert_array_equal(predicted(test, tuned).X, predicted(test, loaded).X)
    card = (tmp_path / "tuned" / "README.md").read_text(encoding="utf-8")
    assert "- sections: S1, S2, S3 (" in card
    assert "- finetuned on: S4, S5 (" in card


def test_a_model_records_old_and_new_sections(model, new):
    tuned = stp.tl.finetune(new, model, **BRIEF, seed=5)
    assert tuned.training.sections == ("S1", "S2", "S3", "S4", "S5")
    assert tuned.training.finetuned_on == ("S4", "S5")
    assert tuned.training.before == model.training
    assert tuned.training.seed == 5
    assert tuned.training.groups == tuple(sorted({*model.training.groups, "P4", "P5"}))
    assert tuned.hyperparameters.loss == "mse"
    assert tuned.hyperparameters.finetuned == "all"
    assert tuned.hyperparameters.network == SHORT["network"]
    assert tuned.hyperparameters.schedule == BRIEF["schedule"]
    stp.tl.predict(new, tuned)
    assert stp.tl.evaluate(new).leaky


@pytest.mark.parametrize("targets", ["genes", "svd"])
def test_some_genes_are_those_of_a_sliced_model(targets, sections, new, test):
    old = only(sections, ["S1", "S2", "S3"])
    n_factors = None if targets == "genes" else 3
    model = stp.tl.fit_deepspot(old, **SHORT, targets=targets, n_factors=n_factors)
    genes = [model.genes[4], model.genes[1]]
    sliced = restrict(model, genes)
    whole = predicted(test, model)[:, genes]
    part = predicted(test, sliced)
    unchanged = stp.tl.finetune(
        new, model, genes=genes, schedule=tuning(max_epochs=2, learning_rate=0.0)
    )
    for table in (part, predicted(test, unchanged)):
        assert list(table.var_names) == genes
        np.testing.assert_allclose(table.X, whole.X, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(table.layers["std"], whole.layers["std"], atol=1e-5)
    n_outputs = 2 if targets == "genes" else 3
    assert sliced.targets.n_outputs == sliced.network.n_targets == n_outputs
    assert sliced.network.rho.weight.shape[1] == n_outputs


def test_finetuning_some_genes_equals_finetuning_a_sliced_model(model, new, test):
    genes = list(model.genes[1:4])
    schedule = tuning(max_epochs=3, learning_rate=3e-3)
    sliced = stp.tl.finetune(new, model, genes=genes, schedule=schedule, device="cpu")
    expected = stp.tl.finetune(new, restrict(model, genes), schedule=schedule, device="cpu")
    np.testing.assert_array_equal(predicted(test, sliced).X, predicted(test, expected).X)


def test_factors_need_all_their_genes_in_any_order(sections, new, test):
    old = only(sections, ["S1", "S2", "S3"])
    model = stp.tl.fit_deepspot(old, **SHORT, targets="svd", n_factors=3)
    short = {"schedule": tuning(max_epochs=2, learning_rate=3e-3), "device": "cpu"}
    expected = stp.tl.finetune(new, model, **short)
    reversed_genes = only(new, ["S4", "S5"])
    table = reversed_genes.tables["table"]
    reversed_genes.tables["table"] = table[:, table.var_names[::-1]].copy()
    tuned = stp.tl.finetune(reversed_genes, model, **short)
    np.testing.assert_allclose(predicted(test, tuned).X, predicted(test, expected).X, rtol=1e-4)
    reversed_genes.tables["table"] = table[:, table.var_names[1:]].copy()
    with pytest.raises(KeyError, match=r"1 of 8 genes are not in the table"):
        stp.tl.finetune(reversed_genes, model)


def test_models_of_counts_learn_counts(sections, new, test):
    old = only(sections, ["S1", "S2", "S3"])
    model = stp.tl.fit_deepspot(old, **SHORT, layer=None, loss="poisson")
    tuned = stp.tl.finetune(
        new, model, genes=model.genes[:2], schedule=tuning(max_epochs=2), device="cpu"
    )
    assert tuned.units == "counts per 10,000"
    assert (predicted(test, tuned).X >= 0).all()
    with pytest.raises(ValueError, match=r"loss='mse' is not a likelihood.*counts per 10,000"):
        stp.tl.finetune(new, model, loss="mse")


def test_deepcell_is_finetuned(sections, new):
    old = only(sections, ["S1", "S2", "S3"])
    network = stp.tl.DeepCellNetwork(n_hidden=32, n_phi=3, n_rho=3)
    model = stp.tl.fit_deepcell(old, **SHORT | {"network": network})
    tuned = stp.tl.finetune(new, model, train="head", **BRIEF)
    before, after = state(model), state(tuned)
    assert torch.equal(before["phi.weight"], after["phi.weight"])
    assert not torch.equal(before["rho.weight"], after["rho.weight"])


def test_the_same_seed_gives_the_same_model(model, new):
    short = tuning(max_epochs=2)
    first, second = (state(stp.tl.finetune(new, model, schedule=short, seed=3)) for _ in "ab")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_another_layer_gives_its_units(model, new):
    table = new.tables["table"]
    table.layers["mine"] = table.layers["log1p"] * 2
    tuned = stp.tl.finetune(new, model, layer="mine", **BRIEF)
    assert tuned.units == "mine"
    assert tuned.recipe.layer == "mine"
    assert tuned.recipe.embed == model.recipe.embed


# ---- bad input -----------------------------------------------------------------------------


def test_methods_without_training_steps_are_refused(sections, new):
    old = only(sections, ["S1", "S2"])
    options = {"embedding": "X_colour"}
    for name, fit in (("ridge", stp.tl.fit_ridge), ("trees", stp.tl.fit_trees)):
        with pytest.raises(ValueError, match=rf"of {name} is fitted in one go.*fit_{name} on all"):
            stp.tl.finetune(new, fit(old, **options))

    def ridge(sdata):
        return stp.tl.fit_ridge(sdata, **options)

    stack = stp.tl.fit_stacking(old, {"a": ridge, "b": ridge}, meta="mean")
    with pytest.raises(ValueError, match=r"a stack cannot be finetuned: finetune its bases"):
        stp.tl.finetune(new, stack)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"train": "phi"}, ValueError, "train='phi' is not one of 'all', 'head'"),
        ({"genes": []}, ValueError, "genes= is empty"),
        ({"genes": ["a", "a"]}, ValueError, "repeated: a"),
        ({"genes": ["ERBB2"]}, ValueError, "1 of 1 genes are not among the model's 6: ERBB2"),
        ({"groups": "donor"}, KeyError, "no column groups='donor'"),
        ({"layer": "ranks"}, KeyError, "has no 'ranks'"),
        ({"loss": "poisson"}, ValueError, "loss='poisson' is a likelihood of counts, but"),
        ({"loss": "mse_pearsen"}, ValueError, "did you mean 'mse_pearson'"),
    ],
)
def test_bad_options_are_refused(model, new, options, error, message):
    with pytest.raises(error, match=message):
        stp.tl.finetune(new, model, **options)


def test_inputs_computed_differently_are_refused(model, new):
    stp.pp.neighbors(new, n_neighbors=3)
    with pytest.raises(ValueError, match=r"neighbors step was run differently.*pp\.prepare"):
        stp.tl.finetune(new, model)


def test_a_layer_in_other_units_is_refused(model, new):
    stp.pp.normalize(new, target_sum=1e6)
    with pytest.raises(ValueError, match=r"counts per 1,000,000.*counts per 10,000.*pp\.prepare"):
        stp.tl.finetune(new, model)


def test_genes_that_were_not_measured_are_refused(model, new):
    table = new.tables["table"]
    new.tables["table"] = table[:, table.var_names != model.genes[0]].copy()
    with pytest.raises(KeyError, match=rf"1 of 6 genes are not in the table: {model.genes[0]}"):
        stp.tl.finetune(new, model)
    stp.tl.finetune(new, model, genes=model.genes[1:], **BRIEF)


def test_a_custom_loss_has_to_be_given_again(sections, new):
    model = stp.tl.fit_deepspot(only(sections, ["S1", "S2"]), **SHORT, loss=torch.nn.L1Loss())
    with pytest.raises(ValueError, match=r"its own loss: give loss= \(L1Loss\(\)\)"):
        stp.tl.finetune(new, model)
    stp.tl.finetune(new, model, loss=torch.nn.L1Loss(), **BRIEF)
