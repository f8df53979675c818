"""DeepSpot-M is run by its own package: a tiny network of its classes, with random weights."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import stpredict as stp
from stpredict._sdata._pixels import stream_tiles
from stpredict._sdata._spot_table import copy_of, open_table

GENES = ["morphology_001", "morphology_002", "EPCAM", "CD3D", "PTPRC"]
#: The package opens its configuration of the backbone with a function that Python 3.11 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:path is deprecated:DeprecationWarning")


@pytest.fixture(scope="module")
def package():
    reason = "deepspotm is not installed: its licence is noncommercial, and it needs peft"
    return pytest.importorskip("deepspotm", reason=reason)


def write(package, folder, **options):
    """Write a folder as the package publishes it."""
    folder.mkdir()
    genes = pd.DataFrame({"token": GENES, "token_type": "gene", "token_id": range(len(GENES))})
    genes.to_csv(folder / "tokens.csv", index=False)
    config = {
        "encoder_model": "MidnightEncoder",
        "gene_embed_dim": 16,
        "cross_attn_heads": 2,
        "cross_attn_layers": 1,
        "init_gene_embeddings": ["scgpt", "prott5"],
        "bio_dims": {"scgpt": 8, "prott5": 6},
        "use_lora": False,
        **options,
    }
    (folder / "config.json").write_text(json.dumps(config))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = package.DeepSpotM(
            **config, token_path=str(folder / "tokens.csv"), backbone_pretrained=False
        )
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, folder / WEIGHTS)
    return folder


WEIGHTS = "model.safetensors"


@pytest.fixture
def tiny(monkeypatch):
    """Two layers of the backbone instead of forty."""
    transformers = pytest.importorskip("transformers", reason="a dependency of deepspotm")
    config = transformers.Dinov2Config(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        patch_size=14,
        image_size=224,
    )
    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", lambda _: config)


@pytest.fixture
def published(package, tiny, tmp_path):
    return write(package, tmp_path / "published")


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setattr(stp.settings, "verbosity", 0)


@pytest.fixture(scope="module")
def two_sections():
    sdata = stp.datasets.phantom(2, mpp=0.8, size_px=400)
    stp.pp.normalize(sdata)
    return sdata


@pytest.fixture
def sdata(two_sections):
    return copy_of(two_sections)


def oracle(package, folder, sdata, genes, source="scgpt"):
    """Predictions of the package for each tile, as its readme computes them."""
    network, processor = package.DeepSpotM.from_pretrained(str(folder), source=source, device="cpu")
    step = stp.models.from_deepspotm(folder, source=source).recipe.tiles
    predicted = np.empty((sdata["table"].n_obs, len(genes)), np.float32)
    for rows, tiles in stream_tiles(open_table(sdata, "table").sections, step, description=""):
        for row, tile in zip(rows, tiles, strict=True):
            picture = Image.fromarray(tile.permute(1, 2, 0).numpy())
            predicted[row] = network.predict_genes(processor(picture)[None], genes).numpy()
    return predicted


@pytest.mark.parametrize("source", ["scgpt", "prott5"])
def test_predictions_by_gene_name_equal_those_of_the_package(package, published, sdata, source):
    model = stp.models.from_deepspotm(published, source=source)
    assert model.genes == tuple(GENES)
    genes = ["CD3D", "morphology_002"]
    stp.pp.prepare(sdata, model)
    stp.tl.predict(sdata, model, genes=genes, device="cpu")
    table = sdata.tables["predicted"]
    assert list(table.var_names) == genes
    assert table.var["training_mean"].isna().all()
    expected = oracle(package, published, sdata, genes, source)
    assert expected.std() > 0.01
    np.testing.assert_allclose(table.X, expected, rtol=0, atol=1e-5)
    stp.tl.predict(sdata, model, device="cpu", key_added="all")
    assert list(sdata.tables["all"].var_names) == GENES
    np.testing.assert_allclose(sdata.tables["all"][:, genes].X, expected, rtol=0, atol=1e-5)


def test_sources_differ_and_memory_is_bounded_by_parts(published, sdata, monkeypatch):
    from stpredict.models import _deepspotm

    model = stp.models.from_deepspotm(published, source="scgpt")
    tiles = np.random.default_rng(0).integers(0, 255, (7, 3, 224, 224), dtype=np.uint8)
    whole = model.predict_array(tiles, device="cpu")
    other = stp.models.from_deepspotm(published, source="prott5")
    assert np.abs(other.predict_array(tiles, device="cpu") - whole).max() > 0.01
    monkeypatch.setattr(_deepspotm, "_MOST_QUERIES", 3 * len(GENES))
    np.testing.assert_allclose(model.predict_array(tiles, device="cpu"), whole, atol=1e-5)
    with pytest.raises(ValueError, match=r"tiles are \(240, 240\) px, DeepSpot-M reads 224"):
        model.predict_array(np.zeros((2, 3, 240, 240), np.uint8), device="cpu")


def test_the_table_of_predictions_is_scored_and_written(published, sdata, tmp_path):
    import spatialdata

    model = stp.models.from_deepspotm(published, source="scgpt")
    stp.tl.predict(sdata, model, genes=GENES[:2], device="cpu")
    scores = stp.tl.evaluate(sdata)
    assert np.isfinite(scores.values("pcc")["predicted"]).all()
    sdata.write(tmp_path / "sdata.zarr")
    again = spatialdata.read_zarr(tmp_path / "sdata.zarr").tables["predicted"]
    np.testing.assert_array_equal(again.X, sdata.tables["predicted"].X)
    assert again.uns["stpredict"]["predict"]["method"] == "deepspotm"


def test_a_slide_is_predicted_for_some_genes(published, sdata):
    model = stp.models.from_deepspotm(published, source="scgpt")
    sdata = sdata.subset(["S1_image"])
    stp.tl.predict_slide(sdata, model, pitch_um=112, genes=["EPCAM"], device="cpu")
    table = sdata.tables["predicted"]
    assert list(table.var_names) == ["EPCAM"]
    assert np.isfinite(np.asarray(table.X)).all()


def test_the_licence_is_logged_once(published, monkeypatch, capsys):
    monkeypatch.setattr(stp.settings, "verbosity", 1)
    model = stp.models.from_deepspotm(published, source="scgpt")
    printed = capsys.readouterr().out
    assert printed.count("PolyForm Noncommercial 1.0.0") == 1
    assert printed.count("CC BY-NC-SA 4.0") == 1
    assert "DeepSpot-M" in model._repr_html_()
    assert "weights as published" in repr(model)


def test_the_random_state_is_kept(published):
    before = torch.get_rng_state()
    stp.models.from_deepspotm(published, source="scgpt")
    assert torch.equal(torch.get_rng_state(), before)


def test_adapters_of_the_backbone_are_read(package, tiny, tmp_path):
    try:
        folder = write(package, tmp_path / "lora", use_lora=True, r=2)
    except ValueError as error:
        pytest.skip(f"deepspotm 1.0.0 needs transformers 4: {str(error)[:80]}")
    model = stp.models.from_deepspotm(folder, source="scgpt")
    tiles = np.random.default_rng(0).integers(0, 255, (2, 3, 224, 224), dtype=np.uint8)
    before = model.predict_array(tiles, device="cpu")
    state = load_file(folder / WEIGHTS)
    adapters = [name for name in state if "lora_B" in name]
    save_file({k: v * 0 if k in adapters else v for k, v in state.items()}, folder / WEIGHTS)
    after = stp.models.from_deepspotm(folder, source="scgpt").predict_array(tiles, device="cpu")
    assert adapters
    assert np.abs(after - before).max() > 1e-3


class TestRefused:
    def test_the_model_is_neither_saved_nor_trained_nor_attributed(
        self, published, sdata, tmp_path
    ):
        model = stp.models.from_deepspotm(published, source="scgpt")
        with pytest.raises(ValueError, match=r"deepspotm is not saved.*from_deepspotm"):
            model.save(tmp_path / "model")
        assert not (tmp_path / "model").exists()
        with pytest.raises(ValueError, match="deepspotm cannot be finetuned here"):
            stp.tl.finetune(sdata, model)
        stp.tl.predict(sdata, model, genes=GENES[:1], device="cpu")
        pytest.importorskip("captum")
        with pytest.raises(ValueError, match="deepspotm cannot be attributed here"):
            stp.tl.attribute(sdata, model, GENES[0], section="S1")

    def test_genes_that_the_model_lacks_are_refused(self, published, sdata):
        model = stp.models.from_deepspotm(published, source="scgpt")
        with pytest.raises(ValueError, match=r"1 of 2 genes are not among the model's 5: NONE"):
            stp.tl.predict(sdata, model, genes=["EPCAM", "NONE"])
        with pytest.raises(ValueError, match=r'genes= selects genes, which space="factors"'):
            stp.tl.predict(sdata, model, genes=["EPCAM"], space="factors")
        assert "predicted" not in sdata.tables

    def test_a_missing_or_unknown_source_is_refused(self, published):
        with pytest.raises(ValueError, match=r"give source=, \['scgpt', 'prott5'\]"):
            stp.models.from_deepspotm(published)
        with pytest.raises(ValueError, match="source='evo2' is not one of 'scgpt', 'prott5'"):
            stp.models.from_deepspotm(published, source="evo2")

    def test_a_single_source_needs_no_name(self, package, tiny, tmp_path):
        options = {"init_gene_embeddings": ["scgpt"], "bio_dims": {"scgpt": 8}}
        model = stp.models.from_deepspotm(write(package, tmp_path / "one", **options))
        assert model.hyperparameters.published["source"] == "scgpt"

    def test_weights_that_are_damaged_or_not_finite_are_refused(self, published):
        state = load_file(published / WEIGHTS)
        name = next(name for name in state if name.startswith("gene_decoder.patch_proj"))
        save_file({**state, name: state[name] * torch.nan}, published / WEIGHTS)
        with pytest.raises(ValueError, match=r"patch_proj.* has values that are NaN or infinite"):
            stp.models.from_deepspotm(published, source="scgpt")
        del state[name]
        save_file(state, published / WEIGHTS)
        with pytest.raises(ValueError, match=r"cannot read .*RuntimeError.*missing expected"):
            stp.models.from_deepspotm(published, source="scgpt")
        (published / WEIGHTS).write_bytes(b"no safetensors")
        with pytest.raises(ValueError, match=r"cannot read .*SafetensorError"):
            stp.models.from_deepspotm(published, source="scgpt")

    @pytest.mark.parametrize("text", ["{", "[]", "{}", "3"])
    def test_a_bad_configuration_is_refused(self, published, text):
        (published / "config.json").write_text(text)
        with pytest.raises(ValueError, match="is not a configuration of DeepSpot-M"):
            stp.models.from_deepspotm(published, source="scgpt")

    # what follows needs no package

    @pytest.mark.parametrize("name", ["model.ckpt", "model.pkl", "model.safetensors"])
    def test_a_checkpoint_is_not_unpickled(self, tmp_path, name):
        class Hostile:
            def __reduce__(self):
                return Path(tmp_path, "executed").touch, ()

        torch.save({"state_dict": Hostile()}, tmp_path / name)
        with pytest.raises(ValueError, match=r"unpickling them may run any code"):
            stp.models.from_deepspotm(tmp_path / name)
        assert not (tmp_path / "executed").exists()

    def test_an_incomplete_folder_is_refused(self, tmp_path):
        (tmp_path / "config.json").write_text("{}")
        with pytest.raises(FileNotFoundError, match=r"lacks model\.safetensors, tokens\.csv"):
            stp.models.from_deepspotm(tmp_path)

    @pytest.mark.parametrize("path", ["absent", "a/b/c", "../a", Path("a/b"), "a/b c"])
    def test_a_path_that_does_not_exist_is_refused(self, tmp_path, monkeypatch, path):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(FileNotFoundError, match="neither a folder nor '<owner>/<name>'"):
            stp.models.from_deepspotm(path)

    def test_without_the_package_the_error_names_the_command(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "deepspotm", None)
        with pytest.raises(ModuleNotFoundError, match=r"pip install deepspotm \(noncommercial"):
            stp.models.from_deepspotm(source="scgpt")

    def test_without_a_network_one_message_names_the_remedies(self, package, monkeypatch):
        from stpredict.models import _deepspotm

        def fail(*_):
            raise OSError("Network is unreachable\nwith a long trace")

        monkeypatch.setattr(_deepspotm, "require_hub", fail)
        message = r"did not provide a/b \(OSError: Network is unreachable\)\. Accept its terms"
        with pytest.raises(ConnectionError, match=message) as error:
            stp.models.from_deepspotm("a/b", source="scgpt")
        assert error.value.__suppress_context__
