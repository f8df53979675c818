"""The contract of every registered method: it learns, it is saved, it says how it was made.

A method is tested by being registered: nothing here names one, but for its smallest sensible size.
"""

from __future__ import annotations

import inspect
from functools import partial

import numpy as np
import pytest
import torch

import stpredict as stp
from stpredict._sdata import _sections
from stpredict.models._methods import METHODS

#: Arguments that keep a fit small, for the methods that have them.
SMALL = {
    "n_hidden": 32,
    "n_phi": 3,
    "n_rho": 3,
    "max_epochs": 40,
    "learning_rate": 3e-3,
    "n_trees": 40,
    "tile_um": 40.0,
    "tile_px": 24,
    "widths": (4, 8, 8),
    "n_tile": 16,
    "n_subtile": 8,
    "average_symmetries": True,
    "bases": {
        "ridge": partial(stp.tl.fit_ridge, alpha=1e3),
        "trees": partial(stp.tl.fit_trees, n_trees=20),
    },
    "device": "cpu",
}


#: Networks on pixels take long over each spot: they are trained for as long as shows that they
#: learn, once; elsewhere an epoch or two.
PIXELS = {"max_epochs": 8, "batch_size": 16, "learning_rate": 3e-3}


@pytest.fixture(autouse=True)
def _silent(monkeypatch):
    monkeypatch.setattr(stp.settings, "verbosity", 0)


@pytest.fixture(scope="module")
def sections():
    verbosity, stp.settings.verbosity = stp.settings.verbosity, 0
    sdata = stp.datasets.phantom(
        4, size_px=900, mpp=0.5, pitch_um=40, n_morphology=8, n_neighborhood=2, n_null=2
    )
    stp.pp.normalize(sdata)
    stp.pp.select_genes(sdata, n_top_genes=10, flavor="variance")
    stp.pp.embed(sdata, "texture", tile_um=40, n_subtiles=1)
    stp.pp.neighbors(sdata)
    stp.settings.verbosity = verbosity
    return sdata


def part(sdata, names):
    elements = [element for name in names for element in (name, f"{name}_image")]
    return _sections.copy_of(sdata.subset(elements, filter_tables=True))


@pytest.fixture
def train(sections):
    return part(sections, ["S1", "S2", "S3"])


@pytest.fixture
def test(sections):
    return part(sections, ["S4"])


def fit(method, sdata, **options):
    """Fit a method, small, by its door."""
    small = {**SMALL, **(PIXELS if takes(method, "tile_px") else {}), **options}
    door = getattr(stp.tl, f"fit_{method}")
    return door(sdata, **{k: v for k, v in small.items() if takes(method, k)})


def glance(method, sdata, **options):
    """Fit a method for as long as it takes to learn something; on pixels, less."""
    return fit(method, sdata, **({"max_epochs": 1} if takes(method, "tile_px") else {}), **options)


def takes(method, argument):
    return argument in inspect.signature(getattr(stp.tl, f"fit_{method}")).parameters


every_method = pytest.mark.parametrize("method", METHODS)


