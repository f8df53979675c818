"""The contract of every registered method: it learns, it is saved, and it records its training.

A method is tested because it is registered; only its smallest sensible size is listed here.
"""

from __future__ import annotations

import inspect
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

import stpredict as stp
from helpers import prepared_phantom
from stpredict._sdata._spot_table import copy_of
from stpredict.models._methods import METHODS

#: Arguments that keep a fit small, for the methods that have them.
SMALL = {
    "n_hidden": 32,
    "n_trees": 40,
    "tile_um": 40.0,
    "average_symmetries": True,
    "bases": {
        "ridge": partial(stp.tl.fit_ridge, alpha=1e3),
        "trees": partial(stp.tl.fit_trees, n_trees=20),
    },
    "device": "cpu",
}
NETWORKS = {
    "deepspot": stp.tl.DeepSpotNetwork(n_hidden=32, n_phi=3, n_rho=3, n_networks=1),
    "deepcell": stp.tl.DeepCellNetwork(n_hidden=32, n_phi=3, n_rho=3),
    "cnn": stp.tl.CNNNetwork(tile_px=24),
    "multiscale": stp.tl.MultiScaleNetwork(tile_px=24, widths=(4, 8, 8), n_tile=16, n_subtile=8),
}
PIXELS = ("cnn", "multiscale")


@pytest.fixture(scope="module")
def sections():
    design = {"size_px": 900, "n_morphology": 8, "n_neighborhood": 2, "n_null": 2}
    select = {"n_top_genes": 10, "flavor": "variance"}
    return prepared_phantom(4, design, select=select, encoder="texture")


def part(sdata, names):
    elements = [element for name in names for element in (name, f"{name}_image")]
    return copy_of(sdata.subset(elements, filter_tables=True))


@pytest.fixture
def train(sections):
    return part(sections, ["S1", "S2", "S3"])


@pytest.fixture
def test(sections):
    return part(sections, ["S4"])


def fit(method, sdata, **options):
    """Fit a small model of a method; options of the schedule are given by name."""
    function = getattr(stp.tl, f"fit_{method}")
    arguments = {**SMALL, **options}
    if takes(method, "schedule"):
        # networks on pixels take long: they are trained just as long as they need to learn
        short = {"max_epochs": 8, "batch_size": 16} if method in PIXELS else {"max_epochs": 40}
        changes = {**short, "learning_rate": 3e-3}
        changes |= {name: value for name, value in options.items() if name in changes}
        default = inspect.signature(function).parameters["schedule"].default
        arguments["schedule"] = replace(default, **changes)
    if takes(method, "network"):
        arguments["network"] = NETWORKS[method]
    return function(sdata, **{k: v for k, v in arguments.items() if takes(method, k)})


def fit_briefly(method, sdata, **options):
    """Fit a method until it has learnt something; on pixels, for one epoch only."""
    return fit(method, sdata, **({"max_epochs": 1} if method in PIXELS else {}), **options)


def takes(method, argument):
    return argument in inspect.signature(getattr(stp.tl, f"fit_{method}")).parameters


every_method = pytest.mark.parametrize("method", METHODS)


@every_method
def test_it_beats_the_training_mean_and_is_saved(method, train, test, tmp_path):
    before = train.tables["table"].copy()
    model = fit(method, train)
    after = train.tables["table"]
    assert set(after.layers) == set(before.layers), "fitting changed the table"
    assert list(after.obs) == list(before.obs)

    model.save(tmp_path / "model")
    loaded = stp.models.load(tmp_path / "model")
    bare = copy_of(test)
    for slot in [*bare.tables["table"].obsm]:
        if slot != "spatial":
            del bare.tables["table"].obsm[slot]
    stp.pp.prepare(bare, loaded)
    stp.tl.predict(bare, loaded, device="cpu")
    stp.tl.predict(test, model, device="cpu")
    predicted, expected = bare.tables["predicted"], test.tables["predicted"]
    np.testing.assert_array_equal(predicted.X, expected.X, strict=True)
    assert expected.X.dtype == np.float32
    assert list(expected.var_names) == list(model.genes)
    assert set(predicted.layers) == set(expected.layers)
    for layer in expected.layers:
        np.testing.assert_array_equal(predicted.layers[layer], expected.layers[layer])

    summary = stp.tl.evaluate(test).summary()
    assert summary.loc["predicted", "pcc"] > 0.3
    assert summary.loc["predicted", "rmse"] < summary.loc["training_mean", "rmse"]
    assert abs(summary.loc["predicted", "pcc_shuffled"]) < 0.1
    assert METHODS[method].paper
    assert model.training.sections == ("S1", "S2", "S3")
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    assert METHODS[method].paper in card


