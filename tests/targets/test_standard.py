"""Standardisation: inverse, constants, and comparison with scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.preprocessing import StandardScaler

from stpredict.targets import Standard, _standard

ROWS = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 30), st.integers(1, 5)),
    elements=st.floats(-1e5, 1e5, width=32),
)


@settings(deadline=None)
@given(ROWS)
def test_inverse_undoes_transform(values):
    standard = Standard.fit(values)
    back = standard.inverse(standard.transform(values))
    largest = np.abs(values).max(axis=0)
    assert (np.abs(back - values) <= 1e-5 * np.maximum(largest, 1e-6)).all()


@settings(deadline=None)
@given(ROWS)
def test_scaled_training_rows_have_mean_0_and_deviation_1_or_0(values):
    standard = Standard.fit(values)
    scaled = standard.transform(values).astype(np.float64)
    assert np.isfinite(scaled).all()
    # the relative precision of float32, 6e-8, is amplified by a small deviation
    varying = ~standard.constant
    largest = np.abs(values).max(axis=0)[varying].astype(np.float64)
    slack = 1e-4 + 1e-6 * largest / standard.scale[varying]
    assert (np.abs(scaled.mean(axis=0)[varying]) <= slack).all()
    assert (np.abs(scaled.std(axis=0)[varying] - 1) <= slack).all()
    assert (scaled[:, ~varying] == 0).all()


@settings(deadline=None)
@given(
    st.floats(-1e4, 1e4, width=32),
    st.integers(1, 200),
    hnp.arrays(np.float32, (3, 1), elements=st.floats(-1e3, 1e3, width=32)),
)
def test_a_constant_is_predicted_as_that_constant(constant, n_rows, predicted):
    standard = Standard.fit(np.full((n_rows, 1), constant, dtype=np.float32))
    assert standard.constant.all()
    assert (standard.transform(predicted) == 0).all()
    np.testing.assert_array_equal(standard.inverse(predicted), np.float32(constant))


def test_a_constant_with_rounding_errors_is_constant():
    values = np.log1p(np.full((1000, 1), 0.1, dtype=np.float32)) * np.float32(3)
    values[::2] = np.nextafter(values[::2], np.float32(9))
    assert Standard.fit(values).constant.all()


def test_columns_are_scaled_as_in_scikit_learn():
    random = np.random.default_rng(0)
    values = random.normal(3, [1, 10, 0.01, 0], (50, 4)).astype(np.float32)
    new = random.normal(2, 5, (20, 4)).astype(np.float32)
    standard, oracle = Standard.fit(values), StandardScaler().fit(values.astype(np.float64))
    np.testing.assert_allclose(standard.mean, oracle.mean_, rtol=1e-6)
    np.testing.assert_allclose(standard.scale[:3], oracle.scale_[:3], rtol=1e-6)
    expected = oracle.transform(new.astype(np.float64))[:, :3]
    np.testing.assert_allclose(standard.transform(new)[:, :3], expected, rtol=1e-5, atol=1e-4)


def test_the_last_axis_is_scaled():
    random = np.random.default_rng(1)
    standard = Standard.fit(random.normal(2, 3, (40, 6)))
    subtiles = random.normal(size=(5, 9, 6)).astype(np.float32)
    whole = standard.transform(subtiles)
    assert whole.shape == subtiles.shape
    np.testing.assert_array_equal(whole[3, 7], standard.transform(subtiles[3, 7]))


def test_times_makes_the_results_smaller_by_a_factor():
    values = np.random.default_rng(1).normal(2, [3, 0], (40, 2))
    standard = Standard.fit(values)
    smaller = standard.times(9)
    np.testing.assert_allclose(
        smaller.transform(values), standard.transform(values) / 9, rtol=1e-5, atol=1e-7
    )
    np.testing.assert_allclose(smaller.inverse(smaller.transform(values)), values, rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_all_arrays_are_float32(dtype):
    values = np.arange(12).reshape(4, 3).astype(dtype)
    standard = Standard.fit(values)
    for array in (
        standard.mean,
        standard.scale,
        standard.transform(values),
        standard.inverse(values),
    ):
        assert array.dtype == np.float32


def test_fit_and_transform_do_not_change_their_input():
    values = np.random.default_rng(2).normal(size=(5, 2)).astype(np.float32)
    before = values.copy()
    Standard.fit(values).transform(values)
    np.testing.assert_array_equal(values, before)


def test_nan_is_refused():
    with pytest.raises(ValueError, match="finite"):
        Standard.fit(np.array([[1.0, np.nan], [2.0, 3.0]]))


def test_mean_and_scale_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match=r"\(2,\) and \(3,\)"):
        Standard(np.zeros(2, np.float32), np.ones(3, np.float32))


def test_blocks_of_columns_change_nothing(monkeypatch):
    values = np.random.default_rng(0).normal(3, 2, (50, 11)).astype(np.float32)
    whole = Standard.fit(values)
    monkeypatch.setattr(_standard, "BLOCK", 150)  # three columns
    blocks = Standard.fit(values)
    np.testing.assert_array_equal(blocks.mean, whole.mean)
    np.testing.assert_allclose(blocks.scale, whole.scale, rtol=1e-7)
