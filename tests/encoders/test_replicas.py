"""Embedding on several devices, which the CPU stands for here."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import stpredict as stp
from stpredict import _runtime
from stpredict.encoders._replicas import replicate

CPUS = [torch.device("cpu")] * 3


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 5, stride=4), nn.AdaptiveAvgPool2d(1), nn.Flatten())


@pytest.mark.parametrize("n_tiles", [0, 1, 2, 7])
def test_devices_share_a_batch(n_tiles):
    encoder = stp.encoders.load(network(), name="small")
    shared = replicate(encoder, CPUS)
    tiles = torch.randint(0, 256, (n_tiles, 3, 32, 32), dtype=torch.uint8)
    torch.testing.assert_close(shared(tiles), encoder(tiles))
    assert (shared.dimension, shared.weights_hash) == (encoder.dimension, encoder.weights_hash)
    modules = [replica.function for replica in shared.replicas]
    assert len({id(module) for module in modules}) == 3


def test_a_function_of_the_user_stays_on_one_device():
    encoder = stp.encoders.load(lambda tiles: tiles.mean((-2, -1)), name="mean_colour")
    assert not hasattr(replicate(encoder, CPUS), "replicas")


def test_embeddings_of_several_devices_are_those_of_one(monkeypatch):
    sdata = stp.datasets.phantom(size_px=400)
    stp.pp.embed(sdata, network(), key_added="X_one")
    monkeypatch.setattr(_runtime, "all_devices", lambda device: CPUS)
    stp.pp.embed(sdata, network(), key_added="X_three", batch_size=5)
    one, three = (sdata["table"].obsm[slot] for slot in ("X_one", "X_three"))
    np.testing.assert_allclose(three, one, atol=1e-6)


def test_a_gpu_without_number_stands_for_all(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert _runtime.all_devices(torch.device("cuda")) == [torch.device("cuda", k) for k in (0, 1)]
    for name in ("cuda:1", "cpu", "mps"):
        assert _runtime.all_devices(torch.device(name)) == [torch.device(name)]
