"""Metrics against scipy and scikit-learn, and on constant genes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from sklearn.metrics import (
    average_precision_score,
    explained_variance_score,
    mean_absolute_error,
    roc_auc_score,
    root_mean_squared_error,
)

from stpredict import metrics

N_SPOTS, N_GENES = 40, 7
PER_GENE = [
    name for name, record in metrics.METRICS.items() if record.function and hasattr(metrics, name)
]


def random_pair(seed=0):
    random = np.random.default_rng(seed)
    measured = random.normal(size=(N_SPOTS, N_GENES))
    return measured, 0.5 * measured + random.normal(size=measured.shape)


def tied_pair(seed=0):
    random = np.random.default_rng(seed)
    return random.poisson(0.7, (N_SPOTS, N_GENES)), random.poisson(1.5, (N_SPOTS, N_GENES))


def by_gene(score, measured, predicted):
    return [score(measured[:, g], predicted[:, g]) for g in range(measured.shape[1])]


@pytest.mark.parametrize("pair", [random_pair, tied_pair])
@pytest.mark.parametrize("shift", [0, 1e4])
def test_pcc_equals_scipy(pair, shift):
    measured, predicted = pair()
    expected = by_gene(lambda x, y: stats.pearsonr(x, y).statistic, measured, predicted)
    scores = metrics.pcc(measured + shift, predicted - shift)
    np.testing.assert_allclose(scores, expected, atol=1e-9)


@pytest.mark.parametrize("pair", [random_pair, tied_pair])
def test_spearman_equals_scipy(pair):
    measured, predicted = pair()
    expected = by_gene(lambda x, y: stats.spearmanr(x, y).statistic, measured, predicted)
    np.testing.assert_allclose(metrics.spearman(measured, predicted), expected, atol=1e-12)


@pytest.mark.parametrize("pair", [random_pair, tied_pair])
def test_rmse_equals_scikit_learn(pair):
    measured, predicted = pair()
    expected = root_mean_squared_error(measured, predicted, multioutput="raw_values")
    np.testing.assert_allclose(metrics.rmse(measured, predicted), expected, rtol=1e-12)


@pytest.mark.parametrize("pair", [random_pair, tied_pair])
@pytest.mark.parametrize(
    ("score", "oracle"),
    [
        (metrics.mae, mean_absolute_error),
        (metrics.explained_variance, explained_variance_score),
    ],
)
def test_errors_equal_scikit_learn(pair, score, oracle):
    measured, predicted = pair()
    expected = oracle(measured, predicted, multioutput="raw_values")
    np.testing.assert_allclose(score(measured, predicted), expected, rtol=1e-12)


@pytest.mark.parametrize("pair", [random_pair, tied_pair])
def test_variance_ratio_equals_numpy(pair):
    measured, predicted = pair()
    expected = predicted.var(axis=0) / measured.var(axis=0)
    np.testing.assert_allclose(metrics.variance_ratio(measured, predicted), expected, rtol=1e-12)


@pytest.mark.parametrize("density", [0.02, 0.3, 0.95])
@pytest.mark.parametrize("n_levels", [1, 3, 1000])
def test_auc_equals_scikit_learn(density, n_levels):
    random = np.random.default_rng(0)
    measured = random.poisson(2, (N_SPOTS, N_GENES)) * (random.random((N_SPOTS, N_GENES)) < density)
    measured[:2] = [[0], [3]]
    predicted = random.integers(n_levels, size=measured.shape) / 7
    expected = by_gene(lambda x, y: roc_auc_score(x != 0, y), measured, predicted)
    np.testing.assert_allclose(metrics.auc(measured, predicted), expected, rtol=1e-12)


@pytest.mark.parametrize("density", [0.02, 0.3, 0.95])
@pytest.mark.parametrize("n_levels", [1, 3, 1000])
def test_average_precision_equals_scikit_learn(density, n_levels):
    random = np.random.default_rng(1)
    measured = random.poisson(2, (N_SPOTS, N_GENES)) * (random.random((N_SPOTS, N_GENES)) < density)
    measured[0] = 3
    predicted = random.integers(n_levels, size=measured.shape) / 7
    expected = by_gene(lambda x, y: average_precision_score(x != 0, y), measured, predicted)
    scores = metrics.average_precision(measured, predicted)
    np.testing.assert_allclose(scores, expected, rtol=1e-12)
    if n_levels == 1:  # chance
        np.testing.assert_allclose(scores, (measured != 0).mean(axis=0))


def test_average_precision_of_genes_in_no_spot_and_in_all():
    measured, predicted = tied_pair()
    measured[:, 2], measured[:, 4] = 0, 1
    scores = metrics.average_precision(measured, predicted)
    np.testing.assert_array_equal(np.isnan(scores), np.arange(N_GENES) == 2)
    assert scores[4] == 1


@pytest.mark.parametrize("level", [0, 2])
def test_auc_is_nan_for_a_gene_expressed_in_no_spot_or_in_all(level):
    measured, predicted = tied_pair()
    measured[:, 2] = level
    scores = metrics.auc(measured, predicted)
    np.testing.assert_array_equal(np.isnan(scores), np.arange(N_GENES) == 2)


@settings(deadline=None)
@given(
    measured=hnp.arrays(np.int8, (9, 3), elements=st.integers(0, 2)),
    predicted=hnp.arrays(np.float64, (9, 3), elements=st.floats(-3, 3, width=16)),
)
def test_auc_depends_on_ranks_only(measured, predicted):
    predicted = np.round(predicted, 2)
    scores = metrics.auc(measured, predicted)
    assert np.all((scores >= 0) & (scores <= 1) | np.isnan(scores))
    np.testing.assert_allclose(metrics.auc(measured, -predicted), 1 - scores, atol=1e-12)
    np.testing.assert_allclose(metrics.auc(measured, np.exp(predicted)), scores, atol=1e-12)


@pytest.mark.parametrize("constant", [0.0, 0.1, -3e5])
def test_scores_of_constant_genes(constant):
    measured, predicted = tied_pair()
    flat = np.full(measured.shape, constant)
    assert (metrics.auc(measured, flat) == 0.5).all()
    assert (metrics.variance_ratio(measured, flat) == 0).all()
    np.testing.assert_allclose(metrics.explained_variance(measured, flat), 0, atol=1e-12)
    assert np.isnan(metrics.variance_ratio(flat, predicted)).all()
    assert (metrics.explained_variance(flat, predicted) == 0).all()
    assert (metrics.explained_variance(flat, flat) == 0).all()
    assert (metrics.mae(flat, flat) == 0).all()


def test_a_perfect_prediction():
    measured = tied_pair()[0] + np.arange(N_SPOTS)[:, None] % 3
    perfect = {"pcc": 1, "spearman": 1, "rmse": 0, "mae": 0, "explained_variance": 1}
    perfect |= {"variance_ratio": 1, "auc": 1}
    for name, values in metrics.per_gene(measured, measured, names=list(perfect)).items():
        np.testing.assert_allclose(values, perfect[name], atol=1e-12, err_msg=name)


def test_a_constant_offset_changes_the_error_but_not_the_explained_variance():
    measured = random_pair()[0]
    np.testing.assert_allclose(metrics.explained_variance(measured, measured + 2), 1)
    np.testing.assert_allclose(metrics.mae(measured, measured + 2), 2)


def test_per_gene_equals_the_single_functions():
    measured, predicted = tied_pair()
    scores = metrics.per_gene(measured, predicted, names=PER_GENE)
    assert list(scores) == PER_GENE
    for name, values in scores.items():
        np.testing.assert_array_equal(values, getattr(metrics, name)(measured, predicted))


def test_an_unknown_metric_is_refused():
    with pytest.raises(KeyError, match="'r2'; choose from pcc, spearman, rmse"):
        metrics.per_gene(*random_pair(), names=["pcc", "r2"])


@pytest.mark.parametrize("score", [metrics.pcc, metrics.spearman])
@pytest.mark.parametrize("constant", [0.0, 0.1, -3e5])
def test_a_constant_gene_scores_0_and_does_not_affect_others(score, constant):
    measured, predicted = random_pair()
    whole = score(measured, predicted)
    for side in (measured, predicted):
        original = side[:, 2].copy()
        side[:, 2] = constant
        scores = score(measured, predicted)
        assert scores[2] == 0
        np.testing.assert_array_equal(np.delete(scores, 2), np.delete(whole, 2))
        side[:, 2] = original


def test_a_constant_with_rounding_errors_scores_0():
    measured, predicted = random_pair()
    predicted = predicted.astype(np.float32)
    predicted[:, 0] = np.float32(1.1)
    predicted[::2, 0] = np.nextafter(np.float32(1.1), np.float32(2))
    assert metrics.pcc(measured, predicted)[0] == 0
    assert metrics.spearman(measured, predicted)[0] == 0


@pytest.mark.parametrize("score", [metrics.pcc, metrics.spearman])
@settings(deadline=None)
@given(
    values=hnp.arrays(np.float64, (12, 2), elements=st.floats(-100, 100, width=16)),
    slope=st.floats(0.1, 10),
    shift=st.floats(-10, 10),
)
def test_correlations_are_symmetric_and_in_range(score, values, slope, shift):
    values = np.round(values, 3)  # a range below a millionth counts as constant
    x, y = values[:, :1], values[:, 1:]
    scores = score(x, y)
    assert scores.shape == (1,)
    assert -1 <= scores[0] <= 1
    np.testing.assert_allclose(score(y, x), scores, atol=1e-12)
    assert score(x, x)[0] in (0, pytest.approx(1))
    np.testing.assert_allclose(metrics.pcc(slope * x + shift, y), metrics.pcc(x, y), atol=1e-6)


def test_float32_is_computed_in_float64():
    measured, predicted = (side.astype(np.float32) + 1000 for side in random_pair())
    expected = metrics.pcc(measured.astype(np.float64), predicted.astype(np.float64))
    np.testing.assert_array_equal(metrics.pcc(measured, predicted), expected)
    assert metrics.rmse(measured, predicted).dtype == np.float64


@pytest.mark.parametrize("score", [getattr(metrics, name) for name in PER_GENE])
class TestBadInput:
    def test_different_shapes_are_refused(self, score):
        with pytest.raises(ValueError, match=r"\(4, 2\) and \(2, 4\)"):
            score(np.zeros((4, 2)), np.zeros((2, 4)))

    def test_vectors_are_refused(self, score):
        with pytest.raises(ValueError, match=r"must both be \(n_spots, n_genes\)"):
            score(np.zeros(4), np.zeros(4))

    def test_a_single_spot_is_refused(self, score):
        with pytest.raises(ValueError, match="at least two spots, found 1"):
            score(np.zeros((1, 3)), np.zeros((1, 3)))

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    @pytest.mark.parametrize("side", ["measured", "predicted"])
    def test_non_finite_values_are_refused(self, score, side, bad):
        pair = dict(zip(("measured", "predicted"), random_pair(), strict=True))
        pair[side][3, 1] = bad
        with pytest.raises(ValueError, match=f"1 {side} values are NaN or infinite"):
            score(**pair)
