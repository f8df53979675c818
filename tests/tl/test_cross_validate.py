"""Cross-validation: no fit learns from held-out rows, and the protocol is that of the run."""

from __future__ import annotations

import functools

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import spatialdata as sd
import torch

import stpredict as stp
from helpers import deepspot, factors, ridge
from stpredict import results
from stpredict._sdata._spot_table import copy_of, open_table

SECTIONS = ("S1", "S2", "S3")


def colour(tiles):
    return torch.cat([tiles.mean((-2, -1)), tiles.std((-2, -1))], dim=1)


@pytest.fixture
def sdata(colour_sections):
    return copy_of(colour_sections)


METHODS = {"ridge": ridge, "factors": factors}


def section_of_row(sdata):
    return open_table(sdata).section_of_row


def only(sdata, names):
    """A copy of some sections."""
    spots = open_table(sdata)
    return spots.subset(np.flatnonzero(np.isin(spots.section_of_row, names))).sdata


def rows_of(sdata, section):
    return section_of_row(sdata) == section


def out_of_fold(sdata):
    return sdata.tables["out_of_fold"]


def assert_same_scores(scores, expected):
    pd.testing.assert_frame_equal(scores.table, expected.table)


def never(sdata):
    raise AssertionError("was called before the checks were done")


# ---- predictions and scores ------------------------------------------------------------------


def test_predictions_are_those_of_models_fitted_without_the_section(sdata):
    scores = stp.tl.cross_validate(sdata, METHODS)
    table = out_of_fold(sdata)
    assert table.obs["fold"].tolist() == section_of_row(sdata).tolist()
    for section in SECTIONS:
        train = only(sdata, [name for name in SECTIONS if name != section])
        stp.pp.select_genes(train, n_top_genes=6, flavor="variance")
        test = only(sdata, [section])
        baseline = functools.partial(ridge, context="spot", scaling="standard")
        for name, fit in {**METHODS, "tuned_ridge": baseline}.items():
            model = fit(train)
            stp.tl.predict(test, model)
            predicted = np.asarray(test["predicted"].X)
            held_out = table[rows_of(sdata, section), list(model.genes)]
            np.testing.assert_array_equal(held_out.layers[name], predicted)
            others = ~table.var_names.isin(model.genes)
            assert np.isnan(table.layers[name][rows_of(sdata, section)][:, others]).all()
            measured = test["table"][:, list(model.genes)].layers["log1p"].toarray()
            np.testing.assert_array_equal(held_out.X, measured)
            pcc = scores.values(methods=[name]).loc[section].loc[section, name]
            expected = stp.metrics.pcc(measured, predicted)
            np.testing.assert_allclose(pcc.loc[list(model.genes)], expected)


def test_realigned_spots_are_reported(sdata):
    scores = stp.tl.cross_validate(sdata, {"ridge": ridge})
    assert not scores.protocol.realigned
    assert "realigned" not in str(scores.protocol)
    sdata["table"].uns["stpredict"]["realign"] = {"S1": {"shift_um": [2.0, 0.0]}}
    scores = stp.tl.cross_validate(sdata, {"ridge": ridge})
    assert "Spots were realigned with the help of their measured" in str(scores.protocol)


def test_planted_genes_score_above_noise_and_nulls(sdata):
    stp.pp.select_genes(sdata, genes=sdata["table"].var_names.tolist())
    scores = stp.tl.cross_validate(sdata, METHODS)
    summary = scores.summary()
    assert list(summary.index) == ["ridge", "factors", "tuned_ridge", *results.REFERENCES]
    kind = sdata["table"].var["planted"].astype(str)
    pcc = scores.values().groupby("gene").mean()
    for method in ("ridge", "tuned_ridge"):
        assert (pcc.loc[kind.index[kind == "morphology"], method] > 0.3).all()
        assert (pcc.loc[kind.index[kind == "null"], method].abs() < 0.2).all()
        assert (pcc[method] <= pcc["noise_ceiling"] + 0.1).all()
        shuffled = scores.values(results.PCC_SHUFFLED, methods=[method])
        assert abs(shuffled.to_numpy()).mean() < 0.05
    assert (scores.values(methods=["training_mean"]) == 0).all(axis=None)
    assert scores.protocol.gene_selection == "given in advance"
    assert scores.protocol.folds == {name: (name,) for name in SECTIONS}


