"""The autoencoder: non-linear structure, seeds, and invalid input."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stpredict import nn, targets


def on_a_circle(n_rows=300, n_genes=30, seed=0):
    """Genes that follow one angle: one dimension, but two principal components."""
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0, 2 * np.pi, n_rows)
    phase = np.random.default_rng(99).uniform(0, 2 * np.pi, n_genes)
    values = np.cos(angle[:, None] + phase) + rng.normal(0, 0.05, (n_rows, n_genes))
    return values.astype(np.float32)


def unexplained(fitted, values):
    reconstruction = fitted.inverse(fitted.transform(values))
    error = ((reconstruction - values) ** 2).sum()
    return float(error / ((values - fitted.mean) ** 2).sum())


def test_a_closed_curve_is_learnt_with_a_single_factor():
    columns, new = np.arange(30), on_a_circle(100, seed=1)
    latent, svd = (
        targets.fit(kind, on_a_circle(), columns=columns, n_factors=1)
        for kind in ("autoencoder", "svd")
    )
    assert unexplained(svd, new) > 0.4
    assert unexplained(latent, new) < 0.2


def test_the_global_random_state_neither_changes_nor_matters():
    values = on_a_circle(60)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = targets.fit("autoencoder", values, columns=[0], n_factors=2, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    second, other = (
        targets.fit("autoencoder", values, columns=[0], n_factors=2, seed=seed) for seed in (1, 2)
    )
    np.testing.assert_array_equal(first.transform(values), second.transform(values))
    assert not np.allclose(first.transform(values), other.transform(values))


def test_fitted_weights_are_frozen():
    fitted = targets.fit("autoencoder", on_a_circle(60), columns=[0], n_factors=2)
    assert not fitted.network.training
    assert not any(weight.requires_grad for weight in fitted.network.parameters())
    assert fitted.network.encoder[0].out_features == 200  # STDL's 100 times the code


def test_two_rows_are_enough_for_training_and_early_stopping():
    fitted = targets.fit("autoencoder", on_a_circle(2), columns=[0, 3], n_factors=1)
    assert np.isfinite(fitted.inverse(fitted.transform(on_a_circle(5)))).all()


def test_the_network_is_symmetric_and_reconstructs():
    network = nn.Autoencoder(20, 3, hidden=(12, 7))
    widths = [layer.out_features for layer in network.encoder if hasattr(layer, "out_features")]
    assert widths == [12, 7, 3]
    decoder_widths = [
        layer.out_features for layer in network.decoder if hasattr(layer, "out_features")
    ]
    assert decoder_widths == [7, 12, 20]
    genes = torch.randn(5, 20)
    torch.testing.assert_close(network(genes), network.decode(network.encode(genes)))
    plain = nn.Autoencoder(4, 2, hidden=())
    assert len(plain.encoder) == len(plain.decoder) == 1


def test_invalid_input_of_the_network_is_refused():
    network = nn.Autoencoder(20, 3, hidden=(5,))
    with pytest.raises(ValueError, match=r"genes has shape \(2, 19\), but \(any, 20\)"):
        network(torch.zeros(2, 19))
    with pytest.raises(ValueError, match=r"code has shape \(2, 20\), but \(any, 3\)"):
        network.decode(torch.zeros(2, 20))
    with pytest.raises(ValueError, match=r"float64, the weights torch\.float32"):
        network(torch.zeros(2, 20, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"at least 1: \[20, 0, 3\]"):
        nn.Autoencoder(20, 3, hidden=(0,))
