"""Ridge regression from sums, compared with scikit-learn, which refits every fold and alpha."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, LeaveOneGroupOut
from sklearn.pipeline import make_pipeline

from stpredict.models import _tune
from stpredict.models._tune import ALPHAS, fit_ridge, tune_ridge


def data(n, d, *, seed=0, noise=3.0, dtype=np.float64, n_targets=4):
    """Features of unlike size that are correlated and not centred, with a constant among them."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, d)) @ (np.eye(d) + 0.3 * rng.normal(size=(d, d))) + 5
    features[:, 1] = 2.0
    targets = features @ rng.normal(size=(d, n_targets)) * 0.3 - 7
    targets += noise * rng.normal(size=targets.shape)
    groups = np.array(["a", "b", "c"])[rng.choice(3, n, p=[0.6, 0.3, 0.1])]
    targets[groups == "b"] += 1
    return features.astype(dtype), targets.astype(dtype), groups


def oracle(features, targets, groups, n_components):
    steps = [] if n_components is None else [PCA(n_components, svd_solver="full")]
    return GridSearchCV(
        make_pipeline(*steps, Ridge()),
        {"ridge__alpha": ALPHAS},
        scoring="neg_mean_squared_error",
        cv=LeaveOneGroupOut().split(features, groups=groups),
    ).fit(features, targets)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("n_components", [None, 5])
@pytest.mark.parametrize(("n", "d"), [(300, 12), (60, 40), (40, 90)])
def test_tuned_ridge_equals_grid_search(n, d, n_components, seed):
    features, targets, groups = data(n, d, seed=seed)
    expected = oracle(features, targets, groups, n_components)
    coefficients, intercept, alpha = tune_ridge(
        features, targets, groups, n_components=n_components
    )
    assert alpha == expected.best_params_["ridge__alpha"]
    np.testing.assert_allclose(
        features @ coefficients.T + intercept, expected.predict(features), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("n_components", [None, 5])
@pytest.mark.parametrize(("n", "d"), [(120, 12), (40, 90)])
def test_error_of_every_alpha_equals_grid_search(n, d, n_components):
    features, targets, groups = data(n, d)
    expected = oracle(features, targets, groups, n_components).cv_results_
    rows = _tune.Rows.of(features, targets)
    whole = rows.sums(np.arange(n))
    for number, name in enumerate(np.unique(groups)):
        left_out = rows.sums(np.flatnonzero(groups == name))
        fits = (whole - left_out).fits(ALPHAS, n_components)
        np.testing.assert_allclose(
            [left_out.error(fit) for fit in fits], -expected[f"split{number}_test_score"], rtol=1e-8
        )


@pytest.mark.parametrize(("n", "d"), [(120, 12), (40, 90)])
def test_fixed_alpha_equals_scikit_learn(n, d):
    features, targets, _ = data(n, d)
    coefficients, intercept = fit_ridge(features, targets, alpha=17.0)
    expected = Ridge(17.0).fit(features, targets)
    np.testing.assert_allclose(coefficients, expected.coef_, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(intercept, expected.intercept_, rtol=1e-8)


def test_block_size_does_not_change_the_result(monkeypatch):
    whole = tune_ridge(*data(200, 10))
    monkeypatch.setattr(_tune, "_BLOCK", 50)  # three rows
    for one, other in zip(whole, tune_ridge(*data(200, 10)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)


def test_float32_is_summed_in_float64():
    result = tune_ridge(*data(300, 12, dtype=np.float32))
    expected = tune_ridge(*data(300, 12))
    assert result[0].dtype == np.float64
    for one, other in zip(result, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_single_target_and_constant_features():
    features, targets, groups = data(60, 6, n_targets=1)
    assert tune_ridge(features, targets, groups)[0].shape == (1, 6)
    coefficients, intercept, _ = tune_ridge(np.ones((60, 6)), targets, groups)
    np.testing.assert_allclose(coefficients, 0, atol=1e-12)
    np.testing.assert_allclose(intercept, targets.mean(axis=0))


def test_single_group_is_refused():
    features, targets, groups = data(60, 6)
    with pytest.raises(ValueError, match="one group at a time, but all rows belong to 'a'"):
        tune_ridge(features, targets, np.full_like(groups, "a"))
