"""Scores of spots against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from stpredict import metrics

BOTH = [
    (metrics.pcc_per_spot, stats.pearsonr),
    (metrics.spearman_per_spot, stats.spearmanr),
]


def pair(tied):
    random = np.random.default_rng(0)
    if tied:
        return random.poisson(0.7, (12, 30)), random.poisson(1.5, (12, 30))
    measured = random.normal(size=(12, 30))
    return measured, measured + random.normal(size=measured.shape)


@pytest.mark.parametrize(("score", "oracle"), BOTH)
@pytest.mark.parametrize("tied", [False, True])
def test_it_equals_scipy(score, oracle, tied):
    measured, predicted = pair(tied)
    expected = [oracle(x, y).statistic for x, y in zip(measured, predicted, strict=True)]
    np.testing.assert_allclose(score(measured, predicted), expected, atol=1e-12)


@pytest.mark.parametrize(("score", "oracle"), BOTH)
def test_a_constant_spot_scores_0(score, oracle):
    measured, predicted = pair(tied=False)
    predicted[4] = 0.1
    scores = score(measured, predicted)
    assert scores[4] == 0
    assert (np.delete(scores, 4) != 0).all()


@pytest.mark.parametrize(("score", "oracle"), BOTH)
def test_one_spot_is_enough_and_one_gene_is_not(score, oracle):
    measured, predicted = pair(tied=False)
    np.testing.assert_allclose(score(measured[:1], predicted[:1]), score(measured, predicted)[:1])
    with pytest.raises(ValueError, match="at least two genes, found 1"):
        score(measured[:, :1], predicted[:, :1])


@pytest.mark.parametrize(("score", "oracle"), BOTH)
def test_invalid_input_is_refused(score, oracle):
    measured, predicted = pair(tied=False)
    with pytest.raises(ValueError, match=r"\(12, 30\) and \(30, 12\)"):
        score(measured, predicted.T)
    predicted[3, 2:5] = np.nan
    with pytest.raises(ValueError, match="3 predicted values are NaN or infinite, among spots 0"):
        score(measured, predicted)
