"""The schedule: learning rate, monitored score and invalid values."""

from __future__ import annotations

import math

import lightning as L
import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn
from torch.nn import functional as F

from stpredict.training import Measured, Pixels, Schedule, fit_network
from stpredict.training._module import BestWeights, Regression, spearman_per_spot

N, PX, G = 24, 4, 6


class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3 * PX * PX, G)

    def forward(self, tiles):
        return self.linear(tiles.float().flatten(1) / 255)


def schedule_of(**options):
    return Schedule(
        **{
            "max_epochs": 4,
            "patience": 10,
            "batch_size": 8,
            "learning_rate": 0.01,
            "weight_decay": 0.0,
            "monitor": "loss",
            **options,
        }
    )


def fit(measured=None, **options):
    random = np.random.default_rng(0)
    tiles = random.integers(0, 256, (N, 3, PX, PX), dtype=np.uint8)
    values = random.normal(size=(N, G)).astype(np.float32) if measured is None else measured
    return fit_network(
        Linear,
        Pixels(tiles),
        Measured(values),
        training=np.arange(16),
        validation=np.arange(16, N),
        loss=F.mse_loss,
        schedule=schedule_of(**options),
        seed=0,
        device="cpu",
    )


@pytest.fixture(autouse=True)
def _silent(monkeypatch):
    import stpredict as stp

    monkeypatch.setattr(stp.settings, "verbosity", 0)


def rates(monkeypatch, **options):
    values = []
    step = Regression.on_train_epoch_start

    def on_train_epoch_start(self):
        values.append(self.trainer.optimizers[0].param_groups[0]["lr"])
        step(self)

    monkeypatch.setattr(Regression, "on_train_epoch_start", on_train_epoch_start)
    fit(**options)
    return values


def test_the_learning_rate_is_constant_by_default(monkeypatch):
    assert rates(monkeypatch) == [0.01] * 4


def test_the_learning_rate_falls_along_a_cosine(monkeypatch):
    expected = [0.01 * (1 + math.cos(math.pi * epoch / 4)) / 2 for epoch in range(4)]
    assert rates(monkeypatch, decay="cosine") == pytest.approx(expected)


def test_rank_correlation_per_spot_equals_that_of_scipy():
    random = np.random.default_rng(0)
    predicted, targets = random.normal(size=(5, G)), random.integers(0, 3, (5, G)).astype(float)
    targets[1] = 2.0  # a constant has no ranks
    expected = [0.0 if i == 1 else spearmanr(predicted[i], targets[i])[0] for i in range(5)]
    value = spearman_per_spot(torch.from_numpy(predicted), torch.from_numpy(targets))
    assert value == pytest.approx(np.mean(expected))


@pytest.mark.parametrize(
    ("monitor", "mode", "best"), [("validation_loss", "min", 1), ("validation_spearman", "max", 2)]
)
def test_the_best_epoch_is_that_with_the_best_monitored_score(monitor, mode, best):
    best_weights = BestWeights(monitor, mode)
    module = Regression(Linear(), loss=F.mse_loss, learning_rate=0.1, weight_decay=0.0)
    metrics = [(0.9, 0.1), (0.5, 0.2), (0.7, 0.6), (float("nan"), float("nan"))]
    for epoch, (loss, spearman) in enumerate(metrics):

        class Trainer(L.Trainer):
            current_epoch = epoch
            callback_metrics = {  # noqa: RUF012
                "validation_loss": torch.tensor(loss),
                "validation_spearman": torch.tensor(spearman),
            }

        with torch.no_grad():
            module.network.linear.bias.fill_(epoch)
        best_weights.on_validation_end(Trainer.__new__(Trainer), module)
    assert best_weights.epoch == best + 1
    assert (best_weights.state["linear.bias"] == best).all()


def test_training_stops_when_the_rank_correlation_no_longer_rises():
    fitted = fit(monitor="spearman", max_epochs=30, patience=1)
    assert fitted.history["epoch"].max() < 30


@pytest.mark.parametrize(
    ("options", "message"),
    [({"decay": "linear"}, "decay.*'linear'"), ({"monitor": "pcc"}, "monitor.*'pcc'")],
)
def test_unknown_choices_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        schedule_of(**options)


def test_a_single_target_cannot_be_ranked():
    with pytest.raises(ValueError, match="only one target: use monitor='loss'"):
        fit(np.zeros((N, 1), dtype=np.float32), monitor="spearman")


def test_the_defaults_are_those_of_deepspot():
    assert vars(Schedule()) == {
        "max_epochs": 200,
        "patience": 10,
        "batch_size": 64,
        "learning_rate": 1e-3,
        "weight_decay": 1e-6,
        "monitor": "pearson",
        "decay": "constant",
        "patch_size": 1,
        "precision": "auto",
        "compile": False,
        "devices": 1,
        "strategy": "auto",
    }


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"max_epochs": 0}, "max_epochs must be a whole number of at least 1: 0"),
        ({"patience": 1.5}, "patience must be a whole number of at least 1: 1.5"),
        ({"patience": True}, "patience must be a whole number of at least 1: True"),
        ({"batch_size": -1}, "batch_size must be a whole number of at least 1: -1"),
        ({"learning_rate": float("nan")}, "learning_rate must be at least 0: nan"),
        ({"learning_rate": float("inf")}, "learning_rate must be at least 0: inf"),
        ({"learning_rate": "0.1"}, "learning_rate must be at least 0: '0.1'"),
        ({"weight_decay": -1.0}, "weight_decay must be at least 0: -1.0"),
    ],
)
def test_numbers_out_of_range_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Schedule(**wrong)
