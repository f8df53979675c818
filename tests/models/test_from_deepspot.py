"""Published models become models of this package: golden figures, files that do not fit."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import stpredict as stp
from stpredict._sdata._steps import EmbedStep, NeighborsStep

GOLDEN = Path(__file__).parents[1] / "golden" / "deepspot_release"


@pytest.fixture(autouse=True)
def _silent(monkeypatch):
    monkeypatch.setattr(stp.settings, "verbosity", 0)


@pytest.fixture
def expected():
    return np.load(GOLDEN / "expected.npz")


@pytest.fixture
def release(tmp_path):
    return Path(shutil.copytree(GOLDEN, tmp_path / "release"))


def inputs_of(expected, kind):
    given = {
        "center": expected[f"{kind}/x_center"][:, 0],
        "neighbors": expected[f"{kind}/x_neighbors"],
    }
    if kind == "spot":
        given["subtiles"] = expected[f"{kind}/x_sub"]
    return given


@pytest.mark.parametrize("kind", ["spot", "cell"])
def test_they_predict_what_was_published(kind, expected, tmp_path):
    model = stp.models.from_deepspot(GOLDEN / f"{kind}_final_model.pkl")
    assert model.method == {"spot": "deepspot", "cell": "deepcell"}[kind]
    given = inputs_of(expected, kind)
    predicted = model.predict_array(**given, device="cpu")
    np.testing.assert_allclose(predicted, expected[f"{kind}/y"], rtol=0, atol=1e-5)
    scaled = (predicted - model.targets.standard.mean) / model.targets.standard.scale
    np.testing.assert_allclose(scaled, expected[f"{kind}/y_scaled"], rtol=0, atol=1e-5)

    model.save(tmp_path / "model")
    loaded = stp.models.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict_array(**given, device="cpu"), predicted)
    assert loaded.genes == model.genes
    assert "as published" in (tmp_path / "model" / "README.md").read_text(encoding="utf-8")


def test_genes_are_those_that_are_predicted():
    import pandas as pd

    table = pd.read_csv(GOLDEN / "info_highly_variable_genes.csv")
    model = stp.models.from_deepspot(GOLDEN / "spot_final_model.pkl")
    assert list(model.genes) == table.loc[table["isPredicted"], "gene_name"].tolist()
    assert len(model.genes) < len(table)


def test_its_slots_are_those_of_the_encoder_it_names():
    model = stp.models.from_deepspot(GOLDEN / "spot_final_model.pkl")
    assert model.recipe.embedding == "X_uni"
    assert model.recipe.embed == EmbedStep(encoder="uni")
    assert model.recipe.neighbors == NeighborsStep()
    model = stp.models.from_deepspot(GOLDEN / "spot_final_model.pkl", embedding="X_mine")
    assert model.recipe.embedding == "X_mine"


def test_it_predicts_and_is_evaluated_in_a_spatialdata():
    import torch

    sdata = stp.datasets.phantom(1)
    stp.pp.normalize(sdata)
    weights = torch.Generator().manual_seed(0)
    mixing = torch.rand(3, 16, generator=weights)
    stp.pp.embed(
        sdata, lambda tiles: tiles.mean((-2, -1)) @ mixing, n_subtiles=3, key_added="X_mine"
    )
    stp.pp.neighbors(sdata)
    genes = sdata.tables["table"].var_names[:7].tolist()
    model = stp.models.from_deepspot(
        GOLDEN / "spot_final_model.pkl", genes=genes, embedding="X_mine"
    )
    with pytest.raises(ValueError, match=r"published release does not report.*stp\.pp\.embed"):
        stp.pp.prepare(sdata, model)
    stp.tl.predict(sdata, model)
    predicted = sdata.tables["predicted"]
    assert list(predicted.var_names) == genes
    assert "ridge" not in predicted.layers
    scores = stp.tl.evaluate(sdata)
    assert "ridge" not in scores.attrs["summary"]
    assert np.isfinite(scores["pcc"]).all()
    assert (predicted.var["training_mean"] == model.targets.mean).all()
    assert "training mean" in scores.attrs["summary"]

    unknown = replace(model, training=replace(model.training, knows_mean=False))
    stp.tl.predict(sdata, unknown)
    assert sdata.tables["predicted"].var["training_mean"].isna().all()
    np.testing.assert_array_equal(sdata.tables["predicted"].X, predicted.X)
    fewer = stp.tl.evaluate(sdata)
    assert set(scores) - set(fewer) == {name for name in scores if name.endswith("_training_mean")}
    assert "training mean" not in fewer.attrs["summary"]
    assert fewer.notna().all().all() == scores.notna().all().all()


class TestBadInput:
    def test_no_table_of_genes(self, release):
        (release / "info_highly_variable_genes.csv").unlink()
        with pytest.raises(ValueError, match=r"no table of genes beside.*pass genes="):
            stp.models.from_deepspot(release / "spot_final_model.pkl")

    def test_another_number_of_genes(self, release):
        with pytest.raises(ValueError, match=r"genes= names 2 genes, .* predicts 7"):
            stp.models.from_deepspot(release / "spot_final_model.pkl", genes=["A", "B"])

    def test_repeated_genes(self, release):
        with pytest.raises(ValueError, match=r"not unique, repeated: A"):
            stp.models.from_deepspot(release / "spot_final_model.pkl", genes=["A"] * 7)

    def test_a_folder_of_several(self, release):
        with pytest.raises(ValueError, match=r"has 2 files \*\.pkl.*cell_final_model\.pkl"):
            stp.models.from_deepspot(release)

    def test_hyperparameters_of_another_release(self, release):
        path = release / "spot_top_param_overall.yaml"
        path.write_text(path.read_text().replace("phi2rho_size: 12", "phi2rho_size: 13"))
        with pytest.raises(ValueError, match=r"phi2rho_size is 13 but 12 in the weights"):
            stp.models.from_deepspot(release / "spot_final_model.pkl")

    def test_an_encoder_nobody_knows(self, release):
        path = release / "spot_top_param_overall.yaml"
        path.write_text(path.read_text().replace(": uni", ": gigapath"))
        with pytest.raises(ValueError, match=r"names the encoder 'gigapath'.*give embedding="):
            stp.models.from_deepspot(release / "spot_final_model.pkl")

    def test_no_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"weights= names no file: .*absent"):
            stp.models.from_deepspot(tmp_path / "absent.pkl")

    def test_a_model_of_this_package(self, tmp_path):
        (tmp_path / "model.pkl").write_bytes(b"nothing of the kind")
        with pytest.raises(ValueError, match=r"model\.pkl"):
            stp.models.from_deepspot(tmp_path / "model.pkl", genes=["A"])
