"""Published weights are loaded into a backbone completely, or refused."""

from __future__ import annotations

import pickle

import pytest
import timm
import torch
from safetensors.torch import save_file

from stpredict.encoders._load import published_weights
from stpredict.nn import TileCNN


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_published_file_is_loaded_into_the_backbone(backbone, suffix, tmp_path):
    torch.manual_seed(0)
    published = timm.create_model(backbone, num_classes=10).eval()  # with a classifier
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(published.state_dict(), path)
    else:
        torch.save(published.state_dict(), path)
    network = TileCNN(4, backbone=backbone, tile_px=64)
    published_weights(backbone, path)(network.backbone)
    filled = network.backbone.state_dict()
    same = {k: v for k, v in published.state_dict().items() if k in filled and k != "pos_embed"}
    assert filled.keys() - same.keys() <= {"pos_embed"}
    assert all(torch.equal(filled[k], v) for k, v in same.items())
    if backbone == "test_vit":  # resampled from tiles of 160 px to the 64 px of these
        assert filled["pos_embed"].std() > 0
        assert filled["pos_embed"].shape[1] == 1 + (64 // 16) ** 2


def test_weights_of_another_network_are_refused(tmp_path):
    other = timm.create_model("test_vit", num_classes=0)
    save_file(other.state_dict(), tmp_path / "other.safetensors")
    fill = published_weights("test_resnet", tmp_path / "other.safetensors")
    network = TileCNN(4, backbone="test_resnet", tile_px=64)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    with pytest.raises(ValueError, match="do not fit"):
        fill(network.backbone)
    assert all(torch.equal(v, network.state_dict()[k]) for k, v in before.items())


def test_missing_and_unsafe_files_and_unknown_models_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="No weights file"):
        published_weights("test_resnet", tmp_path / "nothing.safetensors")
    (tmp_path / "hostile.pth").write_bytes(pickle.dumps(print, protocol=2))
    with pytest.raises(ValueError, match=r"was not loaded|not a valid"):
        published_weights("test_resnet", tmp_path / "hostile.pth")
    with pytest.raises(KeyError, match="timm has no model 'no_such_net'"):
        published_weights("no_such_net", None)


def test_an_offline_hub_is_reported(monkeypatch):
    from stpredict.encoders import _weights

    def offline(model):
        raise OSError("no route to the hub")

    monkeypatch.setattr(_weights, "timm_state", offline)
    with pytest.raises(RuntimeError, match=r"did not provide the weights .* no route to the hub"):
        published_weights("test_resnet", None)
