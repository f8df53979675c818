"""Single genes from outputs in torch: same values as `inverse`, with a gradient."""

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
    expression = rng.gamma(0.5, 1, (100, 3)) @ rng.gamma(0.5, 1, (3, 40))
    expression += 0.2 * rng.random((100, 40))
    expression[:, 3] = 1.5
    return expression.astype(np.float32)


def check(fitted):
    outputs = np.random.default_rng(1).normal(size=(20, fitted.n_outputs)).astype(np.float32)
    genes = fitted.inverse(outputs)
    tensor = torch.from_numpy(outputs).requires_grad_()
    for index in range(len(MODEL)):
        one = fitted.gene(tensor, index)
        assert one.shape == (20,)
        np.testing.assert_allclose(one.detach(), genes[:, index], rtol=1e-4, atol=1e-5)
        if fitted.constant[index]:
            assert not one.requires_grad
            continue
        (slope,) = (part.numpy() for part in torch.autograd.grad(one.sum(), tensor))
        steepness = np.linalg.norm(slope, axis=1)
        along = slope / np.maximum(steepness, 1e-12)[:, None]
        moved = (fitted.inverse(outputs + 1e-2 * along) - genes)[:, index]
        expected = 1e-2 * steepness
        # a step across a threshold does not follow the slope
        assert np.median(np.abs(moved - expected)) <= 0.02 * np.median(expected) + 1e-4


@pytest.mark.parametrize(("kind", "scaling"), KINDS)
def test_a_scaled_gene_equals_the_inverse_and_has_its_slope(kind, scaling):
    options = {} if kind == "genes" else {"n_factors": 3}
    check(targets.fit(kind, values(), columns=MODEL, scaling=scaling, **options))


def test_a_gene_of_counts_equals_the_inverse_and_has_its_slope():
    rng = np.random.default_rng(0)
    counts = rng.poisson(rng.gamma(2, 2, 40), (100, 40)).astype(np.float32)
    counts[:, 3] = 0
    fitted = targets.fit("counts", counts, columns=MODEL, library=counts.sum(axis=1))
    check(fitted)
    # counts beyond the range of float32 are clipped
    assert torch.isfinite(fitted.gene(torch.full((1, 4), 1e4), 0)).all()
