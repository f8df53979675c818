"""Motions, rims and the search on arrays with a planted motion."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from scipy import ndimage

from stpredict.alignment import (
    Evidence,
    estimate_motion,
    motion_matrix,
    move_points,
    pitch_of,
    rim_of,
)
from stpredict.alignment._evidence import explained_share, orthonormal_basis

coordinates = st.floats(-1e3, 1e3)
angles = st.floats(-180, 180)


def grid(n=10, pitch=100.0):
    xs, ys = np.meshgrid(np.arange(n), np.arange(n))
    return np.column_stack([xs.ravel(), ys.ravel()]) * pitch


@given(coordinates, coordinates, angles, st.floats(-0.5, 0.5), coordinates, coordinates)
def test_a_motion_preserves_shape_and_shifts_its_centre(dx, dy, angle, log_scale, x, y):
    matrix = motion_matrix((dx, dy), angle=angle, log_scale=log_scale, center=(x, y))
    np.testing.assert_allclose(
        move_points(matrix, np.array([[x, y]])), [[x + dx, y + dy]], atol=1e-6
    )
    points = np.array([[0.0, 0.0], [3.0, 4.0]])
    moved = move_points(matrix, points)
    np.testing.assert_allclose(np.linalg.norm(moved[1] - moved[0]), 5 * np.exp(log_scale))
    np.testing.assert_allclose(move_points(np.linalg.inv(matrix), moved), points, atol=1e-6)


def test_a_quarter_turn_rotates_x_to_y():
    np.testing.assert_allclose(
        move_points(motion_matrix((0, 0), angle=90, center=(0, 0)), np.array([[1.0, 0.0]])),
        [[0, 1]],
        atol=1e-12,
    )


def test_the_pitch_is_robust_to_single_spots():
    centers = np.r_[grid(), [[5.0, 5.0]]]
    assert pitch_of(centers) == 100


def test_the_rim_is_one_pitch_outside_its_spot():
    centers = grid(5)
    rim, owner = rim_of(centers, 100.0)
    np.testing.assert_allclose(np.linalg.norm(rim - centers[owner], axis=1), 100)
    inside = ((rim > -1e-9) & (rim < 400 + 1e-9)).all(axis=1)
    assert not inside.any()
    middle = {6, 7, 8, 11, 12, 13, 16, 17, 18}
    assert not middle & set(owner.tolist())


def test_the_rim_includes_holes():
    centers = grid(7)
    centers = np.delete(centers, 24, axis=0)  # the one in the middle
    rim, _ = rim_of(centers, 100.0)
    assert (np.linalg.norm(rim - 300, axis=1) < 10).any()


def test_the_explained_share_equals_a_regression():
    from sklearn.linear_model import LinearRegression
    from sklearn.metrics import r2_score

    rng = np.random.default_rng(0)
    features = rng.normal(size=(50, 4))
    targets = features @ rng.normal(size=(4, 3)) + rng.normal(size=(50, 3))
    fitted = LinearRegression().fit(features, targets).predict(features)
    assert explained_share(orthonormal_basis(features), targets) == pytest.approx(
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
def test_constant_values_explain_nothing(features, targets):
    assert explained_share(orthonormal_basis(features), targets) == 0


def test_collinear_features_are_counted_once():
    x = np.random.default_rng(0).normal(size=(30, 1))
    y = np.random.default_rng(1).normal(size=(30, 1))
    once = explained_share(orthonormal_basis(x), y)
    assert explained_share(orthonormal_basis(np.hstack([x, 2 * x, x + 1])), y) == pytest.approx(
        once
    )


def evidence(centers, *, tissue=None, features=None, expression=None, um_per_px=10.0):
    """Evidence in an image of 200 × 200 pixels; constant by default."""
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


def planted_section():
    """Spots on a disc of tissue with smooth random image features."""
    centers = grid(20) + 50
    centers = centers[np.linalg.norm(centers - (1000, 950), axis=1) < 620]
    ys, xs = (np.mgrid[:200, :200] + 0.5) * 10
    tissue = (np.hypot(xs - 1000, ys - 950) < 650).astype(float)
    rng = np.random.default_rng(0)
    features = np.stack([ndimage.gaussian_filter(rng.normal(size=(200, 200)), 8) for _ in range(3)])
    pixels = (centers / 10).astype(int)
    expression = features[:, pixels[:, 1], pixels[:, 0]].T
    expression = expression / expression.std(axis=0) + rng.normal(size=expression.shape) * 0.5
    return centers, ndimage.gaussian_filter(tissue, 2), features, expression


MOVED = motion_matrix((90, -60), angle=2.0, center=(1000, 950))


@pytest.mark.parametrize("signals", ["both", "tissue", "expression"])
def test_each_signal_alone_recovers_the_planted_motion(signals):
    centers, tissue, features, expression = planted_section()
    options = {}
    if signals != "expression":
        options["tissue"] = tissue
    if signals != "tissue":
        options |= {"features": features, "expression": expression}
    result = estimate_motion(
        evidence(move_points(MOVED, centers), **options), kind="rigid", max_shift=200
    )
    back = move_points(result.matrix, move_points(MOVED, centers))
    # a disc of tissue has no information about rotation
    tolerance = 30 if signals == "tissue" else 10
    assert np.median(np.linalg.norm(back - centers, axis=1)) < tolerance
    assert result.is_better
    assert result.gain > result.required >= max(result.noise, 0.03)


def test_a_planted_scale_is_recovered_approximately():
    centers, tissue, features, expression = planted_section()
    moved = move_points(motion_matrix((0, 0), log_scale=0.04, center=(1000, 950)), centers)
    moved_evidence = evidence(moved, tissue=tissue, features=features, expression=expression)
    result = estimate_motion(moved_evidence, kind="similarity", max_shift=100)
    assert np.linalg.det(result.matrix[:2, :2]) < 1
    error = np.linalg.norm(move_points(result.matrix, moved) - centers, axis=1)
    assert np.median(error) < 0.2 * 100 < np.quantile(np.linalg.norm(moved - centers, axis=1), 0.75)


@pytest.mark.parametrize("seed", range(3))
def test_no_motion_is_better_without_evidence(seed):
    centers, _, features, expression = planted_section()
    shuffled = np.random.default_rng(seed).permutation(expression)
    result = estimate_motion(
        evidence(centers, features=features, expression=shuffled), kind="translation", max_shift=200
    )
    assert not result.is_better
    assert result.noise > 0.02
    assert result.required == max(result.noise, 0.03)
    flat = estimate_motion(evidence(centers), kind="translation", max_shift=200)
    assert not flat.is_better
    assert flat.gain == pytest.approx(0)
    assert flat.noise == 0
    assert flat.required == 0.03


def test_the_surface_peaks_at_the_planted_shift():
    centers, tissue, features, expression = planted_section()
    moved_evidence = evidence(
        centers + np.array([-100, 0]), tissue=tissue, features=features, expression=expression
    )  # fmt: skip
    result = estimate_motion(moved_evidence, kind="translation", max_shift=200)
    y, x = np.unravel_index(result.surface.argmax(), result.surface.shape)
    assert result.shifts[x] == pytest.approx(100, abs=20)
    assert result.shifts[y] == pytest.approx(0, abs=20)
    assert len(result.shifts) == len(result.surface)


def test_the_motion_is_recovered_from_a_subset_of_spots(monkeypatch):
    monkeypatch.setattr("stpredict.alignment._search._MAX_POINTS", 80)
    centers, tissue, features, expression = planted_section()
    moved_evidence = evidence(
        centers + np.array([60, 40]), tissue=tissue, features=features, expression=expression
    )  # fmt: skip
    result = estimate_motion(moved_evidence, kind="translation", max_shift=200)
    np.testing.assert_allclose(result.matrix[:2, 2], (-60, -40), atol=15)
