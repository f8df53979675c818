"""Targets are saved as JSON and safetensors, and damaged states are refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load, save

from stpredict import targets


def fitted(kind, scaling="robust"):
    values = np.random.default_rng(0).poisson(3, (60, 9)).astype(np.float32)
    values[:, 4] = 0
    options = {
        "genes": {"scaling": scaling},
        "counts": {"library": np.full(60, 200)},
        "high": {"quantile": 0.4},
    }.get(kind, {"n_factors": 2, "scaling": scaling})
    return targets.fit(kind, values, columns=[8, 4, 1], **options), values


def round_trip(original):
    config, tensors = original.state()
    return json.loads(json.dumps(config)), load(save(tensors))


@pytest.mark.parametrize("scaling", targets.SCALINGS)
@pytest.mark.parametrize("kind", targets.KINDS)
def test_loaded_targets_are_bit_identical_to_the_saved_ones(kind, scaling):
    original, values = fitted(kind, scaling)
    loaded = targets.from_state(*round_trip(original))
    assert type(loaded) is type(original)
    assert (loaded.n_outputs, loaded.outputs) == (original.n_outputs, original.outputs)
    outputs = original.transform(values)
    np.testing.assert_array_equal(loaded.transform(values), outputs)
    np.testing.assert_array_equal(loaded.inverse(outputs), original.inverse(outputs))
    np.testing.assert_array_equal(loaded.mean, original.mean)
    np.testing.assert_array_equal(loaded.constant, original.constant)
    if original.outputs:
        np.testing.assert_array_equal(loaded.factors(outputs), original.factors(outputs))
    config, tensors = loaded.state()
    assert config == original.state()[0]
    assert tensors.keys() == original.state()[1].keys()


@pytest.mark.parametrize("kind", targets.KINDS)
def test_missing_parts_are_refused(kind):
    config, tensors = round_trip(fitted(kind)[0])
    for name in config:
        with pytest.raises(ValueError, match=f"the saved targets lack {name}"):
            targets.from_state({k: v for k, v in config.items() if k != name}, tensors)
    for name in tensors:
        with pytest.raises(ValueError, match=f"the saved targets lack the array {name}"):
            targets.from_state(config, {k: v for k, v in tensors.items() if k != name})


@pytest.mark.parametrize("kind", targets.KINDS)
def test_arrays_of_another_shape_or_type_and_nan_are_refused(kind):
    config, tensors = round_trip(fitted(kind)[0])
    for name, tensor in tensors.items():
        wrong = {
            "is float16, but": tensor.astype(np.float16),
            "has shape": np.stack([tensor, tensor]),
        }
        if tensor.dtype == np.float32:
            wrong["NaN"] = np.full_like(tensor, np.nan)
        for message, damaged in wrong.items():
            with pytest.raises(ValueError, match=message):
                targets.from_state(config, tensors | {name: damaged})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "pickle"}, "kind of the saved targets='pickle' is not one of"),
        ({"kind": ["svd"]}, "is not one of"),
        ({"n_fit_genes": 8}, "columns go from 1 to 8, fit genes from 0 to 7"),
        ({"n_fit_genes": "9"}, "whole number of at least 1: '9'"),
        ({"n_fit_genes": 10**12}, "has shape"),
        ({"n_factors": 3}, r"has shape \(2,\), but \(3\)"),
        ({"n_factors": 2.0}, r"whole number of at least 1: 2\.0"),
        ({"scaling": "other"}, "scaling of the saved targets='other' is not one of"),
    ],
)
def test_a_damaged_configuration_is_refused(changes, message):
    config, tensors = round_trip(fitted("svd")[0])
    with pytest.raises(ValueError, match=message):
        targets.from_state(config | changes, tensors)


@pytest.mark.parametrize(
    ("name", "damaged", "message"),
    [
        ("columns", np.array([8, 8, 1]), "more than once"),
        ("columns", np.array([8, 9, 1]), "from 1 to 9, fit genes from 0 to 8"),
        ("genes.scale", np.full(9, -1, np.float32), "negative"),
        ("components", np.full((2, 9), -1, np.float32), "18 are negative"),
    ],
)
def test_impossible_values_are_refused(name, damaged, message):
    config, tensors = round_trip(fitted("nmf")[0])
    with pytest.raises(ValueError, match=message):
        targets.from_state(config, tensors | {name: damaged})
