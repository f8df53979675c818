"""The multi-scale network: sub-tiles, shared weights, saving and invalid input."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from stpredict.nn import MultiScale
from stpredict.nn._tiles import center_of, split_tiles, symmetry

PX = 36
SMALL = {"tile_px": PX, "widths": (4, 4, 6, 8), "n_tile": 6, "n_subtile": 5}


def tiles_of(n=4, px=PX, seed=0):
    seeded = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, px, px), dtype=torch.uint8, generator=seeded)


def network_of(*, n_targets=5, seed=0, **options):
    torch.manual_seed(seed)
    network = MultiScale(n_targets, **{**SMALL, **options})
    nn.init.normal_(network.decoder[-1].weight)  # starts at zero
    return network


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 5), st.integers(1, 6), st.integers(0, 4))
def test_sub_tiles_equal_slices_of_the_tile(n, side, left_over):
    px = n * side + min(left_over, n - 1)
    tiles = tiles_of(2, px)
    parts = split_tiles(tiles, n)
    assert parts.shape == (2, n * n, 3, side, side)
    start = (px - n * side) // 2
    for i in range(n):
        for j in range(n):
            y, x = start + i * side, start + j * side
            naive = tiles[:, :, y : y + side, x : x + side]
            assert torch.equal(parts[:, i * n + j], naive)
    if n % 2:
        assert torch.equal(center_of(tiles, n), parts[:, n * n // 2])


def test_the_middle_of_an_even_split_has_the_size_of_a_sub_tile():
    tiles = tiles_of(1, 8)
    assert torch.equal(center_of(tiles, 2), tiles[:, :, 2:6, 2:6])


def test_the_network_equals_the_composition_of_its_parts():
    network = network_of().eval()
    tiles = tiles_of(3)
    x = tiles.float() / 255 * 2 - 1
    whole = network.tile.head(network.tile.pool(x))
    side = PX // 3
    cut = [
        x[:, :, i * side : (i + 1) * side, j * side : (j + 1) * side]
        for i in range(3)
        for j in range(3)
    ]
    mean = torch.stack([network.subtiles.pool(part) for part in cut]).mean(0)
    middle = network.center.head(network.center.pool(cut[4]))
    expected = network.decoder(torch.cat([whole, network.subtiles.head(mean), middle], dim=1))
    torch.testing.assert_close(network(tiles), expected, rtol=1e-4, atol=1e-5)


def test_pooling_is_the_mean_over_the_cells_of_a_grid():
    network = network_of().eval()
    x = torch.rand(2, 3, 24, 24)
    maps = network.tile.maps(x)
    assert maps.shape == (2, 8, 3, 3)
    assert network.tile.pool(x).shape == (2, 8 * 10)
    torch.testing.assert_close(network.tile.pool(x)[:, :8], maps.mean((2, 3)))
    torch.testing.assert_close(network.tile.pool(x)[:, 8:], maps.flatten(1))


def test_layers_have_the_published_sizes():
    network = MultiScale(35, n_subtile=128).eval()
    assert network.tile.head[1].in_features == 256 * (1 + 9)
    assert network.subtiles.head[1].in_features == 128 * (1 + 4 + 9)
    assert network.decoder[0].in_features == 3 * 128
    assert [layer.out_features for layer in network.decoder if isinstance(layer, nn.Linear)] == [
        256,
        128,
        64,
        35,
    ]
    assert not any(isinstance(m, (nn.ReLU, nn.LeakyReLU)) for m in network.modules())
    predicted = network(tiles_of(2, 78))
    assert predicted.shape == (2, 35)
    assert (predicted == 0).all()  # at first, standardised targets are predicted as their mean


@pytest.mark.parametrize("n_subtiles", [2, 3, 4])
@pytest.mark.parametrize("px", [48, 50, 61])
def test_tiles_and_splits_of_several_sizes_are_accepted(n_subtiles, px):
    network = network_of(n_subtiles=n_subtiles, tile_px=px).eval()
    assert network(tiles_of(2, px)).shape == (2, 5)
    assert network(tiles_of(2, px + 7)).shape == (2, 5)


def test_all_sub_tiles_share_weights_and_order_does_not_matter():
    network = network_of().eval()
    with torch.no_grad():  # ignore the whole tile and the middle
        network.decoder[0].weight[:, :6] = 0
        network.decoder[0].weight[:, 11:] = 0
    tiles = tiles_of(1)
    side = PX // 3
    swapped = tiles.clone()
    swapped[:, :, :side, :side] = tiles[:, :, :side, side : 2 * side]
    swapped[:, :, :side, side : 2 * side] = tiles[:, :, :side, :side]
    torch.testing.assert_close(network(tiles), network(swapped), rtol=1e-4, atol=1e-5)


def test_a_batch_of_one_trains_and_evaluation_repeats_itself():
    network = network_of().train()
    network(tiles_of(1)).sum().backward()
    assert all(p.grad is not None for p in network.parameters())
    network.eval()
    assert torch.equal(network(tiles_of()), network(tiles_of()))


def test_the_state_dict_restores_the_predictions(tmp_path):
    network = network_of()
    network.train()(tiles_of())  # moves the statistics of batch norm
    save_file(network.state_dict(), tmp_path / "network.safetensors")
    loaded = network_of(seed=1)
    loaded.load_state_dict(load_file(tmp_path / "network.safetensors"))
    assert torch.equal(network.eval()(tiles_of()), loaded.eval()(tiles_of()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_targets": 0}, "n_targets=0 must be at least 1"),
        ({"n_tile": 0}, "n_tile=0 must be at least 1"),
        ({"n_subtiles": 1}, "n_subtiles=1 must be at least 2"),
        ({"widths": (8, 8)}, r"widths=\(8, 8\) must be at least three"),
        ({"widths": (8, 0, 8)}, r"widths=\(8, 0, 8\) must be"),
        ({"dropout": 1.0}, "dropout=1.0 must be at least 0 and below 1"),
        ({"tile_px": 35}, "35 px is too small for 3 × 3 sub-tiles and 4 widths, .* least 36 px"),
        ({"tile_px": 59, "n_subtiles": 5}, "59 px is too small for 5 × 5 .* tile_px=60 or more"),
    ],
)
def test_invalid_settings_are_refused(options, message):
    arguments = {"n_targets": 3, **SMALL, **options}
    with pytest.raises(ValueError, match=message):
        MultiScale(arguments.pop("n_targets"), **arguments)


@pytest.mark.parametrize(
    ("tiles", "error", "message"),
    [
        (torch.zeros(2, 3, PX, PX, dtype=torch.int32), TypeError, "torch.int32"),
        (torch.zeros(2, 1, PX, PX), ValueError, r"\(2, 1, 36, 36\)"),
        (torch.zeros(2, 3, PX, PX + 1), ValueError, r"square, not \(36, 37\)"),
        (torch.zeros(2, 3, 35, 35), ValueError, "35 px is too small"),
    ],
)
def test_invalid_tiles_are_refused(tiles, error, message):
    with pytest.raises(error, match=message):
        network_of().eval()(tiles)


def test_the_eight_symmetries_form_a_group():
    tile = torch.arange(12).reshape(1, 3, 2, 2)
    symmetries = {tuple(symmetry(tile, k).flatten().tolist()) for k in range(8)}
    assert len(symmetries) == 8
    compositions = {
        tuple(symmetry(symmetry(tile, j), k).flatten().tolist()) for j in range(8) for k in range(8)
    }
    assert compositions == symmetries
    assert torch.equal(symmetry(tile, 0), tile)
