"""Scores beside their nulls, of spots and genes matched by name."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

import stpredict as stp
from stpredict._sdata import _sections

FINE = {"mpp": 0.5, "pitch_um": 40.0, "n_morphology": 3, "n_neighborhood": 2, "n_null": 2}


@pytest.fixture(autouse=True)
def _silent(monkeypatch):
    monkeypatch.setattr(stp.settings, "verbosity", 0)


def colour(tiles):
    return torch.cat([tiles.mean((-2, -1)), tiles.std((-2, -1))], dim=1)


@pytest.fixture(scope="module")
def predicted_sections():
    """Three sections, all predicted by a model that was trained on the first."""
    verbosity, stp.settings.verbosity = stp.settings.verbosity, 0
    sdata = stp.datasets.phantom(3, size_px=800, **FINE)
    stp.pp.normalize(sdata)
    stp.pp.embed(sdata, colour, key_added="X_colour", tile_um=40, n_subtiles=1)
    stp.pp.neighbors(sdata)
    model = stp.tl.fit_deepspot(
        sdata.subset(["S1", "S1_image"]),
        embedding="X_colour",
        context="spot_neighbors",
        genes=list(sdata.tables["table"].var_names),
        n_hidden=16,
        n_phi=2,
        n_rho=2,
        learning_rate=5e-3,
        max_epochs=15,
    )
    stp.tl.predict(sdata, model)
    stp.settings.verbosity = verbosity
    return sdata


@pytest.fixture
def everything(predicted_sections):
    return _sections.copy_of(predicted_sections)


@pytest.fixture
def sdata(predicted_sections):
    held_out = predicted_sections.subset(["S2", "S2_image", "S3", "S3_image"])
    return _sections.copy_of(held_out)


def set_values(sdata, *, measured=None, predicted=None):
    table, prediction = sdata.tables["table"], sdata.tables["predicted"]
    if measured is not None:
        table.layers["log1p"] = measured
    if predicted is not None:
        prediction.X = predicted.astype(np.float32)


def test_scores_are_those_of_each_section_averaged(sdata):
    scores = stp.tl.evaluate(sdata)
    measured = sdata.tables["table"].layers["log1p"].toarray().astype(float)
    prediction = sdata.tables["predicted"]
    region = prediction.obs["region"].astype(str).to_numpy()
    for gene in prediction.var_names:
        column = prediction.var_names.get_loc(gene)
        by_section = []
        for name in ("S2", "S3"):
            rows = region == name
            true = measured[rows, column]
            model, ridge = (
                np.asarray(values)[rows, column].astype(float)
                for values in (prediction.X, prediction.layers["ridge"])
            )
            mean = prediction.var["training_mean"].iloc[column]
            by_section.append(
                {
                    "pcc": stats.pearsonr(true, model).statistic,
                    "spearman": stats.spearmanr(true, model).statistic,
                    "rmse": np.sqrt(np.mean((true - model) ** 2)),
                    "pcc_ridge": stats.pearsonr(true, ridge).statistic,
                    "rmse_ridge": np.sqrt(np.mean((true - ridge) ** 2)),
                    "rmse_training_mean": np.sqrt(np.mean((true - mean) ** 2)),
                    "pcc_training_mean": 0,
                    "measured_mean": true.mean(),
                }
            )
        for name in by_section[0]:
            wanted = np.mean([scores_of[name] for scores_of in by_section])
            assert scores.loc[gene, name] == pytest.approx(wanted, abs=1e-6), name


def test_a_case_worked_out_by_hand(everything):
    sdata = everything.subset(["S2", "S2_image"])
    for name in ("table", "predicted"):
        sdata.tables[name] = sdata.tables[name][:4, :2].copy()
    measured = np.array([[0, 1], [1, 1], [2, 3], [3, 3]], dtype=float)
    predicted = np.array([[1, 5], [3, 5], [2, 5], [4, 5]], dtype=float)
    set_values(sdata, measured=measured, predicted=predicted)
    first, second = sdata.tables["predicted"].var_names
    scores = stp.tl.evaluate(sdata)
    assert scores.loc[first, "pcc"] == pytest.approx(0.8)  # 4 / 5
    assert scores.loc[first, "spearman"] == pytest.approx(0.8)
    assert scores.loc[first, "rmse"] == pytest.approx(np.sqrt((1 + 4 + 0 + 1) / 4))
    assert scores.loc[first, "measured_mean"] == 1.5
    assert scores.loc[second, "pcc"] == 0  # constant
    assert scores.loc[second, "rmse"] == pytest.approx(np.sqrt((16 + 16 + 4 + 4) / 4))
    assert scores.attrs["summary"]["model"]["mean PCC"] == pytest.approx(0.4)


def test_genes_stand_in_the_order_of_their_score(sdata):
    scores = stp.tl.evaluate(sdata)
    assert scores.index.name == "gene"
    assert scores["pcc"].is_monotonic_decreasing
    assert set(scores.index) == set(sdata.tables["predicted"].var_names)


@pytest.mark.parametrize("shuffled", ["predicted", "table"])
def test_spots_and_genes_are_matched_by_name(sdata, shuffled):
    whole = stp.tl.evaluate(sdata)
    random = np.random.default_rng(0)
    table = sdata.tables[shuffled]
    rows, genes = random.permutation(table.n_obs), random.permutation(table.n_vars)
    sdata.tables[shuffled] = table[rows][:, genes].copy()
    again = stp.tl.evaluate(sdata).loc[whole.index]
    drawn = ("pcc_shuffled", "pcc_spatial_null", "pcc_ceiling")  # in another order of the spots
    columns = [name for name in whole if name not in drawn]
    np.testing.assert_allclose(again[columns], whole[columns], atol=1e-6)


def test_spots_and_genes_that_only_one_side_has_are_left_out(sdata):
    table, predicted = sdata.tables["table"], sdata.tables["predicted"]
    sdata.tables["table"] = table[5:, 1:].copy()
    scores = stp.tl.evaluate(sdata)
    assert len(scores) == predicted.n_vars - 1
    assert f"{predicted.n_obs - 5} spots" in scores.attrs["protocol"]
    assert "1 predicted genes were not measured" in scores.attrs["protocol"]


def test_the_nulls_stand_beside_the_model(sdata):
    scores = stp.tl.evaluate(sdata)
    assert (scores["pcc_training_mean"] == 0).all()
    assert abs(scores["pcc_shuffled"].mean()) < 0.03
    planted = [gene for gene in scores.index if gene.startswith("morphology")]
    assert scores.loc[planted, "pcc"].mean() > 0.3
    assert scores.loc[planted, "pcc_ridge"].mean() > 0.3
    summary = scores.attrs["summary"]
    assert list(summary) == [
        "model",
        "ridge",
        "training mean",
        "neighbor mean",
        "shuffled",
        "spatial null",
        "noise ceiling",
    ]
    assert summary["model"]["mean PCC"] == pytest.approx(scores["pcc"].mean())
    assert summary["model"]["median PCC"] == pytest.approx(scores["pcc"].median())
    assert summary["model"]["first quartile"] == pytest.approx(scores["pcc"].quantile(0.25))
    assert summary["ridge"]["mean PCC"] == pytest.approx(scores["pcc_ridge"].mean())
    assert summary["ridge"]["mean RMSE"] == pytest.approx(scores["rmse_ridge"].mean())
    assert summary["training mean"]["mean PCC"] == 0
    assert np.isnan(summary["shuffled"]["mean RMSE"])


def test_the_same_seed_shuffles_the_same_way(sdata):
    first, same, other = (stp.tl.evaluate(sdata, seed=seed) for seed in (1, 1, 2))
    assert first.equals(same)
    assert not np.allclose(first["pcc_shuffled"], other["pcc_shuffled"])


def test_the_protocol_says_what_was_held_out(sdata, everything):
    held_out = stp.tl.evaluate(sdata).attrs["protocol"]
    assert "Held out; the model was trained on S1" in held_out
    assert "NOT" not in held_out
    assert "7 genes" in held_out
    assert "S2, S3" in held_out
    leaky = stp.tl.evaluate(everything).attrs["protocol"]
    assert "NOT held out: the model was trained on S1" in leaky


def test_scores_are_printed_unless_silenced(sdata, capsys, monkeypatch):
    stp.tl.evaluate(sdata)
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(stp.settings, "verbosity", 1)
    stp.tl.evaluate(sdata)
    said = capsys.readouterr().out
    assert "Held out" in said
    for row in ("model", "ridge", "training mean", "shuffled"):
        assert row in said


def test_nothing_is_changed(sdata):
    before = repr(sdata), sdata.tables["predicted"].X.copy()
    stp.tl.evaluate(sdata)
    assert repr(sdata) == before[0]
    np.testing.assert_array_equal(sdata.tables["predicted"].X, before[1])


def test_another_layer_can_be_scored_against(sdata):
    table = sdata.tables["table"]
    scores = stp.tl.evaluate(sdata, layer="expected")
    assert "measured layer 'expected'" in scores.attrs["protocol"]
    gene = table.var_names[0]
    measured_mean = [
        table.layers["expected"][(table.obs["region"] == name).to_numpy(), 0].mean()
        for name in ("S2", "S3")
    ]
    assert scores.loc[gene, "measured_mean"] == pytest.approx(np.mean(measured_mean), rel=1e-5)


class TestBadInput:
    def test_no_predictions(self, sdata):
        del sdata.tables["predicted"]
        with pytest.raises(KeyError, match=r"no tables\['predicted'\].*run stp\.tl\.predict first"):
            stp.tl.evaluate(sdata)

    def test_predictions_from_elsewhere(self, sdata):
        del sdata.tables["predicted"].uns["stpredict"]
        with pytest.raises(ValueError, match=r"no genes that stp\.tl\.predict wrote"):
            stp.tl.evaluate(sdata)

    def test_nothing_was_measured(self, sdata):
        del sdata.tables["table"].layers["log1p"]
        with pytest.raises(KeyError, match=r"no layers\['log1p'\].*stp\.pp\.normalize"):
            stp.tl.evaluate(sdata)

    def test_an_unknown_layer(self, sdata):
        with pytest.raises(KeyError, match=r"no layers\['counts'\]; layers: .*expected"):
            stp.tl.evaluate(sdata, layer="counts")

    def test_spots_of_other_names(self, sdata):
        table = sdata.tables["table"]
        table.obs_names = [f"renamed_{name}" for name in table.obs_names]
        with pytest.raises(ValueError, match=r"share 0 spots and 7 genes.*renamed"):
            stp.tl.evaluate(sdata)

    def test_genes_of_other_names(self, sdata):
        table = sdata.tables["table"]
        table.var_names = [f"ENSG{i}" for i in range(table.n_vars)]
        with pytest.raises(ValueError, match=r"0 genes: .*genes indexed by another name"):
            stp.tl.evaluate(sdata)

    def test_predictions_with_nan(self, sdata):
        sdata.tables["predicted"].X[2, 1] = np.nan
        with pytest.raises(ValueError, match="1 predicted values are NaN"):
            stp.tl.evaluate(sdata)

    def test_a_section_of_a_single_spot(self, sdata):
        table = sdata.tables["table"]
        few = (table.obs["region"] == "S3").to_numpy(copy=True)
        few[0] = True
        sdata.tables["table"] = table[few].copy()
        with pytest.raises(ValueError, match="section 'S2' has 1 spot: a correlation needs two"):
            stp.tl.evaluate(sdata)
