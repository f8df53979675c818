"""Fitting of networks: seeds, early stopping, and the weights of the best epoch."""

from __future__ import annotations

import functools
import random

import numpy as np
import pytest
import torch
from torch.nn import functional

import stpredict as stp
from stpredict.nn import DeepSets, losses
from stpredict.targets import Standard
from stpredict.training import Inputs, Measured, Schedule, fit_network

N, D, G = 90, 6, 3
TRAINING, VALIDATION = np.arange(60), np.arange(60, N)


@pytest.fixture(autouse=True)
def _silent(monkeypatch):
    monkeypatch.setattr(stp.settings, "verbosity", 0)


def data():
    seeded = np.random.default_rng(0)
    center = seeded.normal(size=(N, D)).astype(np.float32)
    targets = center @ seeded.normal(size=(D, G)) + seeded.normal(size=(N, G))
    neighbors = seeded.integers(-1, N, (N, 4))
    subtiles = seeded.normal(size=(N, 4, D)).astype(np.float32)
    inputs = Inputs(
        center=center,
        scaler=Standard.fit(center),
        subtiles=subtiles,
        subtile_scaler=Standard.fit(subtiles.reshape(-1, D)),
        neighbors=neighbors,
    )
    return inputs, Standard.fit(targets).transform(targets)


def fit(*, seed=0, loss=functional.mse_loss, weights=None, **options):
    inputs, targets = data()
    if getattr(loss, "needs_binary", False):
        targets = (targets > 0).astype(np.float32)
    schedule = {
        "max_epochs": 12,
        "patience": 4,
        "batch_size": 16,
        "learning_rate": 3e-2,
        "weight_decay": 1e-6,
        "monitor": "loss",
    }
    return fit_network(
        functools.partial(DeepSets, D, G, n_hidden=16, n_phi=3, n_rho=2),
        inputs,
        Measured(targets),
        training=TRAINING,
        validation=VALIDATION,
        loss=loss,
        schedule=Schedule(**{**schedule, **options}),
        seed=seed,
        device="cpu",
        weights=weights,
    )


def validation_losses(fitted):
    history = fitted.history
    return history.loc[history["split"] == "validation", "loss"].to_numpy()


def test_only_weights_of_training_rows_change_the_training():
    weights = np.random.default_rng(0).uniform(0, 2, N)
    other = weights.copy()
    other[VALIDATION] = 0
    plain, weighted, same = fit(), fit(weights=weights), fit(weights=other)
    assert weighted.history.equals(same.history)
    assert not weighted.history.equals(plain.history)
    steps = [
        (fitted.history.query("epoch == 1")["split"] == "training").sum()
        for fitted in (plain, weighted)
    ]
    assert steps[0] == steps[1]


def test_a_network_learns_the_rows_with_weight():
    # half of the training rows follow one rule, half the opposite; weights select one of them
    random = np.random.default_rng(0)
    center = random.normal(size=(N, D)).astype(np.float32)
    kind = np.arange(N) % 2
    targets = (center[:, :1] * np.where(kind, 1, -1)[:, None]).astype(np.float32)
    inputs = Inputs(center=center, scaler=Standard.fit(center))
    for weighted in (0, 1):
        fitted = fit_network(
            functools.partial(DeepSets, D, 1, context="spot", n_hidden=16, n_phi=1, n_rho=1),
            inputs,
            Measured(targets),
            training=TRAINING,
            validation=VALIDATION[kind[VALIDATION] == weighted],
            loss=functional.mse_loss,
            schedule=Schedule(
                max_epochs=40,
                patience=40,
                batch_size=16,
                learning_rate=3e-2,
                weight_decay=0,
                monitor="loss",
            ),
            seed=0,
            device="cpu",
            weights=(kind == weighted).astype(float),
        )
        with torch.inference_mode():
            predicted = fitted.network(inputs.tiles(TRAINING)).numpy().ravel()
        pcc = np.corrcoef(predicted, center[TRAINING, 0])[0, 1]
        assert pcc * (1 if weighted else -1) > 0.9


