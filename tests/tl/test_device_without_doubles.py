"""Every method runs on a device without float64, such as an Apple GPU."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import stpredict as stp

SCHEDULE = stp.tl.Schedule(max_epochs=1, batch_size=32)
NETWORK = {"n_hidden": 8, "n_phi": 2, "n_rho": 2, "n_networks": 1}
CELLS = stp.tl.MultiScaleNetwork(tile_px=24, widths=(4, 4, 8), n_tile=8, n_subtile=4)
FITS = {
    "ridge": stp.tl.fit_ridge,
    "autoencoder": functools.partial(stp.tl.fit_ridge, targets="autoencoder", n_factors=2),
    "trees": functools.partial(stp.tl.fit_trees, n_trees=5),
    "deepspot": functools.partial(
        stp.tl.fit_deepspot,
        standardize="training",  # few spots
        network=stp.tl.DeepSpotNetwork(**NETWORK),
        schedule=SCHEDULE,
    ),
    "deepcell": functools.partial(
        stp.tl.fit_deepcell, network=stp.tl.DeepCellNetwork(**NETWORK), schedule=SCHEDULE
    ),
    "cnn": functools.partial(
        stp.tl.fit_cnn, network=stp.tl.CNNNetwork(tile_px=24), tile_um=40.0, schedule=SCHEDULE
    ),
    "multiscale": functools.partial(
        stp.tl.fit_multiscale, network=CELLS, tile_um=40.0, schedule=SCHEDULE
    ),
}
FITS["stacking"] = functools.partial(
    stp.tl.fit_stacking,
    bases={name: FITS[name] for name in ("ridge", "trees")},
    meta="mlp",
    n_hidden=8,
    schedule=stp.tl.Schedule(max_epochs=1),
)
FITS["tuned"] = functools.partial(
    stp.tl.fit_tuned, candidates={name: FITS[name] for name in ("ridge", "trees")}
)


class Device(TorchDispatchMode):
    """The CPU as another device: what is moved with ``to`` and computed from it has no float64.

    Tensors are on the device by their memory, which views share. ``cpu`` copies them back.
    """

    def __init__(self, monkeypatch):
        super().__init__()
        self.memory = {}  # keeps the memory, so that no other tensor gets the same address
        self.n_moved = 0
        original_to, original_cpu = torch.Tensor.to, torch.Tensor.cpu

        def to(tensor, *args, **kwargs):
            target = kwargs.get("device", args[0] if args else None)
            if isinstance(target, torch.Tensor) and not self.holds(target):
                target = None
            moved = original_to(tensor, *args, **kwargs)
            if isinstance(target, str | torch.device | torch.Tensor):
                self.n_moved += 1
                moved = self.put(moved.clone() if moved is tensor else moved)
            return moved

        def cpu(tensor):
            copied = original_cpu(tensor).clone()
            self.memory.pop(address(copied), None)
            return copied

        monkeypatch.setattr(torch.Tensor, "to", to)
        monkeypatch.setattr(torch.Tensor, "cpu", cpu)

    def holds(self, value):
        return isinstance(value, torch.Tensor) and address(value) in self.memory

    def put(self, tensor):
        if tensor.dtype in (torch.float64, torch.complex128):
            raise TypeError("the device does not support float64")
        self.memory[address(tensor)] = tensor.untyped_storage()
        return tensor

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        outputs = function(*args, **(kwargs or {}))
        if any(self.holds(value) for value in tree_leaves((args, kwargs))):
            for output in tree_leaves(outputs):
                if isinstance(output, torch.Tensor):
                    self.put(output)
        return outputs


def address(tensor):
    return tensor.untyped_storage()._cdata


@pytest.fixture(scope="module")
def sdata(texture_sections):
    return texture_sections


@pytest.mark.parametrize("name", FITS)
def test_every_method_fits_and_predicts_without_float64(sdata, name, monkeypatch):
    with Device(monkeypatch) as device:
        model = FITS[name](sdata)
        stp.tl.predict(sdata, model, key_added="on_device")
    assert device.n_moved > 0
    monkeypatch.undo()
    stp.tl.predict(sdata, model, key_added="on_cpu")
    on_device, on_cpu = (np.asarray(sdata.tables[key].X) for key in ("on_device", "on_cpu"))
    np.testing.assert_array_equal(on_device, on_cpu)


@pytest.mark.parametrize("name", ["deepspot", "cnn"])
def test_attributions_need_no_float64(sdata, name, monkeypatch):
    pytest.importorskip("captum")
    model = FITS[name](sdata)
    stp.tl.predict(sdata, model)
    spots = sdata.tables["table"].obs_names[:2].tolist()
    with Device(monkeypatch):
        stp.tl.attribute(sdata, model, model.genes[0], spots=spots)


def test_tiles_are_embedded_without_float64(sdata, monkeypatch):
    with Device(monkeypatch) as device:
        stp.pp.embed(sdata, tile_um=40.0, key_added="X_again")
    assert device.n_moved > 0
    table = sdata.tables["table"]
    np.testing.assert_array_equal(table.obsm["X_again"], table.obsm["X_texture"])


def test_the_simulated_device_refuses_float64(monkeypatch):
    with Device(monkeypatch):
        values = torch.ones(3).to("cpu")
        with pytest.raises(TypeError, match="does not support float64"):
            values[:1].double()
        assert values.cpu().double().numpy().sum() == 3
        with pytest.raises(TypeError, match="does not support float64"):
            torch.nn.BatchNorm1d(3).double().to("cpu")
