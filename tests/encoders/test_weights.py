"""Weights from files and from the hub."""

from __future__ import annotations

import dataclasses
import os
from collections import OrderedDict
from functools import partial
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import timm.models
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from stpredict import encoders
from stpredict.encoders import EncoderRecord

PUBLISHED = ("uni", "h-optimus-0", "phikon", "phikon-v2", "inception_v3", "resnet50", "densenet121")

# Architectures of the records with one small block, to save time.
SMALL: dict[str, dict[str, Any]] = {
    "uni": {"depth": 1, "embed_dim": 16, "num_heads": 2},
    "h-optimus-0": {"depth": 1, "embed_dim": 24, "num_heads": 2},
    "phikon": {"depth": 1, "embed_dim": 16, "num_heads": 2},
    "phikon-v2": {"depth": 1, "embed_dim": 16, "num_heads": 2},
    "resnet50": {"layers": (1, 1, 1, 1), "channels": (4, 4, 4, 4)},
    "densenet121": {"block_config": (1, 1, 1, 1), "growth_rate": 4},
}


def small(name: str) -> EncoderRecord:
    record = encoders.record(name)
    build = partial(record.build, **SMALL[name])
    with torch.device("meta"):
        dimension = build().num_features
    return dataclasses.replace(record, build=build, dimension=dimension)


def perturbed(module: nn.Module) -> nn.Module:
    """Perturb every tensor, so that a missing tensor changes the output."""
    with torch.no_grad():
        for tensor in module.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.rand_like(tensor) / 10)
    return module.eval()


def tiles_for(record: EncoderRecord) -> Tensor:
    seeded = torch.Generator().manual_seed(1)
    side = record.input_px or 64
    return torch.randint(0, 256, (2, 3, side, side), generator=seeded, dtype=torch.uint8)


def normalised(tiles: Tensor, record: EncoderRecord) -> Tensor:
    shape = (1, 3, 1, 1)
    mean, std = torch.tensor(record.mean).view(shape), torch.tensor(record.std).view(shape)
    tiles = tiles.float() / 255
    if record.resize_px is not None:
        tiles = F.interpolate(tiles, record.resize_px, mode="bilinear", antialias=True)
        start, side = round((record.resize_px - record.input_px) / 2), record.input_px
        tiles = tiles[..., start : start + side, start : start + side]
    return (tiles - mean) / std