def test_the_same_seed_gives_the_same_network_twice():
    first, second = fit(seed=3), fit(seed=3)
    for name, weights in first.network.state_dict().items():
        assert torch.equal(weights, second.network.state_dict()[name]), name
    assert first.history.equals(second.history)
    assert first.best_epoch == second.best_epoch


def test_another_seed_gives_another_network():
    first, second = (fit(seed=seed, max_epochs=1) for seed in (0, 1))
    assert not first.history.equals(second.history)


def test_global_random_states_do_not_change():
    torch.manual_seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    fit(max_epochs=1)
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert random.getstate() == before[2]


def test_the_network_has_the_weights_of_its_best_epoch():
    fitted = fit(max_epochs=40, patience=40, learning_rate=0.1)  # overfits
    losses = validation_losses(fitted)
    assert fitted.best_epoch == losses.argmin() + 1 < len(losses)
    assert not fitted.network.training
    inputs, targets = data()
    with torch.inference_mode():
        predicted = inputs.batch(VALIDATION, Measured(targets)).predict(fitted.network)
    loss = functional.mse_loss(predicted, torch.from_numpy(targets[VALIDATION])).item()
    assert loss == pytest.approx(losses.min(), rel=1e-5)


def test_training_lowers_the_validation_loss():
    losses = validation_losses(fit(max_epochs=30, patience=30, learning_rate=1e-2))
    assert losses.min() < 0.8 * losses[0]


def test_training_stops_when_the_validation_loss_no_longer_falls():
    fitted = fit(learning_rate=0.0, patience=3, max_epochs=50)
    assert len(validation_losses(fitted)) == 1 + 3
    assert fitted.best_epoch == 1


def test_training_stops_after_the_last_epoch():
    assert len(validation_losses(fit(max_epochs=2, patience=50))) == 2


def test_the_history_has_every_step_and_every_validation():
    history = fit(max_epochs=3, patience=50, batch_size=16).history
    assert history.columns.tolist() == ["epoch", "step", "split", "loss"]
    assert np.isfinite(history["loss"]).all()
    steps = history[history["split"] == "training"]
    assert steps["step"].tolist() == list(range(1, 1 + 3 * 4))  # 60 rows in batches of 16
    assert steps["epoch"].tolist() == [1] * 4 + [2] * 4 + [3] * 4
    validations = history[history["split"] == "validation"]
    assert validations["epoch"].tolist() == [1, 2, 3]
    assert validations["step"].tolist() == [4, 8, 12]


def test_the_loss_is_the_argument():
    absolute = validation_losses(fit(loss=functional.l1_loss, max_epochs=1))
    squared = validation_losses(fit(max_epochs=1))
    assert absolute[0] != squared[0]


def test_training_that_diverges_at_once_is_an_error():
    message = r"loss was (inf|nan) at step 2, in epoch 1, before any.*learning_rate=1e\+30"
    with pytest.raises(ValueError, match=message):
        fit(learning_rate=1e30)


class Breaks(losses.MSE):
    """A loss that is not finite at one training step, or in every validation."""

    def __init__(self, *, step=None, value=float("nan")):
        super().__init__()
        self.step, self.value, self.steps = step, value, 0

    def compute(self, predicted, target, log_library):
        loss = super().compute(predicted, target, log_library)
        self.steps += self.training
        is_broken = not self.training if self.step is None else self.steps == self.step
        return loss * self.value if is_broken else loss


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_the_best_weights_are_used_if_the_loss_becomes_infinite_or_nan(monkeypatch, capsys, value):
    monkeypatch.setattr(stp.settings, "verbosity", 1)
    slow = {"learning_rate": 1e-2, "patience": 50}
    until = fit(max_epochs=3, **slow)  # 4 steps an epoch
    capsys.readouterr()
    broken = fit(loss=Breaks(step=14, value=value), max_epochs=12, **slow)
    assert broken.history.query("split == 'training'")["step"].tolist() == list(range(1, 14))
    assert broken.best_epoch == until.best_epoch
    assert not broken.network.training
    for name, weights in until.network.state_dict().items():
        assert torch.equal(weights, broken.network.state_dict()[name]), name
    log = capsys.readouterr().out
    assert f"the training loss was {value} at step 14, in epoch 4: training stopped" in log
    assert f"with the weights of epoch {until.best_epoch}" in log


