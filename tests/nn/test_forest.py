"""Linear maps and forests over sets: comparison with scikit-learn, damaged tables."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.ensemble import ExtraTreesRegressor

from stpredict.models._estimators import fit_forest
from stpredict.models._records import TreesOptions
from stpredict.nn import ForestSets, LinearSets


def test_linear_sets_are_linear_maps_of_the_means():
    torch.manual_seed(0)
    network = LinearSets(3, 2, context="spot_neighbors").double()
    center, neighbors = torch.randn(5, 3).double(), torch.randn(5, 4, 3).double()
    mask = torch.arange(4) < torch.tensor([4, 2, 1, 0, 3]).unsqueeze(1)
    y = network(center, neighbors=neighbors, neighbor_mask=mask)
    for i in range(5):
        near = neighbors[i][mask[i]]
        mean = near.mean(0) if len(near) else torch.zeros(3).double()
        torch.testing.assert_close(y[i], network.linear(torch.cat([center[i], mean])))


@pytest.fixture
def grown():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(300, 6)).astype(np.float32)
    targets = np.stack([features[:, 0] > 0, features[:, 3] * features[:, 1]], 1).astype(np.float32)
    forest = ForestSets(6, 2, context="spot")
    options = TreesOptions(n_trees=30, min_samples_leaf=3, max_features=0.5)
    fit_forest(forest, features, targets, np.repeat("a", 300), options, seed=4)
    oracle = ExtraTreesRegressor(30, min_samples_leaf=3, max_features=0.5, random_state=4)
    return forest, oracle.fit(features, targets)


def test_a_forest_predicts_like_that_of_scikit_learn(grown):
    forest, oracle = grown
    new = np.random.default_rng(1).normal(size=(500, 6)).astype(np.float32)
    predicted = forest(torch.from_numpy(new))
    np.testing.assert_allclose(predicted.numpy(), oracle.predict(new), rtol=1e-5, atol=1e-6)
    members = forest.member_heads(torch.from_numpy(new)).numpy()
    for tree, member in zip(oracle.estimators_, members, strict=True):
        np.testing.assert_array_equal(member, tree.predict(new).astype(np.float32))


def test_chunks_change_nothing(grown, monkeypatch):
    forest, _ = grown
    x = torch.randn(40, 6)
    whole = forest(x)
    monkeypatch.setattr("stpredict.nn.forest._CHUNK", 1)
    torch.testing.assert_close(forest(x), whole)
    assert forest(x[:0]).shape == (0, 2)


def test_one_pass_through_the_trees_gives_the_mean_and_the_members(grown, monkeypatch):
    forest, _ = grown
    x = torch.randn(40, 6)
    expected = forest.head(x), forest.member_heads(x)
    calls = []
    leaves = ForestSets._leaves
    monkeypatch.setattr(ForestSets, "_leaves", lambda *args: calls.append(1) or leaves(*args))
    for output, reference in zip(forest.heads(x), expected, strict=True):
        torch.testing.assert_close(output, reference, rtol=1e-6, atol=1e-7)
    assert len(calls) == 1


def test_the_state_dict_restores_the_predictions(grown):
    forest, _ = grown
    other = ForestSets(6, 2, context="spot")
    with pytest.raises(ValueError, match=r"has no trees: fill it with grow\(\)"):
        other(torch.zeros(1, 6))
    other.load_state_dict(forest.state_dict())
    x = torch.randn(20, 6)
    assert torch.equal(other(x), forest(x))


def test_rounded_thresholds_send_every_value_to_the_same_side():
    """Also values at a threshold, and one step of float32 above and below it."""
    rng = np.random.default_rng(0)
    doubles = torch.from_numpy(rng.normal(size=500) * 10.0 ** rng.integers(-30, 30, 500))
    nearest = doubles.float()
    near = [torch.nextafter(nearest, torch.tensor(side * torch.inf)) for side in (-1, 1)]
    forest = ForestSets(1, 1, context="spot")
    for threshold, *x in zip(doubles, nearest, *near, strict=True):
        nodes = small() | {"feature": torch.tensor([0, -1, -1])}
        forest.load_state_dict(nodes | {"threshold": torch.stack([threshold, *[threshold] * 2])})
        x = torch.stack(x).unsqueeze(1)
        expected = torch.where(x.double() > threshold, 4.0, 3.0)
        torch.testing.assert_close(forest(x), expected, rtol=0, atol=0)


def test_thresholds_are_saved_as_doubles_and_kept_without(grown):
    forest, _ = grown
    assert not any(buffer.dtype == torch.float64 for buffer in forest.buffers())
    assert forest.state_dict()["threshold"].dtype == torch.float64  # as in earlier versions


def small():
    """One split, two leaves."""
    return {
        "feature": torch.tensor([1, -1, -1]),
        "threshold": torch.tensor([0.5, 0, 0]).double(),
        "branches": torch.tensor([[1, 2], [-1, -1], [-1, -1]]),
        "value": torch.tensor([[0.0], [3.0], [4.0]]),
        "roots": torch.tensor([0]),
    }


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "branches",
            [[0, 2], [-1, -1], [-1, -1]],
            "a child, or splits on a feature, out",
        ),  # a cycle
        ("branches", [[1, 3], [-1, -1], [-1, -1]], "a child, or splits on a feature, out"),
        (
            "branches",
            [[-1, 2], [-1, -1], [-1, -1]],
            "a child, or splits on a feature, out",
        ),
        ("feature", [2, -1, -1], "a child, or splits on a feature, out"),
        ("feature", [1, -1], "2 nodes have thresholds, branches, values of shapes"),
        ("roots", [3], "a child, or splits on a feature, out"),
        ("roots", [-1], "a child, or splits on a feature, out"),
        ("value", [[0.0, 1.0], [3.0, 1.0], [4.0, 1.0]], "3 nodes have thresholds"),
        ("threshold", [0.5], "3 nodes have thresholds"),
    ],
)
def test_damaged_tables_are_refused(name, value, message):
    forest = ForestSets(2, 1, context="spot")
    damaged = small()
    damaged[name] = torch.tensor(value, dtype=damaged[name].dtype)
    with pytest.raises(ValueError, match=message):
        forest.load_state_dict(damaged)
    assert len(forest.feature) == 0  # nothing was loaded
    forest.load_state_dict(small())
    assert forest(torch.tensor([[9.0, 0.2], [9.0, 0.7]])).tolist() == [[3.0], [4.0]]


def test_missing_tables_are_named():
    forest, state = ForestSets(2, 1), small()
    del state["roots"]
    with pytest.raises(RuntimeError, match="roots"):
        forest.load_state_dict(state)


@pytest.mark.parametrize("network", [LinearSets, ForestSets])
def test_invalid_options_are_refused(network):
    with pytest.raises(ValueError, match=r"context='cell' is not one of 'spot'"):
        network(2, 1, context="cell")
    with pytest.raises(ValueError, match=r"n_targets=0 must be at least 1"):
        network(2, 0)
