"""Ridge and trees as models: what their options do, and which values are refused."""

from __future__ import annotations

import functools

import numpy as np
import pytest

import stpredict as stp
from stpredict._sdata._spot_table import copy_of


@pytest.fixture(scope="module")
def sections():
    sdata = stp.datasets.phantom(2, size_px=700, mpp=0.5, pitch_um=40)
    stp.pp.normalize(sdata)
    stp.pp.select_genes(sdata, n_top_genes=5, flavor="variance")
    stp.pp.embed(sdata, "texture", tile_um=40, n_subtiles=1)
    stp.pp.neighbors(sdata)
    return sdata


@pytest.fixture
def sdata(sections):
    return copy_of(sections)


def test_ridge_records_its_alpha(sdata):
    def alpha(**options):
        return stp.tl.fit_ridge(sdata, **options).hyperparameters.estimator.alpha

    assert alpha(alpha=7) == 7
    assert alpha() >= 1
    hest = stp.tl.fit_ridge(sdata, context="spot", n_components=16, alpha="hest")
    assert hest.hyperparameters.estimator.alpha == pytest.approx(100 / (16 * 5))
    assert hest.hyperparameters.estimator.n_components == 16
    assert hest.training.held_out == "nothing"
    assert hest.training.best_epochs == ()
    assert hest.history.empty


def test_the_baseline_of_a_cross_validation_is_ridge_on_the_spot(sdata):
    ridge = functools.partial(stp.tl.fit_ridge, context="spot", scaling="standard")
    scores = stp.tl.cross_validate(sdata, {"ridge": ridge})
    layers = sdata.tables["out_of_fold"].layers
    np.testing.assert_array_equal(layers["ridge"], layers["tuned_ridge"])
    wide = scores.values()
    np.testing.assert_array_equal(wide["ridge"], wide["tuned_ridge"])


def test_more_shrinkage_predicts_less_spread(sdata):
    spreads = []
    for alpha in (1, 1e3, 1e6):
        stp.tl.predict(sdata, stp.tl.fit_ridge(sdata, alpha=alpha), key_added="ridge")
        spreads.append(sdata.tables["ridge"].X.std(0).mean())
    assert spreads[0] > spreads[1] > 5 * spreads[2]


def test_one_tree_with_leaves_of_one_spot_reproduces_its_training_data(sdata):
    model = stp.tl.fit_trees(sdata, n_trees=1, min_samples_leaf=1, max_features=1.0)
    stp.tl.predict(sdata, model)
    predicted, table = sdata.tables["predicted"], sdata.tables["table"]
    measured = table[:, predicted.var_names].layers["log1p"].toarray()
    np.testing.assert_allclose(predicted.X, measured, atol=1e-4)
    np.testing.assert_allclose(predicted.layers["std"], 0, atol=1e-5)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("ridge", {"n_components": 0}, "n_components must be a whole number of at least 1: 0"),
        (
            "ridge",
            {"n_components": 5000},
            r"n_components=5000 must be 1 to \d+: there are \d+ features, and \d+ training rows "
            r"without the largest group",
        ),
        (
            "ridge",
            {"n_components": 5000, "alpha": "hest", "context": "spot"},
            r"n_components=5000 must be 1 to \d+: there are \d+ features, and \d+ training rows$",
        ),
        ("ridge", {"alpha": 0}, r"alpha must be a number above 0: 0"),
        (
            "ridge",
            {"alpha": "best"},
            "alpha='best' is not a finite number or one of 'tuned', 'hest'",
        ),
        ("ridge", {"context": "cell"}, r"context='cell' is not one of"),
        ("trees", {"n_trees": 0}, r"n_trees must be a whole number of at least 1: 0"),
        ("trees", {"min_samples_leaf": 0}, r"min_samples_leaf must be a whole number.*: 0"),
        ("trees", {"min_samples_leaf": 0.5}, r"min_samples_leaf must be a whole number.*: 0.5"),
        ("trees", {"max_features": 0.0}, r"max_features must be a number above 0: 0.0"),
        ("trees", {"max_features": 1.5}, r"max_features=1.5 must be a share"),
        ("trees", {"targets": "pca"}, r"targets='pca' is not one of"),
    ],
)
def test_bad_options_are_refused(sdata, method, options, message):
    with pytest.raises(ValueError, match=message):
        getattr(stp.tl, f"fit_{method}")(sdata, **options)
    assert set(sdata.tables) == {"table"}
