"""High or low: thresholds from training rows, probabilities, and quantiles out of range."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stpredict import targets


def values(n_rows=60, seed=0):
    return np.random.default_rng(seed).poisson(2, (n_rows, 8)).astype(np.float32)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 40), st.floats(0.01, 0.99), st.booleans())
def test_a_gene_is_high_above_the_quantile_of_training_rows(seed, n_rows, quantile, is_sparse):
    training, new = values(n_rows, seed), values(30, seed + 1)
    columns = [6, 0, 3]
    make = sp.csr_matrix if is_sparse else np.array
    fitted = targets.fit("high", make(training), columns=columns, quantile=quantile)
    for place, column in enumerate(columns):
        ordered = sorted(training[:, column])
        threshold = ordered[int(np.floor(quantile * (n_rows - 1)))]
        is_high = [float(value > threshold) for value in new[:, column]]
        assert fitted.transform(make(new))[:, place].tolist() == is_high
        share = np.mean([value > threshold for value in ordered])
        assert fitted.mean[place] == pytest.approx(share)
        # rows at or below the threshold are at least the quantile
        assert share <= 1 - np.floor(quantile * (n_rows - 1)) / n_rows
        assert fitted.constant[place] == (share in (0, 1))


def test_outputs_are_logarithms_of_odds():
    fitted = targets.fit("high", values(), columns=[1, 2], quantile=0.5)
    outputs = np.array([[0.0, 2.0], [-50.0, 800.0]], dtype=np.float32)
    expected = [[0.5, 1 / (1 + np.exp(-2))], [0, 1]]
    np.testing.assert_allclose(fitted.inverse(outputs), expected, atol=1e-6)
    assert fitted.inverse(outputs).dtype == np.float32


def test_a_gene_equals_the_inverse_and_has_its_slope():
    fitted = targets.fit("high", values(), columns=[1, 2], quantile=0.5)
    outputs = torch.randn(20, 2, requires_grad=True)
    for index in range(2):
        one = fitted.gene(outputs, index)
        np.testing.assert_allclose(
            one.detach(), fitted.inverse(outputs.detach().numpy())[:, index], rtol=1e-5
        )
        (slope,) = torch.autograd.grad(one.sum(), outputs)
        p = one.detach()
        torch.testing.assert_close(slope[:, index], p * (1 - p))


def test_a_gene_without_high_rows_is_constant():
    training = values()
    training[:, 4] = 3
    fitted = targets.fit("high", training, columns=[4, 5], quantile=0.5)
    assert fitted.constant.tolist() == [True, False]
    np.testing.assert_array_equal(fitted.inverse(np.full((3, 2), 4.0))[:, 0], 0)


def test_some_of_the_genes_keep_their_thresholds():
    fitted = targets.fit("high", values(), columns=[1, 5, 2], quantile=0.3)
    part = fitted.subset([2, 0])
    np.testing.assert_array_equal(
        part.transform(values()[:, [2, 1]]), fitted.transform(values())[:, [2, 0]]
    )
    np.testing.assert_array_equal(part.threshold, fitted.threshold[[2, 0]])


@pytest.mark.parametrize("quantile", [0, 1, -0.1, 1.5, float("nan"), float("inf"), True, "0.5"])
def test_quantiles_out_of_range_are_refused(quantile):
    with pytest.raises(ValueError, match=r"quantile must be above 0 and below 1, such as 0\.5"):
        targets.fit("high", values(), columns=[0], quantile=quantile)


def test_only_high_takes_a_quantile():
    with pytest.raises(ValueError, match="targets='high' needs quantile="):
        targets.fit("high", values(), columns=[0])
    with pytest.raises(ValueError, match="targets='genes' takes no quantile="):
        targets.fit("genes", values(), columns=[0], quantile=0.5)
    with pytest.raises(ValueError, match="n_factors=2 is only for"):
        targets.fit("high", values(), columns=[0], quantile=0.5, n_factors=2)
