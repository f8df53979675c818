"""Training on several devices, in another precision, and compiled."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from stpredict.nn import DeepSets
from stpredict.targets import Standard
from stpredict.training import Inputs, Measured, Schedule, fit_network

# a process of its own, because forks copy the threads' locks of this one
SCRIPT = """
import json
import numpy as np
import stpredict as stp
from stpredict.nn import DeepSets
from stpredict.targets import Standard
from stpredict.training import Inputs, Measured, Schedule, fit_network

def fit(batch_size, scale=1.0, **options):
    random = np.random.default_rng(0)
    values = random.normal(size=(80, 16)).astype(np.float32)
    return fit_network(
        lambda: DeepSets(16, 5, context="spot", n_hidden=8, dropout=0.0, output_dropout=0.0),
        Inputs(values, Standard.fit(values)),
        Measured(values[:, :5] * np.float32(scale)),
        training=np.arange(64),
        validation=np.arange(64, 80),
        loss=stp.nn.losses.make("mse"),
        schedule=Schedule(max_epochs=4, batch_size=batch_size, **options),
        seed=0,
        device="cpu",
    )

stp.settings.verbosity = 0
one, two = fit(16), fit(8, devices=2, strategy="ddp_fork")
pairs = zip(one.network.parameters(), two.network.parameters(), strict=True)
result = {
    "difference": max(float((a - b).abs().max()) for a, b in pairs),
    "epochs": [one.best_epoch, two.best_epoch],
    "steps": [fitted.history[["epoch", "step", "split"]].values.tolist() for fitted in (one, two)],
}
try:
    fit(8, scale=1e30, devices=2, strategy="ddp_fork")
except ValueError as error:
    result["error"] = str(error)
print(json.dumps(result))
"""


def fit(n=64, **options):
    random = np.random.default_rng(0)
    values = random.normal(size=(n + 16, 16)).astype(np.float32)
    return fit_network(
        lambda: DeepSets(16, 5, context="spot", n_hidden=8),
        Inputs(values, Standard.fit(values)),
        Measured(values[:, :5]),
        training=np.arange(n),
        validation=np.arange(n, n + 16),
        loss=F.mse_loss,
        schedule=Schedule(max_epochs=2, **options),
        seed=0,
        device="cpu",
    )


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot fork")
def test_two_processes_with_half_the_batch_train_as_one():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["difference"] < 1e-6
    assert result["epochs"][0] == result["epochs"][1]
    assert result["steps"][0] == result["steps"][1]
    assert "the training loss was not finite. Lower learning_rate=0.001" in result["error"]


def test_bfloat16_changes_the_weights_slightly():
    weights = [
        torch.cat([p.flatten() for p in fit(precision=precision).network.parameters()])
        for precision in ("32", "bf16", "auto")
    ]
    assert weights[1].dtype == torch.float32
    assert 0 < (weights[0] - weights[1]).abs().max() < 0.02
    assert torch.equal(weights[0], weights[2])


@pytest.mark.filterwarnings("ignore:Guards may run slower:RuntimeWarning")  # Python 3.13.0
def test_a_compiled_network_gets_the_same_weights(monkeypatch):
    compiled, original = [], torch.compile

    def capture(function, **options):  # without code generation, which takes minutes
        compiled.append(options)
        return original(function, backend="eager", **options)

    monkeypatch.setattr(torch, "compile", capture)
    pairs = zip(fit().network.parameters(), fit(compile=True).network.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    assert compiled == [{"dynamic": True}]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "16"}, "precision='16' needs a GPU"),
        ({"devices": 2}, "devices=2 with 64 training spots in batches of 64: not every device"),
        ({"precision": "64"}, "precision='64' is not one of 'auto', '32', 'bf16', '16'"),
        ({"strategy": "fsdp"}, "strategy='fsdp' is not one of"),
        ({"devices": 0}, "devices must be a whole number of at least 1: 0"),
    ],
)
def test_hardware_that_does_not_fit_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        fit(**options)
