"""Metrics against scipy and scikit-learn, and on what these do not define."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from sklearn.metrics import root_mean_squared_error

from stpredict import metrics

N_SPOTS, N_GENES = 40, 7


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
def test_pcc_is_scipys(pair, shift):
    measured, predicted = pair()
    expected = by_gene(lambda x, y: stats.pearsonr(x, y).statistic, measured, predicted)
    found = metrics.pcc(measured + shift, predicted - shift)
    np.testing.assert_allclose(found, expected, atol=1e-9)


@pytest.mark.parametrize("pair", [random_pair, tied_pair])
def test_spearman_is_scipys(pair):
    measured, predicted = pair()
    expected = by_gene(lambda x, y: stats.spearmanr(x, y).statistic, measured, predicted)
    np.testing.assert_allclose(metrics.spearman(measured, predicted), expected, atol=1e-12)


@pytest.mark.parametrize("pair", [random_pair, tied_pair])
def test_rmse_is_scikit_learns(pair):
    measured, predicted = pair()
    expected = root_mean_squared_error(measured, predicted, multioutput="raw_values")
    np.testing.assert_allclose(metrics.rmse(measured, predicted), expected, rtol=1e-12)


@pytest.mark.parametrize("score", [metrics.pcc, metrics.spearman])
@pytest.mark.parametrize("constant", [0.0, 0.1, -3e5])
def test_a_constant_gene_scores_0_and_leaves_the_others_alone(score, constant):
    measured, predicted = random_pair()
    whole = score(measured, predicted)
    for side in (measured, predicted):
        kept = side[:, 2].copy()
        side[:, 2] = constant
        found = score(measured, predicted)
        assert found[2] == 0
        np.testing.assert_array_equal(np.delete(found, 2), np.delete(whole, 2))
        side[:, 2] = kept


def test_a_constant_with_rounding_errors_scores_0():
    measured, predicted = random_pair()
    predicted = predicted.astype(np.float32)
    predicted[:, 0] = np.float32(1.1)
    predicted[::2, 0] = np.nextafter(np.float32(1.1), np.float32(2))
    assert metrics.pcc(measured, predicted)[0] == 0


@pytest.mark.parametrize("score", [metrics.pcc, metrics.spearman])
@settings(deadline=None)
@given(
    values=hnp.arrays(np.float64, (12, 2), elements=st.floats(-100, 100, width=16)),
    slope=st.floats(0.1, 10),
    shift=st.floats(-10, 10),
)
def test_correlations_have_the_range_and_symmetry_of_correlations(score, values, slope, shift):
    x, y = values[:, :1], values[:, 1:]
    found = score(x, y)
    assert found.shape == (1,)
    assert -1 <= found[0] <= 1
    np.testing.assert_allclose(score(y, x), found, atol=1e-12)
    assert score(x, x)[0] in (0, pytest.approx(1))
    np.testing.assert_allclose(metrics.pcc(slope * x + shift, y), metrics.pcc(x, y), atol=1e-6)


def test_float32_is_computed_in_float64():
    measured, predicted = (side.astype(np.float32) + 1000 for side in random_pair())
    expected = metrics.pcc(measured.astype(np.float64), predicted.astype(np.float64))
    np.testing.assert_array_equal(metrics.pcc(measured, predicted), expected)
    assert metrics.rmse(measured, predicted).dtype == np.float64


@pytest.mark.parametrize("score", [metrics.pcc, metrics.spearman, metrics.rmse])
class TestBadInput:
    def test_shapes_that_differ(self, score):
        with pytest.raises(ValueError, match=r"\(4, 2\) and \(2, 4\)"):
            score(np.zeros((4, 2)), np.zeros((2, 4)))

    def test_vectors(self, score):
        with pytest.raises(ValueError, match=r"must both be \(n_spots, n_genes\)"):
            score(np.zeros(4), np.zeros(4))

    def test_a_single_spot(self, score):
        with pytest.raises(ValueError, match="at least two spots, found 1"):
            score(np.zeros((1, 3)), np.zeros((1, 3)))

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    @pytest.mark.parametrize("side", ["measured", "predicted"])
    def test_values_that_are_not_finite(self, score, side, bad):
        pair = dict(zip(("measured", "predicted"), random_pair(), strict=True))
        pair[side][3, 1] = bad
        with pytest.raises(ValueError, match=f"1 {side} values are NaN or infinite"):
            score(**pair)
