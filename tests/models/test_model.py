"""The fitted model on plain arrays."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from stpredict._sdata._steps import Recipe
from stpredict.models import Model
from stpredict.models._records import Hyperparameters, TrainingRecord
from stpredict.nn import DeepSets
from stpredict.nn.deepsets import CONTEXTS
from stpredict.targets import Standard
from stpredict.targets import fit as fit_targets
from stpredict.training import Inputs

N, D, G, S, K = 300, 5, 3, 4, 6  # more rows than are predicted at a time


def model_of(context="spot_subspot_neighbors"):
    random = np.random.default_rng(0)
    torch.manual_seed(0)
    targets = random.normal([5, 10, -3], [1, 4, 0], (20, G))
    return Model(
        method="deepspot",
        network=DeepSets(D, G, context=context, n_hidden=8, n_phi=3, n_rho=2).eval(),
        genes=("ERBB2", "GNAS", "MUC1"),
        context=context,
        hyperparameters=Hyperparameters(),
        recipe=Recipe(layer="log1p", embedding="X_texture"),
        training=TrainingRecord(
            sections=("S1",),
            groups=("S1",),
            held_out="nothing",
            n_spots=20,
            n_held_out=0,
            best_epoch=0,
            seed=0,
            versions={},
        ),
        units="log1p",
        inputs=Standard.fit(random.normal(3, 2, (20, D))),
        targets=fit_targets("genes", targets, columns=range(G)),
        history=pd.DataFrame(),
        subtiles=Standard.fit(random.normal(1, 9, (20, D))) if CONTEXTS[context][0] else None,
    )


def arrays(context="spot_subspot_neighbors"):
    random = np.random.default_rng(1)
    neighbors = random.integers(-1, N, (N, K))
    neighbors[7] = -1  # a spot without neighbours
    center = random.normal(3, 2, (N, D)).astype(np.float32)
    uses_subtiles, uses_neighbors = CONTEXTS[context]
    found = {"center": center}
    if uses_subtiles:
        found["subtiles"] = random.normal(3, 2, (N, S, D)).astype(np.float32)
    if uses_neighbors:
        found["neighbors"] = center[neighbors]
        found["neighbor_mask"] = neighbors >= 0
    return found, neighbors


@pytest.mark.parametrize("context", CONTEXTS)
def test_predictions_are_those_of_the_network_unscaled(context):
    model, (given, _) = model_of(context), arrays(context)
    scalers = {"center": model.inputs, "neighbors": model.inputs, "subtiles": model.subtiles}
    scaled = {
        name: torch.from_numpy(scalers[name].transform(values) if name in scalers else values)
        for name, values in given.items()
    }
    with torch.inference_mode():
        wanted = model.targets.inverse(model.network(**scaled).numpy())
    predicted = model.predict_array(**given)
    assert predicted.shape == (N, G)
    assert predicted.dtype == np.float32
    np.testing.assert_allclose(predicted, wanted, rtol=1e-4, atol=1e-5)
    assert (predicted[:, 2] == -3).all()  # constant in training


@pytest.mark.parametrize("context", CONTEXTS)
def test_a_graph_of_embeddings_is_predicted_as_gathered_arrays_are(context):
    model, (given, neighbors) = model_of(context), arrays(context)
    inputs = Inputs(
        center=given["center"],
        scaler=model.inputs,
        subtiles=given.get("subtiles"),
        subtile_scaler=model.subtiles,
        neighbors=neighbors if "neighbors" in given else None,
    )
    predicted, spread = model.predict_inputs(inputs)
    alone, nothing = model.predict_inputs(inputs, spread=False)
    np.testing.assert_array_equal(alone, predicted)
    assert nothing is None
    np.testing.assert_allclose(predicted, model.predict_array(**given), rtol=0, atol=1e-5)
    members = [  # of rho, one network each
        dataclasses.replace(model, network=_only(model.network, i)).predict_array(**given)
        for i in range(len(model.network.rho.weight))
    ]
    np.testing.assert_allclose(predicted, np.mean(members, axis=0), rtol=0, atol=1e-4)
    np.testing.assert_allclose(spread, np.std(members, axis=0), rtol=0, atol=1e-4)


def _only(network, i):
    """The network with a single member of rho."""
    chosen = copy.deepcopy(network)
    for name in ("weight", "bias"):
        chosen.rho.register_parameter(
            name, torch.nn.Parameter(getattr(network.rho, name)[i : i + 1].clone())
        )
    return chosen


def test_padding_does_not_matter():
    model, (given, _) = model_of(), arrays()
    whole = model.predict_array(**given)
    given["neighbors"] = np.where(given["neighbor_mask"][..., None], given["neighbors"], 1e3)
    np.testing.assert_array_equal(model.predict_array(**given), whole)


def test_without_a_mask_all_neighbors_take_part():
    model, (given, _) = model_of(), arrays()
    given["neighbor_mask"] = np.ones((N, K), dtype=bool)
    whole = model.predict_array(**given)
    given.pop("neighbor_mask")
    np.testing.assert_array_equal(model.predict_array(**given), whole)


def test_float64_and_lists_of_rows_are_taken_too():
    model, (given, _) = model_of("spot"), arrays("spot")
    whole = model.predict_array(given["center"])
    np.testing.assert_array_equal(model.predict_array(given["center"].astype(np.float64)), whole)


def test_the_arrays_given_are_left_alone():
    model, (given, _) = model_of(), arrays()
    before = {name: values.copy() for name, values in given.items()}
    model.predict_array(**given)
    for name, values in given.items():
        np.testing.assert_array_equal(values, before[name])


class TestBadInput:
    @pytest.mark.parametrize("name", ["center", "subtiles", "neighbors"])
    def test_another_width(self, name):
        given, _ = arrays()
        given[name] = given[name][..., :-1]
        message = rf"{name} has 4 features, the model was trained on 5 \(X_texture\)"
        with pytest.raises(ValueError, match=message):
            model_of().predict_array(**given)

    @pytest.mark.parametrize("name", ["center", "subtiles", "neighbors"])
    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_values_that_are_not_finite(self, name, bad):
        given, _ = arrays()
        given[name][0, ..., 0] = bad
        with pytest.raises(ValueError, match=f"{name} has NaN or infinite values"):
            model_of().predict_array(**given)

    @pytest.mark.parametrize("name", ["subtiles", "neighbors"])
    def test_something_is_missing(self, name):
        given, _ = arrays()
        given.pop(name)
        given.pop("neighbor_mask")
        with pytest.raises(ValueError, match=f"needs {name}"):
            model_of().predict_array(**given)

    @pytest.mark.parametrize("name", ["subtiles", "neighbors"])
    def test_something_is_not_used(self, name):
        given, _ = arrays()
        with pytest.raises(ValueError, match=f"takes no {name}"):
            model_of("spot").predict_array(given["center"], **{name: given[name]})

    @pytest.mark.parametrize("name", ["subtiles", "neighbors", "neighbor_mask"])
    @pytest.mark.parametrize("n", [N - 1, N + 1])
    def test_another_number_of_rows(self, name, n):
        given, _ = arrays()
        given[name] = np.resize(given[name], (n, *given[name].shape[1:]))
        with pytest.raises(ValueError, match=f"{name} has {n} rows, center has {N}"):
            model_of().predict_array(**given)

    def test_a_single_vector(self):
        with pytest.raises(ValueError, match="shape"):
            model_of("spot").predict_array(np.zeros(D, np.float32))
