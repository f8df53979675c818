"""Fits change no global state, and do not depend on it or on the number of threads."""

from __future__ import annotations

import functools
import random

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits

import stpredict as stp

SCHEDULE = stp.tl.Schedule(max_epochs=2, batch_size=32)
NETWORK = {"n_hidden": 8, "n_phi": 2, "n_rho": 2, "n_networks": 1}
ridge = functools.partial(stp.tl.fit_ridge, context="spot")
trees = functools.partial(stp.tl.fit_trees, n_trees=10)
stack = functools.partial(
    stp.tl.fit_stacking,
    bases={"ridge": ridge, "trees": trees},
    n_hidden=8,
    schedule=SCHEDULE,
    device="cpu",
)
network = functools.partial(
    stp.tl.fit_deepspot,
    standardize="training",  # few spots
    network=stp.tl.DeepSpotNetwork(**NETWORK),
    schedule=SCHEDULE,
    device="cpu",
)
#: Methods with the same weights for any number of threads.
EXACT = {
    "ridge": ridge,
    "ridge_svd": functools.partial(ridge, targets="svd", n_factors=2),
    "ridge_nmf": functools.partial(ridge, targets="nmf", n_factors=2),
    "trees": trees,
    "stack_mean": functools.partial(stack, meta="mean"),
    "stack_rank_mean": functools.partial(stack, meta="rank_mean"),
    "stack_ridge": functools.partial(stack, meta="ridge"),
    "tuned": functools.partial(
        stp.tl.fit_tuned, candidates={"ridge": ridge, "trees": trees}, device="cpu"
    ),
}
#: Methods that train networks, whose rounding errors grow from step to step.
TRAINED = {
    "autoencoder": functools.partial(ridge, targets="autoencoder", n_factors=2),
    "stack_mlp": functools.partial(stack, meta="mlp"),
    "deepspot": network,
    "deepcell": functools.partial(
        stp.tl.fit_deepcell,
        network=stp.tl.DeepCellNetwork(**NETWORK),
        schedule=SCHEDULE,
        device="cpu",
    ),
    "cnn": functools.partial(
        stp.tl.fit_cnn,
        network=stp.tl.CNNNetwork(tile_px=16),
        tile_um=40.0,
        schedule=SCHEDULE,
        device="cpu",
    ),
    "multiscale": functools.partial(
        stp.tl.fit_multiscale,
        network=stp.tl.MultiScaleNetwork(tile_px=18, widths=(4, 4, 8), n_tile=8, n_subtile=4),
        tile_um=40.0,
        schedule=SCHEDULE,
        device="cpu",
    ),
}


def finetune(sdata):
    return stp.tl.finetune(sdata, network(sdata), schedule=SCHEDULE, device="cpu")


TRAINED["finetune"] = finetune


@pytest.fixture(scope="module")
def sdata(texture_sections):
    return texture_sections


def global_state():
    return {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": repr(np.random.get_state()),  # noqa: NPY002 the state of users
        "random": random.getstate(),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "precision": (torch.get_default_dtype(), torch.get_float32_matmul_precision()),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


def weights_of(model):
    """All fitted numbers of a model, and of its bases."""
    weights = {name: values.numpy() for name, values in model.network.state_dict().items()}
    weights |= {f"targets.{name}": values for name, values in model.targets.state()[1].items()}
    for name, base in model.bases.items():
        weights |= {f"{name}.{part}": values for part, values in weights_of(base).items()}
    return weights


@pytest.fixture
def fit_with_threads(sdata):
    n_threads = torch.get_num_threads()

    def fit_model(function, n):
        torch.set_num_threads(n)
        torch.manual_seed(n)  # the states before a fit do not matter, either
        with threadpool_limits(n):
            before = global_state()
            model = function(sdata)
            assert global_state() == before
        return weights_of(model)

    yield fit_model
    torch.set_num_threads(n_threads)


@pytest.mark.parametrize("name", [*EXACT, *TRAINED])
def test_a_fit_changes_no_global_state_and_gives_the_same_weights(name, fit_with_threads):
    function = {**EXACT, **TRAINED}[name]
    threads = (1, 2) if name in EXACT else (1, 1)
    first, second = (fit_with_threads(function, n) for n in threads)
    assert first.keys() == second.keys()
    for part, values in first.items():
        np.testing.assert_allclose(values, second[part], rtol=0, atol=1e-6, err_msg=part)


@pytest.mark.parametrize("name", ["deepspot", "deepcell", "cnn", "multiscale", "stacking"])
def test_the_docstring_of_trained_networks_names_the_threads(name):
    text = " ".join(getattr(stp.tl, f"fit_{name}").__doc__.split())
    assert "with the same number of threads, gives the same model" in text


def test_training_on_the_cpu_seeds_no_accelerator(sdata, monkeypatch):
    """The random state of an accelerator would not be restored."""

    def refuse(*_):
        raise AssertionError("seeded an accelerator")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", refuse)
    monkeypatch.setattr(torch.mps, "manual_seed", refuse)
    network(sdata)
    TRAINED["autoencoder"](sdata)