@pytest.fixture(autouse=True)
def requests(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Requests to the hub, which is not asked."""
    urls: list[str] = []
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", urls.append)
    return urls


def save(state: Any, path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file({k: v.contiguous() for k, v in state.items()}, path)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("name", SMALL)
def test_weights_are_read_from_a_file(name: str, suffix: str, tmp_path: Path) -> None:
    record = small(name)
    module = perturbed(record.build())
    path = save(module.state_dict(), tmp_path / f"weights{suffix}")
    encoder = encoders.load(record, weights=path)
    tiles = tiles_for(record)
    with torch.inference_mode():
        expected = module(normalised(tiles, record))
    assert encoder.dimension == record.dimension
    torch.testing.assert_close(encoder(tiles), expected, rtol=1e-5, atol=1e-5)
    assert (
        encoder.weights_hash
        == encoders.load(module, name=name, mean=(0, 0, 0), std=(1, 1, 1)).weights_hash
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_weights_of_full_size_are_read_from_a_file(name: str, tmp_path: Path) -> None:
    record = encoders.record(name)
    module = record.build().eval()
    path = save(module.state_dict(), tmp_path / "weights.safetensors")
    tiles = tiles_for(record)
    with torch.inference_mode():
        expected = module(normalised(tiles, record))
    del module
    encoder = encoders.load(name, weights=path)
    torch.testing.assert_close(encoder(tiles), expected, rtol=1e-4, atol=1e-4)


def test_the_inception_file_of_torchvision_is_read_without_heads(
    tmp_path: Path,
) -> None:
    published = encoders.record("inception_v3")

    def build() -> nn.Module:
        with torch.device("meta"):  # its random initialisation takes seconds
            return published.build().to_empty(device="cpu")

    record = dataclasses.replace(published, build=build)
    state = {k: torch.ones_like(v) for k, v in build().state_dict().items()}
    state["AuxLogits.fc.weight"] = torch.zeros(1000, 768)
    state["fc.weight"] = torch.zeros(1000, 2048)
    encoder = encoders.load(record, weights=save(state, tmp_path / "inception.pth"))
    loaded = encoder.function.state_dict()  # type: ignore[attr-defined]
    assert all(bool((v == 1).all()) for v in loaded.values())


def test_old_densenet_names_of_torchvision_are_converted(tmp_path: Path) -> None:
    record = small("densenet121")
    state = record.build().state_dict()
    # the files of torchvision: norm.1 for norm1, and no batch counters
    old = {
        k.replace(".norm1.", ".norm.1.").replace(".conv2.", ".conv.2."): v
        for k, v in state.items()
        if not k.endswith("num_batches_tracked")
    }
    assert old.keys() - state.keys()
    old["classifier.weight"] = torch.zeros(1000, 2)
    encoder = encoders.load(record, weights=save(old, tmp_path / "densenet.pth"))
    loaded = encoder.function.state_dict()  # type: ignore[attr-defined]
    assert all(torch.equal(loaded[k], state[k]) for k in state)


@pytest.mark.parametrize("name", ["phikon", "phikon-v2"])
def test_phikon_equals_transformers(name: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="the oracle of this test")
    record = small(name)
    shared = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    if name == "phikon":
        config = transformers.ViTConfig(**shared, intermediate_size=64, layer_norm_eps=1e-6)
        reference = transformers.ViTModel(config)  # with the pooler, which is dropped
    else:
        config = transformers.Dinov2Config(**shared, image_size=224, patch_size=16)
        reference = transformers.Dinov2Model(config)
    perturbed(reference)
    transformers.utils.logging.disable_progress_bar()
    reference.save_pretrained(tmp_path)  # in the names of the published files
    encoder = encoders.load(record, weights=tmp_path / "model.safetensors")
    tiles = tiles_for(record)
    with torch.inference_mode():
        expected = reference(normalised(tiles, record)).last_hidden_state[:, 0]
    torch.testing.assert_close(encoder(tiles), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {"state_dict": s, "epoch": 3},
        lambda s: {"model": s},
        lambda s: {f"module.{k}": v for k, v in s.items()},
        lambda s: {"model": {f"module._orig_mod.{k}": v for k, v in s.items()}},
        lambda s: {**s, "fc.weight": torch.zeros(5, 16), "fc.bias": torch.zeros(5)},
        lambda s: OrderedDict({k: v.half() for k, v in s.items()}),
    ],
    ids=["state_dict", "model", "module.", "nested", "classifier", "half"],
)
def test_usual_wrappers_are_removed(wrap: Any, tmp_path: Path) -> None:
    record = small("resnet50")
    path = save(wrap(record.build().state_dict()), tmp_path / "resnet.pth")
    encoder = encoders.load(record, weights=path)
    assert encoder(tiles_for(record)).dtype == torch.float32


def test_differing_keys_and_shapes_are_reported(tmp_path: Path) -> None:
    record = small("resnet50")
    state = record.build().state_dict()
    for key in [k for k in state if k.startswith("layer1.0.bn") and "num_batches" not in k]:
        del state[key]
    state["stray.weight"] = torch.zeros(2)
    state["conv1.weight"] = torch.zeros(1, 3, 7, 7)
    path = save(state, tmp_path / "resnet.safetensors")
    with pytest.raises(ValueError, match="do not fit encoder 'resnet50'") as error:
        encoders.load(record, weights=path)
    message = str(error.value)
    assert "12 missing (layer1.0.bn1.weight, " in message
    assert "1 unexpected (stray.weight)" in message
    assert "1 of another shape (conv1.weight (1, 3, 7, 7) instead of (64, 3, 7, 7))" in message


def test_weights_of_another_encoder_do_not_fit(tmp_path: Path) -> None:
    path = save(small("phikon").build().state_dict(), tmp_path / "phikon.pt")
    with pytest.raises(ValueError, match=r"'resnet50'.*missing.*unexpected"):
        encoders.load(small("resnet50"), weights=path)


class UnsafeObject:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def test_an_unsafe_pickle_is_refused_and_not_executed(tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    state = small("resnet50").build().state_dict()
    path = tmp_path / "resnet.pth"
    torch.save({"state_dict": state, "args": UnsafeObject(mark)}, path)
    with pytest.raises(ValueError, match=r"was not loaded.*safetensors"):
        encoders.load(small("resnet50"), weights=path)
    assert not mark.exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("keep", [0, 10, 2000])
def test_a_damaged_file_is_reported(suffix: str, keep: int, tmp_path: Path) -> None:
    record = small("resnet50")
    path = save(record.build().state_dict(), tmp_path / f"resnet{suffix}")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=rf"resnet\{suffix}.*(not a valid|damaged)"):
        encoders.load(record, weights=path)


def test_missing_files_and_unknown_formats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="No weights file"):
        encoders.load("uni", weights=tmp_path / "uni.bin")
    (tmp_path / "uni.h5").touch()
    with pytest.raises(ValueError, match=r"'uni.h5' has an unknown format"):
        encoders.load("uni", weights=tmp_path / "uni.h5")
    path = save({"teacher": {"a": torch.zeros(1)}}, tmp_path / "uni.pt")
    with pytest.raises(ValueError, match=r"state dict.*It contains: teacher"):
        encoders.load("uni", weights=path)


@pytest.mark.parametrize("name", PUBLISHED)
def test_an_offline_hub_is_reported(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: Any, **kwargs: Any) -> None:
        raise OSError("401 Client Error\nand a page of detail")

    monkeypatch.setattr(timm.models, "load_state_dict_from_hf", offline)
    with pytest.raises(RuntimeError, match="OSError: 401 Client Error") as error:
        encoders.load(name)
    record, message = encoders.record(name), str(error.value)
    assert record.source in message
    assert record.licence in message
    assert "weights='path/to/model.safetensors'" in message
    assert "page of detail" not in message
    assert ("Request access" in message) == record.gated
    assert f"stp.pp.embed(sdata, '{name}', weights=" in message
    assert error.value.__suppress_context__


@pytest.mark.parametrize("name", ["uni", "resnet50", "timm:resnet18.tv_in1k"])
def test_without_a_network_a_single_request_fails(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    urls = []

    def offline(url: str) -> None:
        urls.append(url)
        raise ConnectionError("Name or service not known")

    def retry(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("the hub's client, which retries, was called")

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", offline)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(timm.models, "load_state_dict_from_hf", retry)
    create = timm.create_model

    def build(*args: Any, pretrained: bool = False, **kwargs: Any) -> Any:
        return retry() if pretrained else create(*args, **kwargs)

    monkeypatch.setattr(timm, "create_model", build)
    with pytest.raises(RuntimeError, match=r"ConnectionError: Name or service not known\)"):
        encoders.load(name)
    assert len(urls) == 1
    assert urls[0].endswith("/model.safetensors")


def test_cached_weights_are_read_without_a_request(
    monkeypatch: pytest.MonkeyPatch, requests: list[str]
) -> None:
    record = small("uni")
    state = record.build().state_dict()
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: "model.safetensors")
    monkeypatch.setattr(timm.models, "load_state_dict_from_hf", lambda *_, **__: state)
    encoders.load(record)
    assert not requests


@pytest.mark.parametrize("path", [3, b"uni.pt"])
def test_weights_that_are_no_path_are_refused(path: Any) -> None:
    with pytest.raises(TypeError, match="weights must be a string or a path"):
        encoders.load("uni", weights=path)


def test_the_repository_of_the_record_is_requested(monkeypatch: pytest.MonkeyPatch) -> None:
    record = small("uni")
    module = perturbed(record.build())
    asked = []

    def answer(repository: str, **kwargs: Any) -> dict[str, Tensor]:
        asked.append((repository, kwargs))
        return module.state_dict()

    monkeypatch.setattr(timm.models, "load_state_dict_from_hf", answer)
    encoder = encoders.load(record)
    assert asked == [("MahmoodLab/UNI", {"weights_only": True})]
    assert (
        encoder.weights_hash
        == encoders.load(module, name="uni", mean=(0, 0, 0), std=(1, 1, 1)).weights_hash
    )


def test_incomplete_hub_weights_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    record = small("uni")
    state = record.build().state_dict()
    del state["norm.weight"]
    monkeypatch.setattr(timm.models, "load_state_dict_from_hf", lambda *args, **kwargs: state)
    with pytest.raises(ValueError, match=r"1 missing \(norm.weight\)"):
        encoders.load(record)


def test_any_timm_model_is_loaded_from_a_file(tmp_path: Path) -> None:
    module = perturbed(timm.create_model("test_resnet", num_classes=0))
    classifier = timm.create_model("test_resnet", num_classes=7)
    state = {**classifier.state_dict(), **module.state_dict()}
    path = save(state, tmp_path / "weights.safetensors")
    encoder = encoders.load("timm:test_resnet.r160_in1k", weights=path)
    config = timm.get_pretrained_cfg("test_resnet.r160_in1k")
    assert encoder.name == "timm_test_resnet.r160_in1k"
    assert (encoder.input_px, encoder.mean) == (config.input_size[-1], config.mean)
    assert encoder.dimension == module.num_features
    assert (
        encoder.weights_hash
        == encoders.load(module, name="m", mean=(0, 0, 0), std=(1, 1, 1)).weights_hash
    )


def test_timm_converts_a_file_with_another_position_grid(tmp_path: Path) -> None:
    wide = timm.create_model("test_vit", img_size=224, num_classes=0)
    path = save(wide.state_dict(), tmp_path / "vit.pt")
    encoder = encoders.load("timm:test_vit.r160_in1k", weights=path)
    assert encoder.input_px == 160
    assert encoder.dimension == wide.num_features
    path = save({"norm.weight": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="do not fit"):
        encoders.load("timm:test_vit.r160_in1k", weights=path)


def test_published_weights_of_timm_and_failed_downloads(monkeypatch: pytest.MonkeyPatch) -> None:
    published = perturbed(timm.create_model("test_resnet"))

    def create(model: str, *, pretrained: bool = False, **options: Any) -> nn.Module:
        return published if pretrained else original(model, **options)

    original = timm.create_model
    monkeypatch.setattr(timm, "create_model", create)
    encoder = encoders.load("timm:test_resnet.r160_in1k")
    assert torch.equal(
        encoder.function.state_dict()["conv1.0.weight"],  # type: ignore[attr-defined]
        published.state_dict()["conv1.0.weight"],
    )

    def offline(*args: Any, **kwargs: Any) -> None:
        raise ConnectionError

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(RuntimeError, match=r"'timm:test_resnet.*no reason given.*timm/test_resnet"):
        encoders.load("timm:test_resnet.r160_in1k")
