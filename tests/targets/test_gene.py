"""One gene of outputs, in torch: the same as `inverse`, with the gradient of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import stpredict as stp
from stpredict import targets
from stpredict.targets import _autoencoder

MODEL = np.array([7, 0, 3, 31])
KINDS = [
    (kind, scaling)
    for kind in ("genes", "svd", "nmf", "autoencoder")
    for scaling in targets.SCALINGS
]


@pytest.fixture(autouse=True)
def short_training(monkeypatch):
    monkeypatch.setattr(_autoencoder, "_MAX_EPOCHS", 10)
    monkeypatch.setattr(stp.settings, "verbosity", 0)


def values():
    """Values of 40 genes; gene 3 is constant."""
    rng = np.random.default_rng(0)
    found = rng.gamma(0.5, 1, (100, 3)) @ rng.gamma(0.5, 1, (3, 40)) + 0.2 * rng.random((100, 40))
    found[:, 3] = 1.5
    return found.astype(np.float32)


def check(made):
    outputs = np.random.default_rng(1).normal(size=(20, made.n_outputs)).astype(np.float32)
    genes = made.inverse(outputs)
    given = torch.from_numpy(outputs).requires_grad_()
    for place in range(len(MODEL)):
        one = made.gene(given, place)
        assert one.shape == (20,)
        np.testing.assert_allclose(one.detach(), genes[:, place], rtol=1e-4, atol=1e-5)
        if made.constant[place]:
            assert not one.requires_grad
            continue
        (slope,) = (part.numpy() for part in torch.autograd.grad(one.sum(), given))
        steepness = np.linalg.norm(slope, axis=1)
        along = slope / np.maximum(steepness, 1e-12)[:, None]
        moved = (made.inverse(outputs + 1e-2 * along) - genes)[:, place]
        expected = 1e-2 * steepness
        # where a threshold lies in between, the slope is not that of the whole step
        assert np.median(np.abs(moved - expected)) <= 0.02 * np.median(expected) + 1e-4


@pytest.mark.parametrize(("kind", "scaling"), KINDS)
def test_of_scaled_genes_and_factors(kind, scaling):
    options = {} if kind == "genes" else {"n_factors": 3}
    check(targets.fit(kind, values(), columns=MODEL, scaling=scaling, **options))


def test_of_counts():
    rng = np.random.default_rng(0)
    counts = rng.poisson(rng.gamma(2, 2, 40), (100, 40)).astype(np.float32)
    counts[:, 3] = 0
    made = targets.fit("counts", counts, columns=MODEL, library=counts.sum(axis=1))
    check(made)
    # what would be more than float32 holds is the most it holds
    assert torch.isfinite(made.gene(torch.full((1, 4), 1e4), 0)).all()
