"""Motions, rims and the search, on arrays with planted answers."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from scipy import ndimage

from stpredict.alignment import Evidence, apply, estimate, motion, pitch_of, rim_of
from stpredict.alignment._evidence import basis_of, explained_variance

coordinates = st.floats(-1e3, 1e3)
angles = st.floats(-180, 180)


def grid(n=10, pitch=100.0):
    xs, ys = np.meshgrid(np.arange(n), np.arange(n))
    return np.column_stack([xs.ravel(), ys.ravel()]) * pitch


@given(coordinates, coordinates, angles, st.floats(-0.5, 0.5), coordinates, coordinates)
def test_a_motion_keeps_shape_and_carries_its_centre_by_the_shift(dx, dy, angle, log_scale, x, y):
    matrix = motion((dx, dy), angle=angle, log_scale=log_scale, center=(x, y))
    np.testing.assert_allclose(apply(matrix, np.array([[x, y]])), [[x + dx, y + dy]], atol=1e-6)
    points = np.array([[0.0, 0.0], [3.0, 4.0]])
    moved = apply(matrix, points)
    np.testing.assert_allclose(np.linalg.norm(moved[1] - moved[0]), 5 * np.exp(log_scale))
    np.testing.assert_allclose(apply(np.linalg.inv(matrix), moved), points, atol=1e-6)


def test_a_quarter_turn_carries_x_to_y():
    np.testing.assert_allclose(
        apply(motion((0, 0), angle=90, center=(0, 0)), np.array([[1.0, 0.0]])), [[0, 1]], atol=1e-12
    )


def test_the_pitch_is_the_distance_of_neighbours_whatever_single_spots_do():
    centers = np.r_[grid(), [[5.0, 5.0]]]
    assert pitch_of(centers) == 100


def test_the_rim_lies_one_pitch_outside_and_knows_its_spot():
    centers = grid(5)
    rim, owner = rim_of(centers, 100.0)
    np.testing.assert_allclose(np.linalg.norm(rim - centers[owner], axis=1), 100)
    inside = ((rim > -1e-9) & (rim < 400 + 1e-9)).all(axis=1)
    assert not inside.any()
    middle = {6, 7, 8, 11, 12, 13, 16, 17, 18}
    assert not middle & set(owner.tolist())


def test_the_rim_enters_holes():
    centers = grid(7)
    centers = np.delete(centers, 24, axis=0)  # the one in the middle
    rim, _ = rim_of(centers, 100.0)
    assert (np.linalg.norm(rim - 300, axis=1) < 10).any()


def test_explained_variance_is_that_of_a_regression():
    from sklearn.linear_model import LinearRegression
    from sklearn.metrics import r2_score

    rng = np.random.default_rng(0)
    features = rng.normal(size=(50, 4))
    targets = features @ rng.normal(size=(4, 3)) + rng.normal(size=(50, 3))
    fitted = LinearRegression().fit(features, targets).predict(features)
    assert explained_variance(basis_of(features), targets) == pytest.approx(
        r2_score(targets, fitted)
    )


@pytest.mark.parametrize(
    ("features", "targets"),
    [
        (np.ones((20, 2)), np.arange(20.0)[:, None]),
        (np.arange(20.0)[:, None], np.ones((20, 1))),
    ],
    ids=["constant features", "constant expression"],
)
def test_what_is_constant_explains_nothing(features, targets):
    assert explained_variance(basis_of(features), targets) == 0


def test_collinear_features_are_counted_once():
    x = np.random.default_rng(0).normal(size=(30, 1))
    y = np.random.default_rng(1).normal(size=(30, 1))
    once = explained_variance(basis_of(x), y)
    assert explained_variance(basis_of(np.hstack([x, 2 * x, x + 1])), y) == pytest.approx(once)


def evidence(centers, *, tissue=None, features=None, expression=None, um_per_px=10.0):
    """Evidence in an image of 200 × 200 pixels; what is not given says nothing."""
    rim, owner = rim_of(centers, 100.0)
    blank = np.ones((200, 200))
    return Evidence(
        tissue=blank if tissue is None else tissue,
        features=blank[None] if features is None else features,
        um_per_px=um_per_px,
        centers=centers,
        rim=rim,
        rim_owner=owner,
        expression=np.zeros((len(centers), 1)) if expression is None else expression,
        pitch=100.0,
    )


def truth():
    """Spots on a disc of tissue, in a smooth random landscape."""
    centers = grid(20) + 50
    centers = centers[np.linalg.norm(centers - (1000, 950), axis=1) < 620]
    ys, xs = (np.mgrid[:200, :200] + 0.5) * 10
    tissue = (np.hypot(xs - 1000, ys - 950) < 650).astype(float)
    rng = np.random.default_rng(0)
    features = np.stack([ndimage.gaussian_filter(rng.normal(size=(200, 200)), 8) for _ in range(3)])
    here = (centers / 10).astype(int)
    expression = features[:, here[:, 1], here[:, 0]].T
    expression = expression / expression.std(axis=0) + rng.normal(size=expression.shape) * 0.5
    return centers, ndimage.gaussian_filter(tissue, 2), features, expression


MOVED = motion((90, -60), angle=2.0, center=(1000, 950))


@pytest.mark.parametrize("signals", ["both", "tissue", "expression"])
def test_either_signal_finds_the_planted_motion_alone(signals):
    centers, tissue, features, expression = truth()
    known = {}
    if signals != "expression":
        known["tissue"] = tissue
    if signals != "tissue":
        known |= {"features": features, "expression": expression}
    found = estimate(evidence(apply(MOVED, centers), **known), kind="rigid", max_shift=200)
    back = apply(found.matrix, apply(MOVED, centers))
    # a disc of tissue says nothing about rotation
    tolerance = 30 if signals == "tissue" else 10
    assert np.median(np.linalg.norm(back - centers, axis=1)) < tolerance
    assert found.is_better
    assert found.gain > found.required >= max(found.noise, 0.03)


def test_a_scale_is_found_as_far_as_an_outline_tells_it():
    centers, tissue, features, expression = truth()
    moved = apply(motion((0, 0), log_scale=0.04, center=(1000, 950)), centers)
    seen = evidence(moved, tissue=tissue, features=features, expression=expression)
    found = estimate(seen, kind="similarity", max_shift=100)
    assert np.linalg.det(found.matrix[:2, :2]) < 1
    off = np.linalg.norm(apply(found.matrix, moved) - centers, axis=1)
    assert np.median(off) < 0.2 * 100 < np.quantile(np.linalg.norm(moved - centers, axis=1), 0.75)


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_better_where_nothing_is_known(seed):
    centers, _, features, expression = truth()
    shuffled = np.random.default_rng(seed).permutation(expression)
    found = estimate(
        evidence(centers, features=features, expression=shuffled), kind="translation", max_shift=200
    )
    assert not found.is_better
    assert found.noise > 0.02
    assert found.required == max(found.noise, 0.03)
    flat = estimate(evidence(centers), kind="translation", max_shift=200)
    assert not flat.is_better
    assert flat.gain == pytest.approx(0)
    assert flat.noise == 0
    assert flat.required == 0.03


def test_the_surface_peaks_at_the_planted_shift():
    centers, tissue, features, expression = truth()
    seen = evidence(
        centers + np.array([-100, 0]), tissue=tissue, features=features, expression=expression
    )  # fmt: skip
    found = estimate(seen, kind="translation", max_shift=200)
    y, x = np.unravel_index(found.surface.argmax(), found.surface.shape)
    assert found.shifts[x] == pytest.approx(100, abs=20)
    assert found.shifts[y] == pytest.approx(0, abs=20)
    assert len(found.shifts) == len(found.surface)


def test_many_spots_are_thinned_out_and_still_found(monkeypatch):
    monkeypatch.setattr("stpredict.alignment._search._MOST_POINTS", 80)
    centers, tissue, features, expression = truth()
    seen = evidence(
        centers + np.array([60, 40]), tissue=tissue, features=features, expression=expression
    )  # fmt: skip
    found = estimate(seen, kind="translation", max_shift=200)
    np.testing.assert_allclose(found.matrix[:2, 2], (-60, -40), atol=15)