def test_evaluate_and_cross_validate_give_results_of_one_family(sdata):
    validated = stp.tl.cross_validate(sdata, {"ridge": ridge})
    stp.tl.predict(sdata, ridge(sdata), key_added="ridge")
    evaluated = stp.tl.evaluate(sdata, "ridge")
    assert type(evaluated) is type(validated) is results.Scores
    assert list(evaluated.table.columns) == list(validated.table.columns) == list(results.COLUMNS)
    for scores in (evaluated, validated):
        assert (scores.table.dtypes.astype(str) == ["category"] * 5 + ["float64"]).all()
    # the variance of the training rows, by which top genes are chosen, is not in a table
    assert set(validated.metrics) - set(evaluated.metrics) == {"pcc_top50"}
    assert set(evaluated.metrics) <= set(validated.metrics)
    for scores in (evaluated, validated):
        by_section = scores.summary(by="section")
        assert by_section.index.names == ["method", "section"]
        assert [name for method, name in by_section.index if method == "ridge"] == list(SECTIONS)
        assert by_section.xs("ridge")["pcc"].mean() == pytest.approx(
            scores.summary().loc["ridge", "pcc"]
        )
        genes = scores.genes("ridge")
        assert len(genes) >= 6
        assert {"pcc", "spearman", "rmse", "pcc_shuffled"} <= set(genes.columns)
        assert scores.protocol.n_spots == sdata["table"].n_obs
        assert scores.protocol.sections == SECTIONS
        assert scores.protocol.units == "log(1 + counts per 10,000)"
        assert "torch" in scores.protocol.versions
    assert validated.protocol.group_kind == "section"
    assert evaluated.protocol.group_kind is None
    assert validated.baselines == ("tuned_ridge",)
    assert set(validated.seconds) == {"ridge", "tuned_ridge"}
    assert all(seconds > 0 for seconds in validated.seconds.values())


def test_there_is_a_baseline_for_every_embedding(sdata):
    table = sdata["table"]
    table.obsm["X_other"] = table.obsm["X_colour"][:, :2]
    table.uns["stpredict"]["embed"]["X_other"] = table.uns["stpredict"]["embed"]["X_colour"]
    other = functools.partial(stp.tl.fit_ridge, embedding="X_other", context="spot")
    scores = stp.tl.cross_validate(sdata, {"ridge": ridge, "other": other})
    assert scores.baselines == ("tuned_ridge", "tuned_ridge_X_other")
    assert "tuned_ridge_X_other" in out_of_fold(sdata).layers
    wide = scores.values(methods=["other", "tuned_ridge", "tuned_ridge_X_other"])
    np.testing.assert_allclose(wide["other"], wide["tuned_ridge_X_other"], atol=1e-4)
    assert abs(wide["tuned_ridge"] - wide["tuned_ridge_X_other"]).max() > 0.01
    assert scores.compare("other").reference == "tuned_ridge"


def test_models_on_pixels_are_compared_with_ridge_on_the_first_embedding(sdata):
    cnn = functools.partial(
        stp.tl.fit_cnn,
        network=stp.tl.CNNNetwork(tile_px=16),
        tile_um=40.0,
        schedule=stp.tl.Schedule(max_epochs=1, batch_size=32),
        device="cpu",
    )
    scores = stp.tl.cross_validate(sdata, {"cnn": cnn})
    pixels = out_of_fold(sdata).layers["tuned_ridge"]
    assert scores.baselines == ("tuned_ridge",)
    expected = stp.tl.cross_validate(sdata, {"ridge": ridge})
    np.testing.assert_array_equal(pixels, out_of_fold(sdata).layers["tuned_ridge"])
    assert set(expected.values().columns) - set(scores.values().columns) == {"ridge"}
    del sdata["table"].obsm["X_colour"]
    scores = stp.tl.cross_validate(sdata, {"cnn": cnn})
    assert scores.baselines == ()
    assert list(scores.summary().index) == ["cnn", *results.REFERENCES]


