"""Published models become models of this package: golden figures, inconsistent files."""

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
    inputs = {
        "center": expected[f"{kind}/x_center"][:, 0],
        "neighbors": expected[f"{kind}/x_neighbors"],
    }
    if kind == "spot":
        inputs["subtiles"] = expected[f"{kind}/x_sub"]
    return inputs


@pytest.mark.parametrize("kind", ["spot", "cell"])
def test_released_models_predict_as_published(kind, expected, tmp_path):
    model = stp.models.from_deepspot(GOLDEN / f"{kind}_final_model.pkl")
    assert model.method == {"spot": "deepspot", "cell": "deepcell"}[kind]
    inputs = inputs_of(expected, kind)
    predicted = model.predict_array(**inputs, device="cpu")
    np.testing.assert_allclose(predicted, expected[f"{kind}/y"], rtol=0, atol=1e-5)
    scaled = (predicted - model.targets.standard.mean) / model.targets.standard.scale
    np.testing.assert_allclose(scaled, expected[f"{kind}/y_scaled"], rtol=0, atol=1e-5)

    model.save(tmp_path / "model")
    loaded = stp.models.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict_array(**inputs, device="cpu"), predicted)
    assert loaded.genes == model.genes
    assert "as published" in (tmp_path / "model" / "README.md").read_text(encoding="utf-8")


def test_genes_are_the_predicted_genes_of_the_table():
    import pandas as pd

    table = pd.read_csv(GOLDEN / "info_highly_variable_genes.csv")
    model = stp.models.from_deepspot(GOLDEN / "spot_final_model.pkl")
    assert list(model.genes) == table.loc[table["isPredicted"], "gene_name"].tolist()
    assert len(model.genes) < len(table)


def test_embedding_slot_follows_the_published_encoder():
    model = stp.models.from_deepspot(GOLDEN / "spot_final_model.pkl")
    assert model.recipe.embedding == "X_uni"
    assert model.recipe.embed == EmbedStep(encoder="uni")
    assert model.recipe.neighbors == NeighborsStep()
    model = stp.models.from_deepspot(GOLDEN / "spot_final_model.pkl", embedding="X_mine")
    assert model.recipe.embedding == "X_mine"


def test_released_model_predicts_and_is_evaluated_in_a_spatialdata():
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
    scores = stp.tl.evaluate(sdata)
    assert np.isfinite(scores.values("pcc")["predicted"]).all()
    assert (predicted.var["training_mean"] == model.targets.mean).all()
    assert "training_mean" in set(scores.table["method"])

    # some releases do not report the mean of their training data
    unknown = replace(model, training=replace(model.training, knows_mean=False))
    stp.tl.predict(sdata, unknown)
    assert sdata.tables["predicted"].var["training_mean"].isna().all()
    np.testing.assert_array_equal(sdata.tables["predicted"].X, predicted.X)
    without_mean = stp.tl.evaluate(sdata).table
    assert set(scores.table["method"]) - set(without_mean["method"]) == {"training_mean"}
    assert without_mean["value"].notna().all() == scores.table["value"].notna().all()


class TestBadInput:
    def test_missing_table_of_genes_is_refused(self, release):
        (release / "info_highly_variable_genes.csv").unlink()
        with pytest.raises(ValueError, match=r"no table of genes was found next to.*pass genes="):
            stp.models.from_deepspot(release / "spot_final_model.pkl")

    def test_wrong_number_of_genes_is_refused(self, release):
        with pytest.raises(ValueError, match=r"genes= has 2 genes, .* predicts 7"):
            stp.models.from_deepspot(release / "spot_final_model.pkl", genes=["A", "B"])

    def test_repeated_genes_are_refused(self, release):
        with pytest.raises(ValueError, match=r"not unique, repeated: A"):
            stp.models.from_deepspot(release / "spot_final_model.pkl", genes=["A"] * 7)

    def test_folder_with_several_releases_is_refused(self, release):
        with pytest.raises(ValueError, match=r"has 2 files \*\.pkl.*cell_final_model\.pkl"):
            stp.models.from_deepspot(release)

    def test_hyperparameters_of_another_release_are_refused(self, release):
        path = release / "spot_top_param_overall.yaml"
        path.write_text(path.read_text().replace("phi2rho_size: 12", "phi2rho_size: 13"))
        with pytest.raises(ValueError, match=r"phi2rho_size is 13 but 12 in the weights"):
            stp.models.from_deepspot(release / "spot_final_model.pkl")

    def test_unknown_encoder_is_refused(self, release):
        path = release / "spot_top_param_overall.yaml"
        path.write_text(path.read_text().replace(": uni", ": gigapath"))
        with pytest.raises(ValueError, match=r"names the encoder 'gigapath'.*give embedding="):
            stp.models.from_deepspot(release / "spot_final_model.pkl")

    def test_missing_file_is_reported(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"weights= is not a file: .*absent"):
            stp.models.from_deepspot(tmp_path / "absent.pkl")

    def test_file_that_is_not_an_archive_is_refused(self, tmp_path):
        (tmp_path / "model.pkl").write_bytes(b"nothing of the kind")
        with pytest.raises(ValueError, match=r"model\.pkl"):
            stp.models.from_deepspot(tmp_path / "model.pkl", genes=["A"])
