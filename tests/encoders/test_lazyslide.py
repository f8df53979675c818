"""Encoders of lazyslide-models: names, transforms, weights and errors."""

from __future__ import annotations

import copy
import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import timm
import torch
from PIL import Image
from torch import Tensor

import stpredict as stp
from stpredict import encoders

models = pytest.importorskip("lazyslide_models", reason="the extra [encoders]")
REGISTRY = models.MODEL_REGISTRY
OURS = {"texture", "efficientnet_lite0", "random_conv", "uni", "h-optimus-0", "phikon", "phikon-v2"}


def random_tiles(side: int, n: int = 2) -> Tensor:
    seeded = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (n, 3, side, side), generator=seeded, dtype=torch.uint8)


@pytest.fixture(autouse=True)
def requests(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Requests to the hub, which is not asked."""
    urls: list[str] = []
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", urls.append)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    return urls


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Let timm build one small random network for every name, and list the names."""
    create, names, networks = timm.create_model, [], []

    def build(name: str, **options: Any) -> Any:
        names.append(name)
        if not networks:
            options |= {"pretrained": False}
            if "resnet" not in name:
                options |= {"img_size": 224}
            architecture = "test_resnet" if "resnet" in name else "test_vit"
            networks.append(create(architecture, **options))
        return networks[0]

    monkeypatch.setattr(timm, "create_model", build)
    return lambda: names


def record_of_any_dimension(name: str) -> encoders.EncoderRecord:
    return dataclasses.replace(encoders.record(name), dimension=None)


def embedded_by_the_class(name: str, tiles: Tensor) -> Tensor:
    model = REGISTRY[name]()
    transform = model.get_transform()
    pictures = [Image.fromarray(tile.permute(1, 2, 0).numpy()) for tile in tiles]
    return model.encode_image(torch.stack([transform(picture) for picture in pictures]))


def test_the_encoders_of_both_packages_are_listed_once() -> None:
    names = encoders.names()
    assert len(set(names)) == len(names) > 45
    assert {"uni2", "virchow2", "gigapath", "conch", "h-optimus-1", "midnight"} <= set(names)
    assert not {"prism", "prism2", "chief-slide-encoder", "cellpose", "phikonv2"} & set(names)
    for name in OURS:
        assert encoders.record(name).package != "lazyslide-models"
    assert encoders.record("uni2").package == "lazyslide-models"


def test_records_hold_what_the_registry_declares() -> None:
    record = encoders.record("uni2")
    assert (record.dimension, record.input_px, record.gated) == (1536, 224, True)
    assert record.licence == "CC-BY-NC-ND-4.0"
    assert record.source == "https://huggingface.co/MahmoodLab/UNI2-h"
    assert encoders.record("crisp").licence == "MIT AND CC-BY-NC-ND-4.0"
    assert encoders.record("conch").input_px == encoders.record("medsiglip").input_px == 448


def test_the_declared_input_is_that_of_the_transform() -> None:
    n_compared = 0
    for name in encoders.names():
        record = encoders.record(name)
        if record.package != "lazyslide-models":
            continue
        model = REGISTRY[name]
        try:
            transform = model.get_transform(model.__new__(model))
        except AttributeError:  # depends on the loaded network
            continue
        if transform is not None:
            sizes = [step.size for step in transform.transforms if hasattr(step, "size")]
            assert sizes[-1][0] == record.input_px, name
            n_compared += 1
    assert n_compared > 15


@pytest.mark.parametrize("side", [224, 300])
@pytest.mark.parametrize(
    ("name", "repository"),
    [
        ("h-optimus-1", "bioptimus/H-optimus-1"),  # resizes bytes
        ("virchow2", "paige-ai/Virchow2"),  # class token and mean of patches
        ("gigapath", "prov-gigapath/prov-gigapath"),  # crops
        ("lunit-bt", "1aurent/resnet50.lunit_bt"),  # a CNN
        ("lunit-dino-s8-moozy", "1aurent/vit_small_patch8_224.lunit_dino"),
        ("h0-mini", "bioptimus/H0-mini"),
        ("mstar", "Wangyh/mSTAR"),
        ("path_orchestra", "AI4Pathology/PathOrchestra"),
    ],
)
def test_embeddings_are_those_of_the_class(
    name: str, repository: str, side: int, small: Any, requests: list[str]
) -> None:
    encoder = encoders.load(record_of_any_dimension(name))
    tiles = random_tiles(side)
    expected = embedded_by_the_class(name, tiles)
    torch.testing.assert_close(encoder(tiles), expected.clone(), rtol=0, atol=1e-5)
    assert encoder.name == name
    assert all(repository in built for built in small())
    assert [url for url in requests if repository in url] == requests
    resized = {"gigapath": 256, "lunit-bt": 160, "lunit-dino-s8-moozy": 248}
    assert encoder.input_px == resized.get(name, 224)
    assert encoder.mean is None


def test_a_copy_has_a_network_of_its_own(small: Any) -> None:
    encoder = encoders.load(record_of_any_dimension("h-optimus-1"))
    tiles = random_tiles(224)
    expected = encoder(tiles)
    duplicate = copy.deepcopy(encoder.function)
    with torch.no_grad():
        for parameter in encoder.function.parameters():  # type: ignore[attr-defined]
            parameter.zero_()
    torch.testing.assert_close(duplicate(tiles), expected)
    assert not torch.allclose(encoder(tiles), expected)


def test_models_of_transformers_are_embedded_by_their_class(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    transformers = pytest.importorskip("transformers", reason="a dependency of lazyslide-models")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.Dinov2Config(**sizes, image_size=224, patch_size=14)
    network = transformers.Dinov2Model(config).eval()
    monkeypatch.setattr(transformers.AutoModel, "from_pretrained", lambda *_, **__: network)
    tiles = random_tiles(300)
    encoder = encoders.load(record_of_any_dimension("midnight"))
    expected = embedded_by_the_class("midnight", tiles)
    torch.testing.assert_close(encoder(tiles), expected.clone(), rtol=0, atol=1e-5)


def test_a_model_with_its_own_processor_embeds_as_from_pictures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    transformers = pytest.importorskip("transformers", reason="a dependency of lazyslide-models")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.CLIPConfig(text_config=sizes, vision_config=sizes, projection_dim=8)
    network, processor = transformers.CLIPModel(config).eval(), transformers.CLIPImageProcessor()
    monkeypatch.setattr(transformers.CLIPModel, "from_pretrained", lambda *_, **__: network)
    monkeypatch.setattr(transformers.CLIPProcessor, "from_pretrained", lambda *_, **__: processor)
    with pytest.warns(UserWarning, match="Normalization"):
        encoder = encoders.load(record_of_any_dimension("plip"))
    tiles = random_tiles(300)
    pictures = [Image.fromarray(tile.permute(1, 2, 0).numpy()) for tile in tiles]
    with torch.inference_mode():
        pixels = processor(images=pictures, return_tensors="pt")["pixel_values"]
        pooled = network.vision_model(pixel_values=pixels).pooler_output
        expected = network.visual_projection(pooled)
    torch.testing.assert_close(encoder(tiles), expected, rtol=0, atol=1e-5)


def test_a_model_without_transform_gets_the_tiles_as_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tiles = random_tiles(50)

    class Own(REGISTRY["rudolfv2-s"]):  # type: ignore[misc]
        def __init__(self, model_path: None = None, token: None = None) -> None:
            self.model = torch.nn.Linear(3, 2)

        def encode_image(self, image: Tensor) -> Any:
            assert torch.equal(image, tiles)
            return image.float().mean((-2, -1)).numpy()

    monkeypatch.setitem(REGISTRY._data, "rudolfv2-s", Own)
    encoder = encoders.load(record_of_any_dimension("rudolfv2-s"))
    torch.testing.assert_close(encoder(tiles), tiles.float().mean((-2, -1)))
    assert encoder.to("meta").function.network.weight.is_meta  # type: ignore[attr-defined]


def test_sections_are_embedded_and_the_step_is_recorded(
    small: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(REGISTRY["lunit-dino-s16"], "encode_dim", 64)
    sdata = stp.datasets.phantom(size_px=300)
    stp.pp.embed(sdata, "lunit-dino-s16", tile_um=40)
    table = sdata.tables["table"]
    assert table.obsm["X_lunit-dino-s16"].shape == (table.n_obs, 64)
    step = table.uns["stpredict"]["embed"]["X_lunit-dino-s16"]
    assert step["encoder"] == "lunit-dino-s16"


def save_small_flash(monkeypatch: pytest.MonkeyPatch, path: Path) -> Any:
    """Save random weights of a model with a single block, which its class then builds, too."""
    create = timm.create_model

    def shallow(name: str, **options: Any) -> Any:
        return create(name, **options | {"depth": 1})

    monkeypatch.setattr(timm, "create_model", shallow)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: str(path))
    # the class cannot be built without weights
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda *_, **__: {})
    monkeypatch.setattr(torch.nn.Module, "load_state_dict", lambda *_, **__: None)
    network = REGISTRY["gigapath-flash"]().model
    monkeypatch.undo()
    monkeypatch.setattr(timm, "create_model", shallow)
    assert torch.load is load
    torch.save({"state_dict": network.state_dict()}, path)
    return network


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_weights_are_read_from_a_file(
    suffix: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "flash.pt"
    network = save_small_flash(monkeypatch, path)
    if suffix == ".safetensors":
        from safetensors.torch import save_file

        path = tmp_path / "flash.safetensors"
        save_file(network.state_dict(), path)
    encoder = encoders.load("gigapath-flash", weights=path)
    tiles = random_tiles(256)
    x = tiles[..., 16:240, 16:240].float() / 255
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    with torch.inference_mode():
        expected = network((x - mean) / std)
    assert encoder.dimension == 384
    torch.testing.assert_close(encoder(tiles), expected.clone(), rtol=0, atol=1e-5)
    assert encoder.weights_hash == encoders.load("gigapath-flash", weights=path).weights_hash


def test_files_that_do_not_fit_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    save_small_flash(monkeypatch, tmp_path / "flash.pt")
    torch.save({"stray": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"do not fit encoder 'gigapath-flash': Error.*Missing"):
        encoders.load("gigapath-flash", weights=tmp_path / "other.pt")
    with pytest.raises(FileNotFoundError, match="No weights file"):
        encoders.load("gigapath-flash", weights=tmp_path / "absent.pt")
    with pytest.raises(ValueError, match=r"'virchow2' of lazyslide-models reads no file: omit"):
        encoders.load("virchow2", weights=tmp_path / "other.pt")


@pytest.mark.parametrize("name", ["uni2", "virchow2", "gpfm", "chief"])
def test_an_offline_hub_is_reported_in_one_message(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    urls = []

    def offline(url: str) -> None:
        urls.append(url)
        raise ConnectionError("Name or service not known\nand a page of detail")

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", offline)
    with pytest.raises(RuntimeError, match="ConnectionError: Name or service not known") as error:
        encoders.load(name)
    record, message = encoders.record(name), str(error.value)
    assert len(urls) == 1
    assert error.value.__suppress_context__
    assert "page of detail" not in message
    assert f"{record.source} (licence: {record.licence})" in message
    assert ("Request access" in message) == record.gated == (name in ("uni2", "virchow2"))
    assert ("weights=" in message) == (name == "uni2")
    assert "'efficientnet_lite0' or 'texture'" in message


def test_a_package_that_a_model_needs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "conch.open_clip_custom", None)
    with (
        pytest.raises(ImportError, match="pip install git"),
        pytest.warns(UserWarning, match="Normalization"),
    ):
        encoders.load("conch")


def test_without_the_extra_the_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lazyslide_models", None)
    assert "uni2" not in encoders.names()
    assert encoders.record("uni").dimension == 1024
    with pytest.raises(KeyError, match=r"No encoder 'uni2'.*pip install 'stpredict\[encoders\]'"):
        encoders.load("uni2")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gigapath-flash", "uni2"])
def test_models_of_full_size_are_read_from_a_file(name: str, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "load", lambda *_, **__: {})
        patch.setattr(torch.nn.Module, "load_state_dict", lambda *_, **__: None)
        model = REGISTRY[name](model_path="none")
    torch.save(model.model.state_dict(), tmp_path / "weights.pt")
    encoder = encoders.load(name, weights=tmp_path / "weights.pt")
    tiles = random_tiles(250)
    expected = model.encode_image(torch.stack([model.get_transform()(tile) for tile in tiles]))
    assert encoder.dimension == encoders.record(name).dimension
    torch.testing.assert_close(encoder(tiles), expected.clone(), rtol=0, atol=1e-5)
