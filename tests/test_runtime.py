"""Devices, threads, random states and memory."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from stpredict._runtime import peak_memory, resolve_device, seeded


def fail_inside(device):
    with seeded(3, torch.device(device)):
        yield torch.rand(4)
        raise RuntimeError("inside")


def test_the_random_state_before_is_restored_also_after_an_error():
    before = torch.get_rng_state()
    values = []
    for _ in range(2):
        with pytest.raises(RuntimeError, match="inside"):
            values.extend(fail_inside("cpu"))
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(*values)


def test_the_random_state_of_an_apple_gpu_is_restored(monkeypatch):
    calls = []
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda: "before")
    monkeypatch.setattr(torch.mps, "manual_seed", lambda seed: calls.append(seed))
    monkeypatch.setattr(torch.mps, "set_rng_state", lambda state: calls.append(state))
    with pytest.raises(RuntimeError, match="inside"):
        list(fail_inside("mps"))
    assert calls == [3, "before"]


@pytest.mark.parametrize(
    ("n_cuda", "mps", "expected"), [(2, True, "cuda"), (0, True, "mps"), (0, False, "cpu")]
)
def test_the_first_available_device_is_used(monkeypatch, n_cuda, mps, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: n_cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n_cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert resolve_device("auto") == torch.device(expected)
    assert resolve_device("cpu") == resolve_device(torch.device("cpu")) == torch.device("cpu")
    if n_cuda:
        assert resolve_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ValueError, match=rf"device='cuda:2' is not available .*'{expected}'"):
        resolve_device("cuda:2")


def test_the_peak_of_memory_is_that_of_the_process_alone():
    large = np.ones(250_000_000)  # 2 GB in this process, which starts another
    assert peak_memory() > large.nbytes
    program = "from stpredict._runtime import peak_memory; print(peak_memory())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert float(done.stdout) < large.nbytes
