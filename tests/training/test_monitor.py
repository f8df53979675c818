"""Early stopping by correlation monitors the correlation over all held-out spots."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import stpredict as stp
from stpredict import metrics
from stpredict.nn import DeepSets, losses
from stpredict.targets import Standard
from stpredict.training import Inputs, Measured, Schedule, fit_network
from stpredict.training._module import BestWeights, pearson_per_target

N, D, G = 90, 5, 4
TRAINING, VALIDATION = np.arange(60), np.arange(60, N)
#: Sizes of the factors, which differ.
SIZES = np.array([3.0, 1.0, 0.5, 0.1])


@pytest.fixture(autouse=True)
def _silent(monkeypatch):
    monkeypatch.setattr(stp.settings, "verbosity", 0)


@pytest.fixture
def logged(monkeypatch):
    """Logged value of each validation."""
    values = []
    original = BestWeights.on_validation_end

    def on_validation_end(self, trainer, module):
        values.append(float(trainer.callback_metrics["validation_pearson"]))
        original(self, trainer, module)

    monkeypatch.setattr(BestWeights, "on_validation_end", on_validation_end)
    return values


def signal():
    random = np.random.default_rng(0)
    center = random.normal(size=(N, D)).astype(np.float32)
    inputs = Inputs(center=center, scaler=Standard.fit(center))
    return inputs, center @ random.normal(size=(D, G)) + random.normal(size=(N, G))


def fit(measured, *, batch_size, loss=F.mse_loss):
    return fit_network(
        functools.partial(DeepSets, D, G, context="spot", n_hidden=16, n_phi=3, n_rho=2),
        signal()[0],
        measured,
        training=TRAINING,
        validation=VALIDATION,
        loss=loss,
        schedule=Schedule(
            max_epochs=4,
            patience=10,
            batch_size=batch_size,
            learning_rate=1e-2,
            weight_decay=0.0,
            monitor="pearson",
        ),
        seed=0,
        device="cpu",
    )


def held_out(fitted, measured):
    """Predictions of the best epoch's network for all held-out spots at once."""
    with torch.inference_mode():
        batch = signal()[0].batch(VALIDATION, measured)
        return batch.predict(fitted.network).double().numpy()


def correlations(one, other):
    return np.array([np.corrcoef(a, b)[0, 1] for a, b in zip(one.T, other.T, strict=True)])


@pytest.mark.parametrize("batch_size", [7, 30, 64])  # five batches, one of two spots; one batch
def test_the_score_is_the_weighted_correlation_over_all_held_out_spots(logged, batch_size):
    measured = Measured((signal()[1] * SIZES).astype(np.float32))
    fitted = fit(measured, batch_size=batch_size)
    truth = measured.targets[VALIDATION].astype(np.float64)
    each = correlations(held_out(fitted, measured), truth)
    assert len(logged) == 4
    assert fitted.best_epoch == int(np.argmax(logged)) + 1
    weighted_mean = np.average(each, weights=truth.var(axis=0))
    assert max(logged) == pytest.approx(weighted_mean, rel=1e-5)
    assert abs(weighted_mean - each.mean()) > 0.01  # large targets weigh more


def test_targets_of_equal_variance_have_equal_weights(logged):
    targets = signal()[1]
    targets = (targets - targets[VALIDATION].mean(axis=0)) / targets[VALIDATION].std(axis=0)
    measured = Measured(targets.astype(np.float32))
    predicted = held_out(fit(measured, batch_size=16), measured)
    truth = measured.targets[VALIDATION]
    assert max(logged) == pytest.approx(metrics.pcc(truth, predicted).mean(), rel=1e-5)
    assert max(logged) == pytest.approx(correlations(predicted, truth).mean(), rel=1e-5)


@pytest.mark.parametrize("name", ["poisson", "negative_binomial"])
@pytest.mark.parametrize("batch_size", [7, 30])
def test_counts_are_compared_relative_to_their_expectation(logged, name, batch_size):
    random = np.random.default_rng(1)
    library = random.integers(500, 5000, N).astype(np.float64)
    share = np.array([0.02, 0.01, 0.004, 0.001])
    rate = np.exp(0.4 * signal()[1])
    counts = random.poisson(library[:, None] * share * rate).astype(np.float32)
    measured = Measured(
        counts, np.log(library).astype(np.float32), np.log(share).astype(np.float32)
    )
    fitted = fit(measured, batch_size=batch_size, loss=losses.make(name, n_targets=G))
    expected = library[VALIDATION, None] * share
    truth = np.log1p(counts[VALIDATION] / expected)
    predicted = np.log1p(np.exp(held_out(fitted, measured)))  # the network predicts logarithms
    mean_correlation = np.average(correlations(predicted, truth), weights=truth.var(axis=0))
    assert max(logged) == pytest.approx(mean_correlation, rel=1e-5)
    # the correlation with raw counts differs, as they depend on the library size
    raw = np.average(correlations(predicted, counts[VALIDATION]))
    assert abs(mean_correlation - raw) > 1e-3


def test_a_constant_side_has_a_correlation_of_zero():
    random = np.random.default_rng(2)
    predicted, truth = random.normal(size=(2, 20, 3))
    predicted[:, 0] = 1.0
    truth[:, 1] = -2.0
    value = pearson_per_target(torch.from_numpy(predicted), torch.from_numpy(truth))
    variances = truth.var(axis=0)
    last = np.corrcoef(predicted[:, 2], truth[:, 2])[0, 1]
    # a constant prediction counts with its target's variance; a constant target has no weight
    assert value == pytest.approx(last * variances[2] / (variances[0] + variances[2]))
    constant = torch.zeros(5, 2)
    assert pearson_per_target(constant, constant) == 0


def test_nan_is_propagated():
    predicted = torch.randn(6, 2)
    predicted[3, 1] = torch.nan
    assert np.isnan(pearson_per_target(predicted, torch.randn(6, 2)))