def test_the_baseline_of_models_of_counts_predicts_counts_per_10000(sdata):
    fit = functools.partial(deepspot, layer=None, loss="poisson")
    scores = stp.tl.cross_validate(sdata, {"counts": fit})
    assert not scores.failures
    assert scores.protocol.units == "counts per 10,000"
    table = out_of_fold(sdata)
    genes = table.var_names[table.var["n_folds"] == 3]
    counts = sdata["table"].X
    share = sdata["table"][:, genes].X.toarray() / counts.sum(axis=1).reshape(-1, 1) * 1e4
    np.testing.assert_allclose(table[:, genes].X, np.asarray(share), rtol=1e-4)
    planted = [gene for gene in genes if gene.startswith("morphology")]
    pcc = scores.values(methods=["tuned_ridge"]).groupby("gene")["tuned_ridge"].mean()
    assert pcc.loc[planted].mean() > 0.3
    assert "noise_ceiling" not in scores.summary().index


def test_out_of_fold_predictions_survive_zarr(sdata, tmp_path):
    scores = stp.tl.cross_validate(sdata, METHODS)
    sdata.write(tmp_path / "sections.zarr")
    table = out_of_fold(sd.read_zarr(tmp_path / "sections.zarr"))
    np.testing.assert_array_equal(table.layers["factors"], out_of_fold(sdata).layers["factors"])
    assert table.obs["fold"].tolist() == out_of_fold(sdata).obs["fold"].tolist()
    record = table.uns["stpredict"]["cross_validate"]
    assert record["text"] == str(scores.protocol)
    assert record["text"].startswith("Leave one section out (3 folds: S1, S2, S3); ")
    assert {name: list(groups) for name, groups in record["folds"].items()} == {
        name: [name] for name in SECTIONS
    }


def test_patients_are_left_out_as_a_whole_and_in_folds(sdata):
    table = sdata["table"]
    table.obs["patient"] = np.where(rows_of(sdata, "S2"), "P2", "P1")
    scores = stp.tl.cross_validate(sdata, {"ridge": ridge})
    assert scores.protocol.folds == {"P1": ("P1",), "P2": ("P2",)}
    groups = scores.values().reset_index()[["group", "section"]].drop_duplicates()
    assert sorted(map(tuple, groups.to_numpy())) == [("P1", "S1"), ("P1", "S3"), ("P2", "S2")]
    assert "of 2 patients" in str(scores.protocol)
    table.obs["patient"] = section_of_row(sdata)
    scores = stp.tl.cross_validate(sdata, {"ridge": ridge}, n_folds=2)
    assert sorted(len(names) for names in scores.protocol.folds.values()) == [1, 2]
    assert "Grouped by patient (2 folds" in str(scores.protocol)
    assert set(scores.summary(by="group").xs("ridge").index) == set(SECTIONS)


# ---- leaks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["factors", "deepspot"])
def test_measured_values_of_a_section_do_not_influence_its_predictions(sdata, name):
    """Genes, scaling, factors, alpha and stopping are all fitted without the test rows."""
    fit = {"factors": factors, "deepspot": deepspot}[name]
    stp.tl.cross_validate(sdata, {name: fit})
    before = out_of_fold(sdata).copy()
    table, rows = sdata["table"], rows_of(sdata, "S2")
    counts = table.X.toarray()
    counts[rows] = np.random.default_rng(0).permuted(counts[rows], axis=1) * 7 + 3
    table.X = sp.csr_matrix(counts)
    stp.pp.normalize(sdata)
    stp.pp.select_genes(sdata, n_top_genes=6, flavor="variance")
    stp.tl.cross_validate(sdata, {name: fit})
    after = out_of_fold(sdata)
    is_predicted = ~np.isnan(before[rows].layers[name]).any(axis=0)
    genes = before.var_names[is_predicted].tolist()
    assert len(genes) == 6
    for layer in (name, "tuned_ridge"):
        expected = before[rows, genes].layers[layer]
        np.testing.assert_array_equal(after[rows, genes].layers[layer], expected)
    others = [gene for gene in after.var_names if gene not in genes]
    assert np.isnan(after[rows, others].layers[name]).all()