def test_a_step_with_a_nan_loss_is_not_taken(monkeypatch):
    steps = []
    step = torch.optim.AdamW.step

    def watched(self, closure):
        weights = self.param_groups[0]["params"]
        try:
            step(self, closure)
        finally:
            steps.append([values.detach().clone() for values in weights])

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    with pytest.raises(ValueError, match="at step 3, in epoch 1, before any finite"):
        fit(loss=Breaks(step=3))
    assert len(steps) == 3
    for before, after in zip(steps[1], steps[2], strict=True):
        assert torch.equal(before, after)
    assert not all(torch.equal(*pair) for pair in zip(steps[0], steps[1], strict=True))


def test_validation_that_is_never_finite_is_an_error():
    message = r"validation loss was nan after step 4, in epoch 1, before any.*learning_rate=0.03"
    with pytest.raises(ValueError, match=message):
        fit(loss=Breaks())


def test_the_best_weights_are_used_if_the_validation_loss_becomes_nan(monkeypatch, capsys):
    class BreaksLater(losses.MSE):
        def compute(self, predicted, target, log_library):
            loss = super().compute(predicted, target, log_library)
            return loss * torch.nan if not self.training and self.progress >= 0.25 else loss

    monkeypatch.setattr(stp.settings, "verbosity", 1)
    fitted = fit(loss=BreaksLater(), max_epochs=8, patience=50, learning_rate=1e-2)
    assert np.isnan(validation_losses(fitted)).tolist() == [False, False, True]
    assert fitted.best_epoch == 2
    log = capsys.readouterr().out
    assert "validation loss was nan after step 12, in epoch 3: training stopped, with the" in log


def test_the_progress_of_the_loss_is_set_at_the_start_of_each_epoch(monkeypatch):
    calls = []

    class Recorded(losses.MSE):
        def compute(self, predicted, target, log_library):
            calls.append((self.training, self.progress))
            return super().compute(predicted, target, log_library)

    fit(loss=Recorded(), max_epochs=4, patience=50)
    training = [progress for is_training, progress in calls if is_training]
    assert training == [epoch / 4 for epoch in range(4) for _ in range(4)]
    assert {is_training for is_training, _ in calls} == {True, False}


def test_a_scheduled_loss_changes_training_and_validates_with_the_final_weight():
    constant, rising = (
        fit(loss=losses.make("hybrid_rank", initial=start, final=0.9), max_epochs=3)
        for start in (0.9, 0.1)
    )
    assert not constant.history.equals(rising.history)
    inputs, targets = data()
    with torch.inference_mode():
        predicted = inputs.batch(VALIDATION, Measured(targets)).predict(rising.network)
        measured = torch.from_numpy(targets[VALIDATION])
        expected = 0.1 * losses.make("mse")(predicted, measured)
        expected += 0.9 * losses.make("pairwise_hinge")(predicted, measured)
    assert validation_losses(rising).min() == pytest.approx(expected.item(), rel=1e-5)


def test_parameters_of_a_loss_are_trained_in_a_copy():
    scales = []

    class Scaled(losses.MSE):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.tensor(1.0))

        def compute(self, predicted, target, log_library):
            scales.append(self.scale.item())
            return super().compute(predicted, target, log_library) * self.scale.exp()

    loss = Scaled()
    first, second = fit(loss=loss), fit(loss=loss)
    assert scales[-1] < 1
    assert loss.scale == 1
    assert loss.progress == 0
    assert first.history.equals(second.history)
    assert not any("scale" in name for name in first.network.state_dict())


@pytest.mark.parametrize("name", [n for n, r in losses.LOSSES.items() if not r.needs_counts])
def test_every_named_loss_trains(name):
    values = validation_losses(fit(loss=losses.make(name, n_targets=G), max_epochs=20, patience=50))
    assert np.isfinite(values).all()
    assert values.min() < 0.95 * values[0]


def test_fitting_prints_nothing_and_leaves_no_file(capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit(max_epochs=1)
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())
