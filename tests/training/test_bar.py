"""The progress bar of training: one over all networks, with the loss, closed after a failure."""

from __future__ import annotations

import re

import numpy as np
import pytest

import stpredict as stp
from stpredict._log import shared_bar
from stpredict.nn import DeepSets
from stpredict.targets import Standard
from stpredict.training import Inputs, Measured, Schedule, fit_network


def fit(*, scale=1.0, **options):
    values = np.random.default_rng(0).normal(size=(80, 8)).astype(np.float32)
    return fit_network(
        lambda: DeepSets(8, 5, context="spot", n_hidden=8),
        Inputs(values, Standard.fit(values)),
        Measured(values[:, :5] * np.float32(scale)),
        training=np.arange(64),
        validation=np.arange(64, 80),
        loss=stp.nn.losses.make("mse"),
        schedule=Schedule(max_epochs=4, batch_size=16, **options),
        seed=0,
        device="cpu",
    )


def bars(text):
    """Each bar as it was shown last."""
    return [bar.rsplit("\r", 1)[-1] for bar in text.split("\n") if "training:" in bar]


def test_the_bar_counts_epochs_and_shows_the_validation_loss(capsys):
    losses = fit().history.query("split == 'validation'")["loss"]
    (bar,) = bars(capsys.readouterr().err)
    assert re.search(r"training: 100%.* 4(\.0)?/4 ", bar)
    assert f"validation_loss={losses.iloc[-1]:.3g}" in bar


def test_networks_of_one_model_share_a_bar_which_skips_epochs_after_early_stopping(capsys):
    with shared_bar(8, "training", unit="epoch"):
        first = fit(patience=1, learning_rate=1.0)
        fit()
    assert first.history["epoch"].max() < 4
    (bar,) = bars(capsys.readouterr().err)
    assert re.search(r"training: 100%.* 8(\.0)?/8 ", bar)


def test_the_bar_is_closed_when_training_fails(capsys):
    with pytest.raises(ValueError, match="before any finite validation"):
        fit(scale=1e30)
    text = capsys.readouterr().err
    assert text.endswith("\n")
    assert "0/4" in bars(text)[0]


def test_no_bar_is_shown_at_verbosity_0(capsys, monkeypatch):
    monkeypatch.setattr(stp.settings, "verbosity", 0)
    fit()
    assert capsys.readouterr().err == ""