def test_genes_selected_on_all_rows_change_no_score(sdata):
    expected = stp.tl.cross_validate(sdata, METHODS)
    table = sdata["table"]
    table.var["selected"] = ~table.var["selected"]  # as if selected for their scores
    assert_same_scores(stp.tl.cross_validate(sdata, METHODS), expected)
    text = "6 genes, chosen by variance on the training sections of each fold"
    assert text in str(expected.protocol)


def test_a_gene_that_identifies_the_patient_scores_zero(sdata):
    stp.pp.select_genes(sdata, genes=sdata["table"].var_names.tolist())
    before = stp.tl.cross_validate(sdata, METHODS).summary()
    table = sdata["table"]
    gene = table.n_vars - 1
    number = pd.factorize(section_of_row(sdata))[0]
    layer = table.layers["log1p"].toarray()
    layer[:, gene] = 1 + number
    table.layers["log1p"] = sp.csr_matrix(layer)
    scores = stp.tl.cross_validate(sdata, METHODS)
    after = scores.summary()
    leaking = scores.values(methods=list(METHODS)).xs(table.var_names[gene], level="gene")
    assert (leaking == 0).all(axis=None)
    assert abs(after["pcc"] - before["pcc"])[list(METHODS)].max() < 0.03


def test_the_stain_of_a_left_out_section_is_not_used(sdata, colour_sections):
    stp.pp.normalize_stain(sdata, method="reinhard", reference="S1")
    stp.pp.embed(sdata, "texture", tile_um=40, n_subtiles=1)
    calls = {}

    def spy(train):
        model = stp.tl.fit_ridge(train, embedding="X_texture", context="spot")
        record = train["table"].uns["stpredict"]["normalize_stain"]
        calls[model.training.sections] = (list(record["reference_sections"]), model)
        return model

    stp.tl.cross_validate(sdata, {"ridge": spy})
    assert calls["S2", "S3"][0] == ["S2", "S3"]
    assert calls["S1", "S3"][0] == calls["S1", "S2"][0] == ["S1"]
    raw = only(colour_sections, ["S1"])
    model = calls["S2", "S3"][1]
    stp.pp.prepare(raw, model)
    stp.tl.predict(raw, model)
    held_out = out_of_fold(sdata)[rows_of(sdata, "S1"), list(model.genes)].layers["ridge"]
    np.testing.assert_allclose(held_out, raw["predicted"].X, atol=1e-4)


def test_a_stain_that_cannot_be_refitted_is_refused(sdata):
    stp.pp.normalize_stain(sdata, method="reinhard", reference="S1")
    stp.pp.embed(sdata, colour, key_added="X_colour", tile_um=40, n_subtiles=1)
    with pytest.raises(ValueError, match=r"X_colour.*custom encoder.*reference= from elsewhere"):
        stp.tl.cross_validate(sdata, {"ridge": never})


def test_ranks_among_selected_genes_are_computed_again(sdata):
    table = sdata["table"]
    stp.pp.rank_expression(sdata, genes=table.var_names[table.var["selected"]])
    fit = functools.partial(ridge, layer="ranks")
    scores = stp.tl.cross_validate(sdata, {"ridge": fit})
    assert not scores.failures
    for section in SECTIONS:
        values = out_of_fold(sdata)[rows_of(sdata, section)].X
        ranks = values[:, ~np.isnan(values).any(axis=0)]
        np.testing.assert_allclose(np.sort(ranks.sum(axis=1)), 21)  # ranks of six
    assert "noise_ceiling" not in scores.summary().index