@every_method
def test_the_same_seed_gives_the_same_model(method, train):
    models = [fit(method, train, max_epochs=2) for _ in "ab"]
    states = [model.network.state_dict() for model in models]
    assert states[0].keys() == states[1].keys()
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name]), name


@pytest.mark.parametrize("kind", ["svd", "nmf", "autoencoder"])
@every_method
def test_factors_are_learnt_and_turned_back_into_genes(method, kind, train, test):
    if not takes(method, "targets"):
        pytest.skip(f"fit_{method} takes no targets")
    model = fit_briefly(method, train, targets=kind, n_factors=3)
    stp.tl.predict(test, model, space="factors")
    factors = test.tables["predicted"]
    assert list(factors.var_names) == [f"{kind}_{i}" for i in (1, 2, 3)]
    assert set(factors.layers) <= {None, "std"}  # anndata 0.13: None is X
    stp.tl.predict(test, model)
    predicted = test.tables["predicted"]
    assert list(predicted.var_names) == list(model.genes)
    if method not in PIXELS:
        assert stp.tl.evaluate(test).summary().loc["predicted", "pcc"] > 0.2
    assert np.linalg.matrix_rank(predicted.X - predicted.X.mean(axis=0), tol=1e-2) <= (
        3 if kind != "autoencoder" else len(model.genes)
    )


@every_method
def test_ensembles_report_their_spread(method, train, test):
    model = fit_briefly(method, train)
    stp.tl.predict(test, model)
    predicted = test.tables["predicted"]
    if "std" in predicted.layers:
        spread = predicted.layers["std"]
        assert spread.shape == predicted.shape
        assert spread.dtype == np.float32
        assert (spread[:, ~predicted.var["constant"]] > 0).any()
        assert np.isfinite(spread).all()


@every_method
def test_a_model_of_genes_has_no_factors(method, train, test):
    model = fit(method, train, max_epochs=1)
    before = set(test.tables)
    with pytest.raises(ValueError, match=r"have no factors"):
        stp.tl.predict(test, model, space="factors")
    with pytest.raises(ValueError, match=r"space='latent' is not one of 'genes', 'factors'"):
        stp.tl.predict(test, model, space="latent")
    assert set(test.tables) == before


@every_method
def test_bad_targets_are_refused(method, train):
    if not takes(method, "targets"):
        pytest.skip(f"fit_{method} takes no targets")
    with pytest.raises(ValueError, match=r"n_factors=5000"):
        fit(method, train, targets="svd", n_factors=5000)
    with pytest.raises(ValueError, match=r"targets='pca' is not one of"):
        fit(method, train, targets="pca")


@every_method
def test_losses_that_do_not_suit_the_targets_are_refused(method, train):
    if not takes(method, "loss"):
        pytest.skip(f"fit_{method} takes no loss")
    with pytest.raises(ValueError, match=r"'mse_pearsen': did you mean 'mse_pearson'"):
        fit(method, train, loss="mse_pearsen")
    with pytest.raises(ValueError, match=r"likelihood of counts.*layers\['log1p'\].*layer=None"):
        fit(method, train, loss="poisson")
    with pytest.raises(ValueError, match=r"compares the targets of a spot"):
        fit(method, train, loss="pairwise_hinge", genes=[train.tables["table"].var_names[0]])
    with pytest.raises(ValueError, match=r"neither scaled nor replaced by factors"):
        fit(method, train, loss="poisson", layer=None, targets="svd")


@pytest.mark.parametrize("loss", ["poisson", "negative_binomial"])
@every_method
def test_counts_are_predicted_per_10000(method, loss, train, test):
    if not takes(method, "loss"):
        pytest.skip(f"fit_{method} takes no loss")
    model = fit_briefly(method, train, loss=loss, layer=None)
    assert model.units == "counts per 10,000"
    stp.tl.predict(test, model)
    predicted, measured = test.tables["predicted"], test.tables["table"]
    assert (predicted.X >= 0).all()
    share = measured[:, model.genes].X.toarray() / measured.X.sum(axis=1) * 1e4
    ratio = predicted.X.mean(axis=0) / np.asarray(share).mean(axis=0)
    assert np.median(np.abs(np.log(ratio))) < 0.5
    if method not in PIXELS:
        scores = stp.tl.evaluate(test, layer="log1p")
        assert scores.summary().loc["predicted", "pcc"] > 0.2
    scores = stp.tl.evaluate(test)  # against counts per 10,000, not against raw counts
    assert "Measured values: counts per 10,000." in str(scores.protocol)
    np.testing.assert_allclose(
        scores.genes().loc[list(model.genes), "rmse"],
        stp.metrics.rmse(np.asarray(share), predicted.X),
        rtol=1e-4,
    )
