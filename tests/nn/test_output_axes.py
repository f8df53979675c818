"""Networks declare the axes along which their targets lie."""

from __future__ import annotations

import pytest
import torch

from stpredict import nn

NETWORKS = {
    "DeepSets": lambda n_targets: nn.DeepSets(6, n_targets, n_hidden=5),
    "DeepCell": lambda n_targets: nn.DeepCell(6, n_targets, n_hidden=5),
    "LinearSets": lambda n_targets: nn.LinearSets(6, n_targets),
    "ForestSets": lambda n_targets: nn.ForestSets(6, n_targets),
    "StackingMLP": lambda n_targets: nn.StackingMLP(12, n_targets),
    "MeanOfModels": lambda n_targets: nn.MeanOfModels(12, n_targets),
    "TileCNN": lambda n_targets: nn.TileCNN(n_targets),
    "TileCNN, timm": lambda n_targets: nn.TileCNN(n_targets, backbone="test_resnet"),
    "MultiScale": lambda n_targets: nn.MultiScale(n_targets),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_declared_axes_are_those_that_grow_with_the_number_of_targets(name):
    with torch.device("meta"):
        smaller, larger = (NETWORKS[name](n_targets).state_dict() for n_targets in (3, 4))
    growing = {
        key: axis
        for key, tensor in smaller.items()
        for axis, size in enumerate(tensor.shape)
        if larger[key].shape[axis] != size
    }
    assert growing == getattr(nn, name.partition(",")[0]).output_axes
