"""Correlation of the top genes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stpredict import metrics

SCORES = np.array([0.1, 0.9, -0.2, 0.4])


@given(st.permutations(range(4)), st.integers(1, 4))
def test_every_point_is_the_mean_over_the_first_genes(order, n):
    curve = metrics.pcc_of_top(SCORES, order[:n])
    expected = [SCORES[order[:k]].mean() for k in range(1, n + 1)]
    np.testing.assert_allclose(curve.pcc, expected, atol=1e-15)
    assert curve.area == pytest.approx(np.mean(expected))


def test_a_ranking_by_score_has_the_largest_area():
    best, worst = np.argsort(-SCORES), np.argsort(SCORES)
    areas = [metrics.pcc_of_top(SCORES, order).area for order in (best, worst)]
    assert areas[0] > SCORES.mean() > areas[1]


def test_the_area_of_equal_scores_is_the_score():
    assert metrics.pcc_of_top(np.full(5, 0.3), np.arange(5)).area == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("scores", "ranking", "message"),
    [
        (SCORES, [0, 1, 1], "genes of the ranking are not unique, repeated: 1"),
        (SCORES, [0, 4], "has 4, but pcc has positions 0 to 3"),
        (SCORES, [0, -1], "has -1, but pcc has positions"),
        (SCORES, [], r"\(4,\) and \(0,\)"),
        ([], [0], r"pcc and ranking must be .*: \(0,\) and \(1,\)"),
        (SCORES[None], [0], r"\(1, 4\) and \(1,\)"),
        (SCORES, np.array(["ERBB2"]), "must be integer positions of genes, not <U5"),
        (SCORES, [0.0, 1.0], "not float64"),
        ([0.1, np.nan], [0], "pcc has 1 values that are NaN"),
    ],
)
def test_invalid_input_is_refused(scores, ranking, message):
    with pytest.raises(ValueError, match=message):
        metrics.pcc_of_top(scores, ranking)
