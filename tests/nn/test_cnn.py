"""CNNs on tiles: sizes, frozen blocks, saving and invalid input."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from stpredict.nn import TileCNN

TINY = "test_resnet"  # timm's, for tests such as these
PX = 32


def tiles_of(n=4, px=PX, seed=0):
    seeded = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, px, px), dtype=torch.uint8, generator=seeded)


def network_of(backbone=TINY, *, n_targets=5, seed=0, **options):
    torch.manual_seed(seed)
    network = TileCNN(n_targets, backbone=backbone, tile_px=PX, **options)
    nn.init.normal_(network.head.weight)  # starts at zero, where all predictions are alike
    return network


def train_a_step(network, n=4):
    optimizer = torch.optim.AdamW((p for p in network.parameters()), lr=1e-2, weight_decay=0.1)
    network.train()
    network(tiles_of(n)).square().mean().backward()
    optimizer.step()


@pytest.mark.parametrize("backbone", ["small", TINY, "densenet121"])
@pytest.mark.parametrize("n_targets", [1, 7])
def test_a_tile_gives_one_value_per_target(backbone, n_targets):
    network = TileCNN(n_targets, backbone=backbone, tile_px=64).eval()
    predicted = network(tiles_of(2, 64))
    assert predicted.shape == (2, n_targets)
    assert predicted.dtype == torch.float32
    # before training, standardised targets are predicted as their mean
    assert (predicted == 0).all()


@pytest.mark.parametrize("backbone", ["small", TINY])
def test_uint8_and_unit_floats_give_the_same_predictions(backbone):
    network = network_of(backbone).eval()
    tiles = tiles_of()
    torch.testing.assert_close(network(tiles), network(tiles.float() / 255))


def test_pixels_are_normalised_as_in_the_pretraining_of_the_backbone():
    import timm

    config = timm.get_pretrained_cfg(TINY)
    network = network_of().eval()
    by_hand = tiles_of().float() / 255
    by_hand = (by_hand - torch.tensor(config.mean).view(3, 1, 1)) / torch.tensor(config.std).view(
        3, 1, 1
    )
    torch.testing.assert_close(network(tiles_of()), network.head(network.backbone(by_hand)))
    assert {"normalize.mean", "normalize.std"} <= network.state_dict().keys()


@pytest.mark.parametrize("backbone", ["small", TINY])
def test_evaluation_of_a_tile_is_independent_of_its_batch(backbone):
    network = network_of(backbone)
    train_a_step(network)
    network.eval()
    tiles = tiles_of(6)
    together = network(tiles)
    torch.testing.assert_close(together, network(tiles))
    one_by_one = torch.cat([network(tile[None]) for tile in tiles])
    torch.testing.assert_close(together, one_by_one, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backbone", ["small", TINY])
@pytest.mark.parametrize("trainable", [0, 1, 2])
def test_training_changes_only_the_last_blocks(backbone, trainable):
    network = network_of(backbone, trainable=trainable)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    train_a_step(network)
    after = network.state_dict()
    changed = {k for k in before if not torch.equal(before[k], after[k])}
    assert {"head.weight", "head.bias"} <= changed
    last = {
        "small": {0: (), 1: ("blocks.3.",), 2: ("blocks.2.", "blocks.3.")},
        TINY: {0: (), 1: ("layer4.",), 2: ("layer3.", "layer4.")},
    }[backbone][trainable]
    # layers after all blocks are trained with the head
    free = ("head.", "backbone.hidden.", *(f"backbone.{block}" for block in last))
    assert all(name.startswith(free) for name in changed), sorted(changed)
    for block in last:  # its weights and the statistics of its batch norm
        assert any(name.startswith(f"backbone.{block}") for name in changed)
        assert any(
            name.startswith(f"backbone.{block}") and name.endswith("running_mean")
            for name in changed
        )


def test_the_whole_network_is_trained_by_default():
    network = network_of()
    train_a_step(network)
    assert all(p.grad is not None for p in network.parameters())


def test_frozen_blocks_stay_in_evaluation_mode():
    network = network_of(trainable=1)
    assert not network.backbone.layer1.training  # from the start
    network.train()
    assert network.training
    assert network.backbone.layer4.training
    for frozen in (network.backbone.layer1, network.backbone.layer3):
        assert not any(module.training for module in frozen.modules())
    assert not network.eval().backbone.layer4.training


def test_a_batch_of_one_trains():
    # at 32 px the last maps are one pixel: batch norm has one value per channel
    network = network_of()
    statistics = network.backbone.layer4[0].bn1.running_mean.clone()
    train_a_step(network, n=1)
    torch.testing.assert_close(network.backbone.layer4[0].bn1.running_mean, statistics)
    assert network.backbone.layer4[0].bn1.training


@pytest.mark.parametrize("backbone", ["small", TINY])
def test_the_state_dict_restores_the_predictions(backbone, tmp_path):
    network = network_of(backbone)
    train_a_step(network)
    save_file(network.state_dict(), tmp_path / "network.safetensors")
    loaded = network_of(backbone, seed=1)
    loaded.load_state_dict(load_file(tmp_path / "network.safetensors"))
    assert torch.equal(network.eval()(tiles_of()), loaded.eval()(tiles_of()))


def test_a_transformer_is_built_for_the_size_of_its_tiles():
    network = TileCNN(3, backbone="test_vit", tile_px=48).eval()
    assert network(tiles_of(2, 48)).shape == (2, 3)


def test_a_transformer_refuses_tiles_of_another_size():
    network = TileCNN(3, backbone="vit_tiny_patch16_224", tile_px=48, trainable=0).eval()
    assert network(tiles_of(2, 48)).shape == (2, 3)
    with pytest.raises(ValueError, match=r"\(64, 64\) px, 'vit_tiny_patch16_224' was built for 48"):
        network(tiles_of(2, 64))


@pytest.mark.parametrize(
    ("backbone", "least"),
    [("small", 16), (TINY, 32), ("densenet121", 32), ("inception_v3", 75), ("test_vit", 16)],
)
def test_tiles_below_the_least_size_are_refused(backbone, least):
    message = f"{least - 1} px is too small for '{backbone}', which needs at least {least} px"
    with pytest.raises(ValueError, match=message):
        TileCNN(2, backbone=backbone, tile_px=least - 1)
    if backbone == "inception_v3":  # takes timm seconds to build
        return
    network = TileCNN(2, backbone=backbone, tile_px=least).eval()
    assert network(tiles_of(1, least)).shape == (1, 2)
    if backbone != "test_vit":
        with pytest.raises(ValueError, match=message):
            network(tiles_of(1, least - 1))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_targets": 0}, ValueError, "n_targets=0 must be at least 1"),
        ({"tile_px": 0}, ValueError, "tile_px=0 must be at least 1"),
        ({"trainable": -1}, ValueError, "trainable=-1 must be 0 to 4"),
        ({"trainable": 5}, ValueError, "trainable=5 must be 0 to 4, the number of blocks"),
        ({"backbone": "resnet18x"}, KeyError, "Did you mean .*'resnet18'"),
        ({"backbone": "resnet18.no_such_tag"}, KeyError, "No backbone 'resnet18.no_such_tag'"),
    ],
)
def test_invalid_settings_are_refused(options, error, message):
    arguments = {"n_targets": 3, **options}
    with pytest.raises(error, match=message):
        TileCNN(arguments.pop("n_targets"), **arguments)


@pytest.mark.parametrize(
    ("tiles", "error", "message"),
    [
        (torch.zeros(2, 3, PX, PX, dtype=torch.int64), TypeError, "torch.int64"),
        (torch.zeros(2, 4, PX, PX), ValueError, r"\(2, 4, 32, 32\)"),
        (torch.zeros(3, PX, PX), ValueError, r"must be \(n, 3, h, w\)"),
    ],
)
def test_invalid_tiles_are_refused(tiles, error, message):
    with pytest.raises(error, match=message):
        network_of().eval()(tiles)
