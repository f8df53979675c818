"""Ridge and trees of scikit-learn in networks, compared with scikit-learn itself."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline

from stpredict.models._estimators import fit_forest, fit_linear, fit_log_odds
from stpredict.models._records import RidgeOptions, TreesOptions
from stpredict.models._tune import ALPHAS, tune_ridge
from stpredict.nn import ForestSets, LinearSets


def data(noise=1.0):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(90, 12)).astype(np.float32)
    targets = features @ rng.normal(size=(12, 3)) + noise * rng.normal(size=(90, 3))
    return features, targets.astype(np.float32), np.repeat(["a", "b", "c"], 30)


def predicted(features, targets, groups, **options):
    network = LinearSets(12, 3, context="spot")
    used = fit_linear(network, features, targets, groups, RidgeOptions(**options), seed=0)
    with torch.no_grad():
        return network(torch.from_numpy(features)).numpy(), used.alpha


@pytest.mark.parametrize("n_components", [None, 4])
def test_ridge_network_predicts_as_scikit_learn(n_components):
    features, targets, groups = data()
    values, alpha = predicted(features, targets, groups, alpha=3.0, n_components=n_components)
    steps = [] if n_components is None else [PCA(n_components, random_state=0)]
    oracle = make_pipeline(*steps, Ridge(3.0)).fit(features, targets)
    np.testing.assert_allclose(values, oracle.predict(features), rtol=1e-4, atol=1e-5)
    assert alpha == 3.0


def test_log_odds_have_the_order_and_near_the_share_the_value_of_ridge_on_high_and_low():
    features, targets, groups = data()
    is_high = (targets > np.quantile(targets, [0.3, 0.5, 0.9], axis=0)[[0, 1, 2], [0, 1, 2]]) * 1.0
    network = LinearSets(12, 3, context="spot")
    options = RidgeOptions(alpha=200.0)
    fit_log_odds(network, features, is_high.astype(np.float32), groups, options, seed=0)
    with torch.no_grad():
        values = network(torch.from_numpy(features)).numpy().astype(np.float64)
    linear = Ridge(200.0).fit(features, is_high).predict(features)
    share = is_high.mean(axis=0)
    expected = np.log(share / (1 - share)) + (linear - share) / (share * (1 - share))
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-4)
    near = np.abs(linear - share) < 0.05
    assert near.any()
    np.testing.assert_allclose((1 / (1 + np.exp(-values)))[near], linear[near], atol=0.02)


def test_targets_that_are_always_high_or_low_have_finite_log_odds():
    features, _, groups = data()
    is_high = np.tile(np.float32([0, 1, 0]), (90, 1))
    is_high[:45, 2] = 1
    network = LinearSets(12, 3, context="spot")
    fit_log_odds(network, features, is_high, groups, RidgeOptions(), seed=0)
    with torch.no_grad():
        values = network(torch.from_numpy(features)).numpy()
    assert np.isfinite(values).all()
    assert values[:, 0].max() < -10
    assert values[:, 1].min() > 10


@pytest.mark.parametrize("n_components", [None, 4])
def test_tuned_alpha_predicts_left_out_groups_best(n_components):
    features, targets, groups = data(noise=6.0)
    steps = [] if n_components is None else [PCA(n_components, random_state=0)]
    errors = []
    for alpha in ALPHAS:
        squared = []
        for group in "abc":
            out = groups == group
            model = make_pipeline(*steps, Ridge(alpha)).fit(features[~out], targets[~out])
            squared.append(((model.predict(features[out]) - targets[out]) ** 2).mean())
        errors.append(np.mean(squared))
    _, _, alpha = tune_ridge(features, targets, groups, n_components=n_components)
    assert alpha == ALPHAS[int(np.argmin(errors))]
    assert 1 < alpha < ALPHAS[-1]


def test_alpha_of_hest_follows_the_size_of_the_problem():
    features, targets, groups = data()
    whole = predicted(features, targets, groups, alpha="hest", n_components=None)[1]
    some = predicted(features, targets, groups, alpha="hest", n_components=4)[1]
    assert whole == pytest.approx(100 / (12 * 3))
    assert some == pytest.approx(100 / (4 * 3))


def test_fitting_trees_does_not_change_warning_filters():
    features, targets, groups = data()
    before = list(warnings.filters)
    for seed in range(3):
        network = ForestSets(12, 3, context="spot")
        fit_forest(network, features, targets, groups, TreesOptions(n_trees=60), seed=seed)
    assert warnings.filters == before
