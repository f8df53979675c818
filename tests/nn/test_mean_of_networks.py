"""The mean of networks over sets."""

from __future__ import annotations

import pytest
import torch

from stpredict.nn import DeepCell, DeepSets, MeanOfNetworks
from stpredict.nn._mean_of_networks import networks_of

SIZES = {"n_hidden": 5, "n_phi": 2, "n_rho": 3}


def networks(context, n=3, **options):
    torch.manual_seed(0)
    return [DeepSets(6, 4, context=context, **SIZES, **options) for _ in range(n)]


def inputs(context, n=7):
    generator = torch.Generator().manual_seed(1)
    values = {"center": torch.randn(n, 6, generator=generator)}
    if "subspot" in context:
        values["subtiles"] = torch.randn(n, 4, 6, generator=generator)
    if "neighbors" in context:
        values["neighbors"] = torch.randn(n, 5, 6, generator=generator)
        values["neighbor_mask"] = torch.rand(n, 5, generator=generator) < 0.6
        values["neighbor_mask"][0] = False  # a spot without neighbours
    return values


@pytest.mark.parametrize("aggregation", ["max", "mean", "sum"])
@pytest.mark.parametrize(
    "context", ["spot", "spot_subspot", "spot_neighbors", "spot_subspot_neighbors"]
)
def test_the_mean_of_the_networks_is_predicted(context, aggregation):
    each = networks(context, aggregation=aggregation)
    mean, values = MeanOfNetworks(each).eval(), inputs(context)
    expected = torch.stack([network(**values) for network in each])
    torch.testing.assert_close(mean(**values), expected.mean(0))
    pooled = mean.pool(
        mean.encode(values["center"]),
        mean._encode_sets("subtiles", values.get("subtiles"), 7),
        mean._encode_sets("neighbors", values.get("neighbors"), 7),
        values.get("neighbor_mask"),
    )
    assert pooled.shape == (7, mean.n_pooled)
    predicted, members = mean.heads(pooled)
    torch.testing.assert_close(members, expected)
    torch.testing.assert_close(predicted, expected.mean(0))
    torch.testing.assert_close(mean.head(pooled), expected.mean(0))


def test_tensors_of_targets_are_declared():
    mean = MeanOfNetworks(networks("spot"))
    state = mean.state_dict()
    assert len(mean.output_axes) == 6
    assert all(state[name].shape[axis] == 4 for name, axis in mean.output_axes.items())


def test_the_networks_are_listed():
    each = networks("spot")
    assert networks_of(MeanOfNetworks(each)) == each
    assert networks_of(each[0]) == each[:1]


@pytest.mark.parametrize(
    "others",
    [
        [],
        [DeepSets(6, 4, context="spot", **SIZES), DeepSets(6, 3, context="spot", **SIZES)],
        [DeepSets(6, 4, context="spot", **SIZES), DeepSets(6, 4, context="spot_subspot", **SIZES)],
        [DeepSets(6, 4, context="spot", **SIZES), DeepCell(6, 4, context="cell", **SIZES)],
    ],
)
def test_networks_that_differ_are_refused(others):
    with pytest.raises(ValueError, match="networks must be of one class and have the same sizes"):
        MeanOfNetworks(others)