@pytest.mark.parametrize(
    ("groups", "message"),
    [("half", "patients P1, P2 and sections S1, S2, S3"), ("region", "patients P1")],
)
def test_a_split_that_leaks_is_refused_or_marked(sdata, groups, message):
    table = sdata["table"]
    table.obs["half"] = np.where(np.arange(table.n_obs) % 2, "odd", "even")
    table.obs["patient"] = np.where(rows_of(sdata, "S2"), "P2", "P1")
    with pytest.raises(ValueError, match=rf"splits {message} between.*allow_leak=True"):
        stp.tl.cross_validate(sdata, {"ridge": never}, groups=groups)
    assert "out_of_fold" not in sdata.tables
    scores = stp.tl.cross_validate(sdata, METHODS, groups=groups, allow_leak=True)
    assert not scores.failures
    assert scores.leaky
    assert str(scores.protocol).startswith(f"LEAKY: {message} in both training and test.")
    assert str(scores.compare("factors", "ridge")).startswith("LEAKY: ")
    assert out_of_fold(sdata).uns["stpredict"]["cross_validate"]["leaky"]


# ---- repeated and resumed runs ---------------------------------------------------------------


def test_a_repeated_run_gives_the_same_scores(sdata):
    methods = {**METHODS, "deepspot": deepspot}
    first, second = (stp.tl.cross_validate(sdata, methods) for _ in range(2))
    assert_same_scores(second, first)


def test_a_cluster_gives_the_same_scores(sdata, monkeypatch):
    monkeypatch.setattr(stp.settings, "verbosity", 1)
    distributed = pytest.importorskip("distributed")
    expected = stp.tl.cross_validate(sdata, METHODS)
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster),
    ):
        assert_same_scores(stp.tl.cross_validate(sdata, METHODS), expected)
    assert stp.settings.verbosity == 1


# ---- failures and bad input ------------------------------------------------------------------


def test_the_other_methods_go_on_when_one_fails(sdata):
    def shaky(train):
        if "S2" not in train.shapes:
            raise RuntimeError("S2 is missing")
        return ridge(train)

    scores = stp.tl.cross_validate(sdata, {"shaky": shaky, "ridge": ridge})
    (failure,) = scores.failures
    assert (failure.method, failure.fold) == ("shaky", "S2")
    assert failure.error == "RuntimeError: S2 is missing"
    assert "in shaky" in failure.traceback
    assert scores.protocol.n_failed == 1
    assert "1 fits FAILED" in str(scores.protocol)
    summary = scores.summary()
    assert summary.loc["shaky", "n_sections"] == 2
    assert summary.loc["ridge", "n_sections"] == 3
    assert np.isnan(out_of_fold(sdata)[rows_of(sdata, "S2")].layers["shaky"]).all()


def test_nothing_is_written_if_every_fit_fails(sdata):
    with pytest.raises(ValueError, match=r"every method failed in every fold; wrong without S1:"):
        stp.tl.cross_validate(sdata, {"wrong": lambda _: None})
    assert "out_of_fold" not in sdata.tables


def test_predictions_with_nan_are_failures(sdata):
    def broken(train):
        model = ridge(train)
        with torch.no_grad():
            model.network.linear.bias.fill_(float("nan"))
        return model

    scores = stp.tl.cross_validate(sdata, {"broken": broken, "ridge": ridge})
    assert len(scores.failures) == 3
    assert "NaN or infinite" in scores.failures[0].error


def test_a_fitted_model_is_not_a_method(sdata):
    fitted = ridge(sdata)
    scores = stp.tl.cross_validate(sdata, {"fitted": lambda _: fitted, "ridge": ridge})
    assert all("not a fitted model" in failure.error for failure in scores.failures)
    assert [failure.method for failure in scores.failures] == ["fitted"] * 3


