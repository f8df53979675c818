"""Scores of predictions next to nulls and references, for spots and genes matched by name."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

import stpredict as stp
from stpredict import metrics, results
from stpredict._sdata._spot_table import copy_of

FINE = {"mpp": 0.5, "pitch_um": 40.0, "n_morphology": 3, "n_neighborhood": 2, "n_null": 2}


def colour(tiles):
    return torch.cat([tiles.mean((-2, -1)), tiles.std((-2, -1))], dim=1)


@pytest.fixture(scope="module")
def predicted_sections():
    """Three sections, all predicted by two models that were trained on the first."""
    sdata = stp.datasets.phantom(3, size_px=800, **FINE)
    stp.pp.normalize(sdata)
    stp.pp.embed(sdata, colour, key_added="X_colour", tile_um=40, n_subtiles=1)
    stp.pp.neighbors(sdata)
    first = sdata.subset(["S1", "S1_image"])
    genes = list(sdata.tables["table"].var_names)
    model = stp.tl.fit_deepspot(
        first,
        embedding="X_colour",
        context="spot_neighbors",
        genes=genes,
        network=stp.tl.DeepSpotNetwork(n_hidden=16, n_phi=2, n_rho=2, n_networks=1),
        schedule=stp.tl.Schedule(learning_rate=5e-3, max_epochs=15),
    )
    ridge = stp.tl.fit_ridge(first, embedding="X_colour", context="spot", genes=genes)
    stp.tl.predict(sdata, model)
    stp.tl.predict(sdata, ridge, key_added="ridge")
    return sdata


@pytest.fixture
def all_sections(predicted_sections):
    return copy_of(predicted_sections)


@pytest.fixture
def sdata(predicted_sections):
    """The two sections that were not in training."""
    return copy_of(predicted_sections.subset(["S2", "S2_image", "S3", "S3_image"]))


def set_values(sdata, *, measured, predicted):
    sdata.tables["table"].layers["log1p"] = measured
    sdata.tables["predicted"].X = predicted.astype(np.float32)


def test_scores_are_those_of_each_section(sdata):
    scores = stp.tl.evaluate(sdata, ["predicted", "ridge"])
    measured = sdata.tables["table"].layers["log1p"].toarray().astype(float)
    region = sdata.tables["table"].obs["region"].astype(str).to_numpy()
    for method in ("predicted", "ridge"):
        table = sdata.tables[method]
        values = {name: scores.values(name)[method] for name in ("pcc", "spearman", "rmse")}
        mean_rmse = scores.values("rmse")["training_mean"]
        for section, (column, gene) in (
            (section, pair) for section in ("S2", "S3") for pair in enumerate(table.var_names)
        ):
            rows = region == section
            true, predicted = measured[rows, column], np.asarray(table.X)[rows, column]
            # the reference is the mean of the first table
            mean = sdata.tables["predicted"].var["training_mean"].iloc[column]
            expected = {
                "pcc": stats.pearsonr(true, predicted).statistic,
                "spearman": stats.spearmanr(true, predicted).statistic,
                "rmse": np.sqrt(np.mean((true - predicted) ** 2)),
            }
            for name, value in expected.items():
                score = values[name].xs((section, gene), level=("section", "gene")).item()
                assert score == pytest.approx(value, abs=1e-6), name
            score = mean_rmse.xs((section, gene), level=("section", "gene")).item()
            assert score == pytest.approx(np.sqrt(np.mean((true - mean) ** 2)), abs=1e-6)


def test_sections_are_averaged_after_genes(sdata):
    scores = stp.tl.evaluate(sdata, ["predicted", "ridge"])
    by_section = scores.values().groupby("section").mean()
    summary = scores.summary()
    for method in ("predicted", "ridge", "training_mean", "neighbor_mean"):
        assert summary.loc[method, "pcc"] == pytest.approx(by_section[method].mean())
    each = scores.summary(by="section")
    for section in ("S2", "S3"):
        assert each.loc[("ridge", section), "pcc"] == pytest.approx(
            by_section.loc[section, "ridge"]
        )
    assert (each["n_sections"] == 1).all()
    genes = scores.genes("ridge")
    means = scores.values()["ridge"].groupby("gene").mean()
    pd.testing.assert_series_equal(
        genes["pcc"], means.loc[genes.index], check_names=False, check_index=False
    )


def test_a_small_case_computed_by_hand(all_sections):
    sdata = all_sections.subset(["S2", "S2_image"])
    for name in ("table", "predicted"):
        sdata.tables[name] = sdata.tables[name][:4, :2].copy()
    measured = np.array([[0, 1], [1, 1], [2, 3], [3, 3]], dtype=float)
    predicted = np.array([[1, 5], [3, 5], [2, 5], [4, 5]], dtype=float)
    set_values(sdata, measured=measured, predicted=predicted)
    first, second = sdata.tables["predicted"].var_names
    scores = stp.tl.evaluate(sdata)
    genes = scores.genes()
    assert genes.loc[first, "pcc"] == pytest.approx(0.8)  # 4 / 5
    assert genes.loc[first, "spearman"] == pytest.approx(0.8)
    assert genes.loc[first, "rmse"] == pytest.approx(np.sqrt((1 + 4 + 0 + 1) / 4))
    assert genes.loc[second, "pcc"] == 0  # constant
    assert genes.loc[second, "rmse"] == pytest.approx(np.sqrt((16 + 16 + 4 + 4) / 4))
    assert scores.summary().loc["predicted", "pcc"] == pytest.approx(0.4)


def test_genes_are_sorted_by_their_score(sdata):
    genes = stp.tl.evaluate(sdata).genes()
    assert genes.index.name == "gene"
    assert genes["pcc"].is_monotonic_decreasing
    assert set(genes.index) == set(sdata.tables["predicted"].var_names)


@pytest.mark.parametrize("shuffled", ["predicted", "table"])
def test_spots_and_genes_are_matched_by_name(sdata, shuffled):
    expected = stp.tl.evaluate(sdata).genes()
    random = np.random.default_rng(0)
    table = sdata.tables[shuffled]
    rows, genes = random.permutation(table.n_obs), random.permutation(table.n_vars)
    sdata.tables[shuffled] = table[rows][:, genes].copy()
    scores = stp.tl.evaluate(sdata).genes().loc[expected.index]
    drawn = ("pcc_shuffled", "pcc_spatial_null")  # these depend on the order of the spots
    columns = [name for name in expected if name not in drawn]
    np.testing.assert_allclose(scores[columns], expected[columns], atol=1e-6)


def test_spots_and_genes_of_one_table_only_are_left_out(sdata):
    table, predicted = sdata.tables["table"], sdata.tables["predicted"]
    sdata.tables["table"] = table[5:, 1:].copy()
    scores = stp.tl.evaluate(sdata)
    assert len(scores.genes()) == predicted.n_vars - 1
    assert scores.protocol.n_spots == predicted.n_obs - 5
    assert scores.protocol.n_genes == {"predicted": predicted.n_vars - 1}


def test_references_cover_the_genes_and_spots_of_every_table(sdata):
    genes = sdata.tables["predicted"].var_names
    sdata.tables["predicted"] = sdata.tables["predicted"][:, genes[:3]].copy()
    sdata.tables["ridge"] = sdata.tables["ridge"][:, genes[2:]].copy()
    scores = stp.tl.evaluate(sdata, ["predicted", "ridge"])
    assert scores.protocol.n_genes == {"predicted": 3, "ridge": len(genes) - 2}
    wide = scores.values()
    assert set(wide.index.get_level_values("gene")) == set(genes)
    assert not wide[["training_mean", "neighbor_mean", "noise_ceiling"]].isna().any(axis=None)
    assert not wide.index.duplicated().any()


def test_references_cover_sections_that_only_the_second_table_predicts(sdata):
    predicted = sdata.tables["predicted"]
    predicted = predicted[predicted.obs["region"] == "S2"].copy()
    predicted.uns["spatialdata_attrs"]["region"] = ["S2"]
    sdata.tables["predicted"] = predicted
    scores = stp.tl.evaluate(sdata, ["predicted", "ridge"]).summary(by="section")
    for section in ("S2", "S3"):
        assert np.isfinite(scores.loc[("neighbor_mean", section), "pcc"])


def test_tables_are_scored_on_the_spots_that_all_of_a_section_predict(sdata):
    ridge = sdata.tables["ridge"]
    second = np.flatnonzero(ridge.obs["region"] == "S3")
    sdata.tables["ridge"] = ridge[np.setdiff1d(np.arange(ridge.n_obs), second[:9])].copy()
    scores = stp.tl.evaluate(sdata, ["predicted", "ridge"])
    assert scores.protocol.n_spots == ridge.n_obs - 9
    assert "9 spots that not all tables of their section predict are not scored." in str(
        scores.protocol
    )
    sdata.tables["predicted"] = sdata.tables["predicted"][sdata.tables["ridge"].obs_names].copy()
    alone = stp.tl.evaluate(sdata)
    pd.testing.assert_series_equal(
        scores.values()["predicted"], alone.values()["predicted"], atol=1e-6
    )


def test_tables_of_different_spots_of_a_section_are_refused(sdata):
    first = (sdata.tables["table"].obs["region"] == "S2").to_numpy()
    half = np.arange(len(first)) % 2 == 0
    for name, part in (("predicted", half), ("ridge", ~half)):
        sdata.tables[name] = sdata.tables[name][~first | part].copy()
    with pytest.raises(ValueError, match="predict different spots of section 'S2'"):
        stp.tl.evaluate(sdata, ["predicted", "ridge"])


def test_nulls_and_references_are_scored_with_the_model(sdata):
    scores = stp.tl.evaluate(sdata, ["predicted", "ridge"])
    summary = scores.summary()
    assert list(summary.index) == ["predicted", "ridge", *results.REFERENCES]
    assert (scores.values(methods=["training_mean"]) == 0).all(axis=None)
    for method in scores.methods:
        genes = scores.genes(method)
        planted = [gene for gene in genes.index if gene.startswith("morphology")]
        assert genes.loc[planted, "pcc"].mean() > 0.3
        assert abs(genes["pcc_shuffled"].mean()) < 0.03
        assert summary.loc[method, "pcc"] == pytest.approx(genes["pcc"].mean())
        assert summary.loc[method, "rmse"] == pytest.approx(genes["rmse"].mean())
    assert np.isnan(summary.loc["training_mean", "pcc_shuffled"])


def test_the_same_seed_gives_the_same_nulls(sdata):
    first, second, other = (stp.tl.evaluate(sdata, seed=seed) for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(first.table, second.table)
    name = results.PCC_SHUFFLED
    assert not np.allclose(first.values(name), other.values(name))


def test_the_protocol_reports_training_and_scored_sections(sdata, all_sections):
    held_out = stp.tl.evaluate(sdata, ["predicted", "ridge"])
    assert str(held_out.protocol).startswith("Held out: S2, S3, trained on S1; ")
    assert "7 genes." in str(held_out.protocol)
    assert held_out.protocol.trained_on == {"predicted": ("S1",), "ridge": ("S1",)}
    assert held_out.protocol.sections == ("S2", "S3")
    assert held_out.protocol.units == "log(1 + counts per 10,000)"
    assert held_out.protocol.layer == "log1p"
    assert not held_out.leaky
    leaky = stp.tl.evaluate(all_sections)
    assert leaky.leaky
    assert leaky.protocol.leaking_sections == ("S1",)
    assert str(leaky.protocol).startswith("LEAKY: sections S1 in both training and test.")


def test_a_method_is_compared_with_another_table(sdata):
    scores = stp.tl.evaluate(sdata, ["predicted", "ridge"])
    comparison = scores.compare("predicted", "ridge")
    wide = scores.values()
    difference = (wide["predicted"] - wide["ridge"]).groupby("group").mean().mean()
    assert comparison.difference == pytest.approx(difference)
    assert comparison.n_groups == 2


def test_scores_are_printed_unless_silenced(sdata, capsys, monkeypatch):
    stp.tl.evaluate(sdata)
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(stp.settings, "verbosity", 1)
    stp.tl.evaluate(sdata, ["predicted", "ridge"])
    printed = capsys.readouterr().out
    assert "Held out" in printed
    for row in ("predicted", "ridge", "training_mean", "pcc_shuffled"):
        assert row in printed


def test_evaluating_changes_nothing(sdata):
    before = repr(sdata), sdata.tables["predicted"].X.copy()
    stp.tl.evaluate(sdata)
    assert repr(sdata) == before[0]
    np.testing.assert_array_equal(sdata.tables["predicted"].X, before[1])


def test_a_layer_normalised_to_another_total_is_refused_unless_it_is_named(sdata):
    stp.pp.normalize(sdata, target_sum=1e6)
    with pytest.raises(ValueError, match=r"counts per 1,000,000\), but the predictions are in log"):
        stp.tl.evaluate(sdata)
    scores = stp.tl.evaluate(sdata, layer="log1p")
    assert "RMSE compares the two as they are" in str(scores.protocol)


def test_another_layer_can_be_scored(sdata):
    scores = stp.tl.evaluate(sdata, layer="expected", allow_smoothed=True)
    assert scores.protocol.layer == "expected"
    assert scores.protocol.units == "expected"
    table, predicted = sdata.tables["table"], sdata.tables["predicted"]
    rows = (table.obs["region"] == "S2").to_numpy()
    expected = metrics.rmse(table.layers["expected"][rows], np.asarray(predicted.X)[rows])
    values = scores.values("rmse", methods=["predicted"]).xs("S2", level="section")["predicted"]
    np.testing.assert_allclose(
        values.droplevel("group").loc[list(table.var_names)], expected, rtol=1e-5
    )


class TestBadInput:
    def test_without_predictions(self, sdata):
        del sdata.tables["predicted"]
        with pytest.raises(KeyError, match=r"no 'predicted'.*run stp\.tl\.predict first"):
            stp.tl.evaluate(sdata)

    def test_predictions_of_another_origin(self, sdata):
        del sdata.tables["predicted"].uns["stpredict"]
        with pytest.raises(ValueError, match=r"not hold genes predicted by stp\.tl\.predict"):
            stp.tl.evaluate(sdata)

    def test_a_table_of_factors(self, sdata):
        model = stp.tl.fit_ridge(
            sdata,
            embedding="X_colour",
            genes=list(sdata.tables["table"].var_names),
            targets="svd",
            n_factors=2,
        )
        stp.tl.predict(sdata, model, space="factors", key_added="factors")
        with pytest.raises(ValueError, match=r"'factors'.*not hold genes"):
            stp.tl.evaluate(sdata, "factors")

    def test_without_the_layer(self, sdata):
        del sdata.tables["table"].layers["log1p"]
        with pytest.raises(KeyError, match=r"layers has no 'log1p'.*stp\.pp\.normalize"):
            stp.tl.evaluate(sdata)

    def test_an_unknown_layer(self, sdata):
        with pytest.raises(KeyError, match=r"layers has no 'counts'; available: .*expected"):
            stp.tl.evaluate(sdata, layer="counts")

    def test_spots_of_other_names(self, sdata):
        table = sdata.tables["table"]
        table.obs_names = [f"renamed_{name}" for name in table.obs_names]
        with pytest.raises(ValueError, match=r"share 0 spots and 7 genes"):
            stp.tl.evaluate(sdata)

    def test_genes_of_other_names(self, sdata):
        table = sdata.tables["table"]
        table.var_names = [f"ENSG{i:011d}" for i in range(table.n_vars)]
        with pytest.raises(ValueError, match=r"0 genes.*Ensembl"):
            stp.tl.evaluate(sdata)

    def test_predictions_with_nan(self, sdata):
        sdata.tables["predicted"].X[2, 1] = np.nan
        with pytest.raises(ValueError, match=r"'predicted'.*has 1 values that are NaN"):
            stp.tl.evaluate(sdata)

    def test_a_section_of_a_single_spot(self, sdata):
        table = sdata.tables["table"]
        few = (table.obs["region"] == "S3").to_numpy(copy=True)
        few[0] = True
        sdata.tables["table"] = table[few].copy()
        with pytest.raises(ValueError, match="section 'S2' has a single spot"):
            stp.tl.evaluate(sdata)

    def test_tables_in_different_units(self, sdata):
        model = stp.tl.fit_ridge(
            sdata,
            embedding="X_colour",
            layer=None,
            genes=list(sdata.tables["table"].var_names),
        )
        stp.tl.predict(sdata, model, key_added="counts")
        with pytest.raises(ValueError, match="different units"):
            stp.tl.evaluate(sdata, ["predicted", "counts"])

    @pytest.mark.parametrize(
        ("tables", "message"),
        [([], "tables= is empty"), (["ridge", "ridge"], "tables are not unique, repeated: ridge")],
    )
    def test_tables_that_are_not_names_of_different_tables(self, sdata, tables, message):
        with pytest.raises(ValueError, match=message):
            stp.tl.evaluate(sdata, tables)
