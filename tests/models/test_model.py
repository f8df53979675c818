"""The fitted model on plain arrays."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from spatialdata import SpatialData

import stpredict as stp
from stpredict._sdata._recipe import Recipe
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
            best_epochs=(),
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
    embeddings = {"center": center}
    if uses_subtiles:
        embeddings["subtiles"] = random.normal(3, 2, (N, S, D)).astype(np.float32)
    if uses_neighbors:
        embeddings["neighbors"] = center[neighbors]
        embeddings["neighbor_mask"] = neighbors >= 0
    return embeddings, neighbors


@pytest.mark.parametrize("context", CONTEXTS)
def test_predictions_are_unscaled_network_outputs(context):
    model, (embeddings, _) = model_of(context), arrays(context)
    scalers = {"center": model.inputs, "neighbors": model.inputs, "subtiles": model.subtiles}
    scaled = {
        name: torch.from_numpy(scalers[name].transform(values) if name in scalers else values)
        for name, values in embeddings.items()
    }
    with torch.inference_mode():
        expected = model.targets.inverse(model.network(**scaled).numpy())
    predicted = model.predict_array(**embeddings)
    assert predicted.shape == (N, G)
    assert predicted.dtype == np.float32
    np.testing.assert_allclose(predicted, expected, rtol=1e-4, atol=1e-5)
    assert (predicted[:, 2] == -3).all()  # constant in training


@pytest.mark.parametrize("context", CONTEXTS)
def test_graph_of_embeddings_predicts_as_gathered_arrays(context):
    model, (embeddings, neighbors) = model_of(context), arrays(context)
    inputs = Inputs(
        center=embeddings["center"],
        scaler=model.inputs,
        subtiles=embeddings.get("subtiles"),
        subtile_scaler=model.subtiles,
        neighbors=neighbors if "neighbors" in embeddings else None,
    )
    predicted, spread = model.predict_inputs(inputs)
    alone, nothing = model.predict_inputs(inputs, spread=False)
    np.testing.assert_array_equal(alone, predicted)
    assert nothing is None
    np.testing.assert_allclose(predicted, model.predict_array(**embeddings), rtol=0, atol=1e-5)
    members = [  # of rho, one network each
        dataclasses.replace(model, network=_only(model.network, i)).predict_array(**embeddings)
        for i in range(len(model.network.rho.weight))
    ]
    np.testing.assert_allclose(predicted, np.mean(members, axis=0), rtol=0, atol=1e-4)
    np.testing.assert_allclose(spread, np.std(members, axis=0), rtol=0, atol=1e-4)


def _only(network, i):
    """The network with a single member of rho."""
    single = copy.deepcopy(network)
    for name in ("weight", "bias"):
        single.rho.register_parameter(
            name, torch.nn.Parameter(getattr(network.rho, name)[i : i + 1].clone())
        )
    return single


def test_padding_does_not_change_predictions():
    model, (embeddings, _) = model_of(), arrays()
    predicted = model.predict_array(**embeddings)
    embeddings["neighbors"] = np.where(
        embeddings["neighbor_mask"][..., None], embeddings["neighbors"], 1e3
    )
    np.testing.assert_array_equal(model.predict_array(**embeddings), predicted)


def test_without_a_mask_all_neighbors_are_used():
    model, (embeddings, _) = model_of(), arrays()
    embeddings["neighbor_mask"] = np.ones((N, K), dtype=bool)
    predicted = model.predict_array(**embeddings)
    embeddings.pop("neighbor_mask")
    np.testing.assert_array_equal(model.predict_array(**embeddings), predicted)


def test_float64_embeddings_are_accepted():
    model, (embeddings, _) = model_of("spot"), arrays("spot")
    predicted = model.predict_array(embeddings["center"])
    np.testing.assert_array_equal(
        model.predict_array(embeddings["center"].astype(np.float64)), predicted
    )


def test_input_arrays_are_not_changed():
    model, (embeddings, _) = model_of(), arrays()
    before = {name: values.copy() for name, values in embeddings.items()}
    model.predict_array(**embeddings)
    for name, values in embeddings.items():
        np.testing.assert_array_equal(values, before[name])


class TestBadInput:
    @pytest.mark.parametrize("name", ["center", "subtiles", "neighbors"])
    def test_wrong_width_is_refused(self, name):
        embeddings, _ = arrays()
        embeddings[name] = embeddings[name][..., :-1]
        message = rf"{name} has 4 features, the model was trained on 5 \(X_texture\)"
        with pytest.raises(ValueError, match=message):
            model_of().predict_array(**embeddings)

    @pytest.mark.parametrize("name", ["center", "subtiles", "neighbors"])
    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_values_that_are_not_finite_are_refused(self, name, bad):
        embeddings, _ = arrays()
        embeddings[name][0, ..., 0] = bad
        with pytest.raises(ValueError, match=f"{name} has NaN or infinite values"):
            model_of().predict_array(**embeddings)

    @pytest.mark.parametrize("name", ["subtiles", "neighbors"])
    def test_missing_input_is_refused(self, name):
        embeddings, _ = arrays()
        embeddings.pop(name)
        embeddings.pop("neighbor_mask")
        with pytest.raises(ValueError, match=f"needs {name}"):
            model_of().predict_array(**embeddings)

    @pytest.mark.parametrize("name", ["subtiles", "neighbors"])
    def test_unused_input_is_refused(self, name):
        embeddings, _ = arrays()
        with pytest.raises(ValueError, match=f"takes no {name}"):
            model_of("spot").predict_array(embeddings["center"], **{name: embeddings[name]})

    @pytest.mark.parametrize("name", ["subtiles", "neighbors", "neighbor_mask"])
    @pytest.mark.parametrize("n", [N - 1, N + 1])
    def test_wrong_number_of_rows_is_refused(self, name, n):
        embeddings, _ = arrays()
        embeddings[name] = np.resize(embeddings[name], (n, *embeddings[name].shape[1:]))
        with pytest.raises(ValueError, match=f"{name} has {n} rows, center has {N}"):
            model_of().predict_array(**embeddings)

    def test_single_vector_is_refused(self):
        with pytest.raises(ValueError, match="shape"):
            model_of("spot").predict_array(np.zeros(D, np.float32))


@pytest.mark.parametrize(
    "function",
    [
        lambda model: stp.pp.prepare(SpatialData(), model),
        lambda model: stp.tl.predict(SpatialData(), model),
        lambda model: stp.tl.calibrate(SpatialData(), model),
        lambda model: stp.tl.finetune(SpatialData(), model),
        lambda model: stp.tl.attribute(SpatialData(), model, "ERBB2"),
        stp.pl.loss_curve,
    ],
)
@pytest.mark.parametrize("model", [None, "deepspot_her2", stp.tl.fit_ridge, 3])
def test_what_is_no_model_is_refused(function, model):
    with pytest.raises(
        TypeError, match=f"model must be a fitted model .*, not {type(model).__name__}"
    ):
        function(model)