@pytest.mark.parametrize(
    ("methods", "options", "error", "message"),
    [
        ({}, {}, ValueError, "methods= is empty"),
        ([never], {}, TypeError, "methods must be a mapping, not list"),
        ({"a": "ridge"}, {}, TypeError, r"methods\['a'\] must be a function.*str"),
        ({"ridge, svd": never}, {}, ValueError, "may contain only letters"),
        ({"tuned_ridge": never}, {}, ValueError, "tuned_ridge are reserved"),
        ({"a": never}, {"groups": "donor"}, KeyError, "no column groups='donor'"),
        ({"a": never}, {"groups": "one"}, ValueError, "only one one, 'B'"),
        ({"a": never}, {"groups": "gaps"}, ValueError, r"1 rows have no group in obs\['gaps'\]"),
        ({"a": never}, {"n_folds": 4}, ValueError, "n_folds=4 must be at most 3"),
        ({"a": never}, {"n_folds": 1}, ValueError, "n_folds must be .* at least 2: 1"),
        ({"a": never}, {"n_folds": True}, ValueError, "n_folds must be a whole number"),
        ({"a": never}, {"seed": -1}, ValueError, "seed must be a whole number .*: -1"),
        ({"a": never}, {"seed": 0.5}, ValueError, "seed must be a whole number"),
        ({"a": never}, {"device": "gpu"}, ValueError, "device='gpu' is not available"),
        ({"a": never}, {"device": "cpu:1"}, ValueError, "device='cpu:1' is not available"),
    ],
)
def test_bad_input_is_refused_and_changes_nothing(sdata, methods, options, error, message):
    table = sdata["table"]
    table.obs["one"] = "B"
    table.obs["gaps"] = [None, *["A"] * (table.n_obs - 1)]
    with pytest.raises(error, match=message):
        stp.tl.cross_validate(sdata, methods, **options)
    assert list(sdata.tables) == ["table"]


def test_methods_in_different_units_are_not_compared(sdata):
    counts = functools.partial(ridge, layer=None)
    with pytest.raises(ValueError, match=r"same units, but predict in .*'log.*'counts': 'counts'"):
        stp.tl.cross_validate(sdata, {"ridge": ridge, "counts": counts})
    assert "out_of_fold" not in sdata.tables


# ---- tuning -------------------------------------------------------------------------


def test_the_better_candidate_is_fitted(sdata):
    table = sdata["table"]
    table.obsm["X_noise"] = (
        np.random.default_rng(0).normal(size=(table.n_obs, 3)).astype(np.float32)
    )
    table.uns["stpredict"]["embed"]["X_noise"] = table.uns["stpredict"]["embed"]["X_colour"]
    noise = functools.partial(ridge, embedding="X_noise", context="spot")
    model = stp.tl.fit_tuned(sdata, {"noise": noise, "colour": ridge})
    tuned = model.training.tuned
    assert list(tuned) == ["colour", "noise"]
    assert tuned["colour"] > tuned["noise"] + 0.2
    assert model.recipe.embedding == "X_colour"
    assert model.training.sections == SECTIONS


def test_tuning_is_nested_and_saved(sdata, tmp_path):
    calls = []

    def spy(train):
        calls.append(set(open_table(train).section_names))
        return ridge(train)

    tuned = functools.partial(stp.tl.fit_tuned, candidates={"spy": spy, "factors": factors})
    stp.tl.cross_validate(sdata, {"tuned": tuned})
    outer = [{"S2", "S3"}, {"S1", "S3"}, {"S1", "S2"}]
    inner = [{name} for pair in outer for name in sorted(pair, reverse=True)]
    assert [names for names in calls if len(names) == 1] == inner
    model = stp.tl.fit_tuned(sdata, {"ridge": ridge, "factors": factors})
    model.save(tmp_path / "model")
    assert stp.models.load(tmp_path / "model").training.tuned == model.training.tuned


@pytest.mark.parametrize(
    ("candidates", "options", "message"),
    [
        ({"a": never}, {}, "at least two candidates, not 1"),
        ({"a": never, "b": never}, {"groups": "half"}, "between training and test"),
        ({"a": lambda _: None, "b": never}, {}, "a failed without S1:\n.*must return a fitted"),
    ],
)
def test_candidates_that_cannot_be_tuned_are_refused(sdata, candidates, options, message):
    sdata["table"].obs["half"] = np.where(np.arange(sdata["table"].n_obs) % 2, "odd", "even")
    with pytest.raises(ValueError, match=f"(?s){message}"):
        stp.tl.fit_tuned(sdata, candidates, **options)