@every_method
def test_it_beats_the_training_mean_and_stays_itself_on_disk(method, train, test, tmp_path):
    before = train.tables["table"].copy()
    model = fit(method, train)
    after = train.tables["table"]
    assert set(after.layers) == set(before.layers), "fitting changed the table"
    assert list(after.obs) == list(before.obs)

    model.save(tmp_path / "model")
    loaded = stp.models.load(tmp_path / "model")
    bare = _sections.copy_of(test)
    for slot in [*bare.tables["table"].obsm]:
        if slot != "spatial":
            del bare.tables["table"].obsm[slot]
    stp.pp.prepare(bare, loaded)
    stp.tl.predict(bare, loaded, device="cpu")
    stp.tl.predict(test, model, device="cpu")
    ours, theirs = test.tables["predicted"], bare.tables["predicted"]
    np.testing.assert_array_equal(ours.X, theirs.X, strict=True)
    assert ours.X.dtype == np.float32
    assert list(ours.var_names) == list(model.genes)
    assert set(ours.layers) == set(theirs.layers)
    for layer in ours.layers:
        np.testing.assert_array_equal(ours.layers[layer], theirs.layers[layer])

    summary = stp.tl.evaluate(test).attrs["summary"]
    assert summary["model"]["mean PCC"] > 0.3
    assert summary["model"]["mean RMSE"] < summary["training mean"]["mean RMSE"]
    assert abs(summary["shuffled"]["mean PCC"]) < 0.1
    assert METHODS[method].paper
    assert model.training["sections"] == ["S1", "S2", "S3"]
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
def test_factors_are_learnt_and_come_back_as_genes(method, kind, train, test):
    if not takes(method, "targets"):
        pytest.skip(f"fit_{method} takes no targets")
    model = glance(method, train, targets=kind, n_factors=3)
    stp.tl.predict(test, model, space="factors")
    factors = test.tables["predicted"]
    assert list(factors.var_names) == [f"{kind}_{i}" for i in (1, 2, 3)]
    assert set(factors.layers) <= {"std"}
    stp.tl.predict(test, model)
    predicted = test.tables["predicted"]
    assert list(predicted.var_names) == list(model.genes)
    if not takes(method, "tile_px"):
        assert stp.tl.evaluate(test).attrs["summary"]["model"]["mean PCC"] > 0.2
    assert np.linalg.matrix_rank(predicted.X - predicted.X.mean(axis=0), tol=1e-2) <= (
        3 if kind != "autoencoder" else len(model.genes)
    )


@every_method
def test_ensembles_say_how_far_they_disagree(method, train, test):
    model = glance(method, train)
    stp.tl.predict(test, model)
    predicted = test.tables["predicted"]
    if "std" in predicted.layers:
        spread = predicted.layers["std"]
        assert spread.shape == predicted.shape
        assert spread.dtype == np.float32
        assert (spread[:, ~predicted.var["constant"]] > 0).any()
        assert np.isfinite(spread).all()


@every_method
def test_factors_of_a_model_of_genes(method, train, test):
    model = fit(method, train, max_epochs=1)
    before = set(test.tables)
    with pytest.raises(ValueError, match=r"have no factors"):
        stp.tl.predict(test, model, space="factors")
    with pytest.raises(ValueError, match=r"space='latent' is not one of 'genes', 'factors'"):
        stp.tl.predict(test, model, space="latent")
    assert set(test.tables) == before


@every_method
def test_more_factors_than_the_data_allow(method, train):
    if not takes(method, "targets"):
        pytest.skip(f"fit_{method} takes no targets")
    with pytest.raises(ValueError, match=r"n_factors=5000"):
        fit(method, train, targets="svd", n_factors=5000)
    with pytest.raises(ValueError, match=r"targets='pca' is not one of"):
        fit(method, train, targets="pca")


@every_method
def test_losses_that_do_not_suit(method, train):
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
    model = glance(method, train, loss=loss, layer=None)
    assert model.units == "counts per 10,000"
    stp.tl.predict(test, model)
    predicted, measured = test.tables["predicted"], test.tables["table"]
    assert (predicted.X >= 0).all()
    share = measured[:, model.genes].X.toarray() / measured.X.sum(axis=1) * 1e4
    ratio = predicted.X.mean(axis=0) / np.asarray(share).mean(axis=0)
    assert np.median(np.abs(np.log(ratio))) < 0.5
    if not takes(method, "tile_px"):
        scores = stp.tl.evaluate(test, layer="log1p")
        assert scores.attrs["summary"]["model"]["mean PCC"] > 0.2
    scores = stp.tl.evaluate(test)  # against counts per 10,000, not against raw counts
    assert "X as counts per 10,000" in scores.attrs["protocol"]
    np.testing.assert_allclose(
        scores["measured_mean"][list(model.genes)], np.asarray(share).mean(axis=0), rtol=1e-4
    )
