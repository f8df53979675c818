"""Scores of what was left out: nothing learns from it, and what is told is what was done."""

from __future__ import annotations

import functools

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import spatialdata as sd
import torch

import stpredict as stp
from stpredict import results
from stpredict._sdata import _sections
from stpredict.tl._crossval import _folds

FINE = {"mpp": 0.5, "pitch_um": 40.0, "n_morphology": 4, "n_neighborhood": 2, "n_null": 2}
SECTIONS = ("S1", "S2", "S3")


@pytest.fixture(autouse=True)
def _silent(monkeypatch):
    monkeypatch.setattr(stp.settings, "verbosity", 0)


def colour(tiles):
    return torch.cat([tiles.mean((-2, -1)), tiles.std((-2, -1))], dim=1)


@pytest.fixture(scope="module")
def sections():
    verbosity, stp.settings.verbosity = stp.settings.verbosity, 0
    sdata = stp.datasets.phantom(3, size_px=800, **FINE)
    del sdata["table"].obs["patient"]
    stp.pp.normalize(sdata)
    stp.pp.select_genes(sdata, n_top_genes=6, flavor="variance")
    stp.pp.embed(sdata, colour, key_added="X_colour", tile_um=40, n_subtiles=1)
    stp.pp.neighbors(sdata)
    stp.settings.verbosity = verbosity
    return sdata


@pytest.fixture
def sdata(sections):
    return _sections.copy_of(sections)


ridge = functools.partial(stp.tl.fit_ridge, embedding="X_colour", context="spot_neighbors")
factors = functools.partial(ridge, targets="svd", n_factors=2)
deepspot = functools.partial(
    stp.tl.fit_deepspot,
    embedding="X_colour",
    context="spot",
    n_hidden=16,
    n_phi=1,
    n_rho=2,
    max_epochs=3,
)
METHODS = {"ridge": ridge, "factors": factors}


def only(sdata, names):
    return _folds.only(sdata, np.flatnonzero(np.isin(_sections.region_of(sdata["table"]), names)))


def rows_of(sdata, section):
    return _sections.region_of(sdata["table"]) == section


def oof(sdata):
    return sdata.tables["out_of_fold"]


def same(one, other):
    pd.testing.assert_frame_equal(one.scores, other.scores)


def never(sdata):
    raise AssertionError("was called before the checks were done")


# ---- what is predicted -----------------------------------------------------------------------


def test_predictions_are_those_of_models_fitted_without_the_section(sdata):
    result = stp.tl.cross_validate(sdata, METHODS)
    table = oof(sdata)
    assert table.obs["fold"].tolist() == _sections.region_of(sdata["table"]).tolist()
    for section in SECTIONS:
        train = only(sdata, [name for name in SECTIONS if name != section])
        stp.pp.select_genes(train, n_top_genes=6, flavor="variance")
        test = only(sdata, [section])
        for name, fit in METHODS.items():
            model = fit(train)
            predicted = stp.tl.predict(test, model, copy=True).tables["predicted"]
            there = table[rows_of(sdata, section), list(model.genes)]
            np.testing.assert_array_equal(there.layers[name], predicted.X)
            np.testing.assert_array_equal(there.layers["tuned_ridge"], predicted.layers["ridge"])
            others = ~table.var_names.isin(model.genes)
            assert np.isnan(table.layers[name][rows_of(sdata, section)][:, others]).all()
            measured = test["table"][:, list(model.genes)].layers["log1p"].toarray()
            np.testing.assert_array_equal(there.X, measured)
            pcc = result.values(methods=[name]).loc[section].loc[section, name]
            wanted = stp.metrics.pcc(measured, np.asarray(predicted.X))
            np.testing.assert_allclose(pcc.loc[list(model.genes)], wanted)


def test_what_was_done_with_measured_values_of_the_test_is_told(sdata):
    assert "realigned" not in stp.tl.cross_validate(sdata, {"ridge": ridge}).protocol
    table = sdata["table"]
    table.uns["stpredict"]["realign"] = {"S1": {"shift_um": [2.0, 0.0]}}
    assert (
        "Spots were realigned, those left"
        in stp.tl.cross_validate(sdata, {"ridge": ridge}).protocol
    )


def test_planted_genes_are_told_from_noise_and_nulls(sdata):
    stp.pp.select_genes(sdata, genes=sdata["table"].var_names.tolist())
    result = stp.tl.cross_validate(sdata, METHODS)
    summary = result.summary()
    assert list(summary.index) == ["ridge", "factors", *results.REFERENCES]
    kind = sdata["table"].var["planted"].astype(str)
    pcc = result.values().groupby("gene").mean()
    assert (pcc.loc[kind.index[kind == "morphology"], "ridge"] > 0.3).all()
    assert (pcc.loc[kind.index[kind == "null"], "ridge"].abs() < 0.2).all()
    assert (pcc["ridge"] <= pcc["noise_ceiling"] + 0.1).all()
    assert (result.values(methods=["training_mean"]) == 0).all(axis=None)
    shuffled = result.values(results.PCC_SHUFFLED, methods=["ridge"])
    assert abs(shuffled.to_numpy()).mean() < 0.05
    assert "given in advance" in result.protocol
    assert result.settings["sections"] == {name: [name] for name in SECTIONS}


def test_every_embedding_has_its_ridge_and_the_first_the_plain_name(sdata):
    table = sdata["table"]
    table.obsm["X_other"] = table.obsm["X_colour"][:, :2]
    table.uns["stpredict"]["embed"]["X_other"] = table.uns["stpredict"]["embed"]["X_colour"]
    other = functools.partial(stp.tl.fit_ridge, embedding="X_other", context="spot")
    result = stp.tl.cross_validate(sdata, {"ridge": ridge, "other": other})
    assert "tuned_ridge_X_other" in oof(sdata).layers
    wide = result.values(methods=["other", "tuned_ridge", "tuned_ridge_X_other"])
    np.testing.assert_allclose(wide["other"], wide["tuned_ridge_X_other"], atol=1e-4)
    assert abs(wide["tuned_ridge"] - wide["tuned_ridge_X_other"]).max() > 0.01
    assert result.compare("other").reference == "tuned_ridge"


def test_out_of_fold_predictions_survive_zarr(sdata, tmp_path):
    stp.tl.cross_validate(sdata, METHODS)
    sdata.write(tmp_path / "sections.zarr")
    read = oof(sd.read_zarr(tmp_path / "sections.zarr"))
    np.testing.assert_array_equal(read.layers["factors"], oof(sdata).layers["factors"])
    assert read.obs["fold"].tolist() == oof(sdata).obs["fold"].tolist()
    assert read.uns["stpredict"]["cross_validate"]["protocol"].startswith("Leave one section out")


def test_patients_are_left_out_as_a_whole_and_in_folds(sdata):
    table = sdata["table"]
    table.obs["patient"] = np.where(rows_of(sdata, "S2"), "P2", "P1")
    result = stp.tl.cross_validate(sdata, {"ridge": ridge})
    assert result.settings["sections"] == {"P1": ["S1", "S3"], "P2": ["S2"]}
    assert "of 2 patients" in result.protocol
    table.obs["patient"] = _sections.region_of(table)
    result = stp.tl.cross_validate(sdata, {"ridge": ridge}, n_folds=2)
    assert sorted(len(names) for names in result.settings["sections"].values()) == [1, 2]
    assert "Grouped by patient (2 folds" in result.protocol


# ---- leaks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["factors", "deepspot"])
def test_what_was_measured_in_a_section_has_no_say_in_its_predictions(sdata, name):
    """Genes, scaling, factors, alpha and stopping: none of them sees the test rows."""
    fit = {"factors": factors, "deepspot": deepspot}[name]
    stp.tl.cross_validate(sdata, {name: fit})
    before = oof(sdata).copy()
    table, rows = sdata["table"], rows_of(sdata, "S2")
    counts = table.X.toarray()
    counts[rows] = np.random.default_rng(0).permuted(counts[rows], axis=1) * 7 + 3
    table.X = sp.csr_matrix(counts)
    stp.pp.normalize(sdata)
    stp.pp.select_genes(sdata, n_top_genes=6, flavor="variance")
    stp.tl.cross_validate(sdata, {name: fit})
    after = oof(sdata)
    genes = [g for g in before.var_names if not np.isnan(before[rows, g].layers[name]).any()]
    assert len(genes) == 6
    np.testing.assert_array_equal(before[rows, genes].layers[name], after[rows, genes].layers[name])
    others = [gene for gene in after.var_names if gene not in genes]
    assert np.isnan(after[rows, others].layers[name]).all()


def test_genes_selected_on_all_rows_change_no_score(sdata):
    honest = stp.tl.cross_validate(sdata, METHODS)
    table = sdata["table"]
    table.var["selected"] = ~table.var["selected"]  # as if chosen to please
    same(stp.tl.cross_validate(sdata, METHODS), honest)
    assert "6 genes chosen by variance on the training sections of each fold" in honest.protocol


def test_a_gene_that_tells_the_patient_scores_nothing(sdata):
    stp.pp.select_genes(sdata, genes=sdata["table"].var_names.tolist())
    before = stp.tl.cross_validate(sdata, METHODS).summary()
    table = sdata["table"]
    gene = table.var_names.get_loc(sdata["table"].var_names[-1])
    number = pd.factorize(_sections.region_of(table))[0]
    layer = table.layers["log1p"].toarray()
    layer[:, gene] = 1 + number
    table.layers["log1p"] = sp.csr_matrix(layer)
    result = stp.tl.cross_validate(sdata, METHODS)
    after = result.summary()
    leaking = result.values(methods=list(METHODS)).xs(table.var_names[gene], level="gene")
    assert (leaking == 0).all(axis=None)
    assert abs(after["pcc"] - before["pcc"])[list(METHODS)].max() < 0.03


def test_sections_left_out_lend_their_stain_to_nobody(sections):
    sdata = _sections.copy_of(sections)
    stp.pp.normalize_stain(sdata, method="reinhard", reference="S1")
    stp.pp.embed(sdata, "texture", tile_um=40, n_subtiles=1)
    seen = {}

    def spy(train):
        model = stp.tl.fit_ridge(train, embedding="X_texture", context="spot")
        known = train["table"].uns["stpredict"]["normalize_stain"]
        seen[tuple(model.training["sections"])] = (known["reference_sections"], model)
        return model

    stp.tl.cross_validate(sdata, {"ridge": spy})
    assert seen["S2", "S3"][0] == ["S2", "S3"]
    assert seen["S1", "S3"][0] == seen["S1", "S2"][0] == ["S1"]
    raw = _sections.copy_of(only(sections, ["S1"]))
    model = seen["S2", "S3"][1]
    stp.pp.prepare(raw, model)
    stp.tl.predict(raw, model)
    there = oof(sdata)[rows_of(sdata, "S1"), list(model.genes)].layers["ridge"]
    np.testing.assert_allclose(there, raw["predicted"].X, atol=1e-4)


def test_a_stain_that_cannot_be_made_again_is_told(sdata):
    stp.pp.normalize_stain(sdata, method="reinhard", reference="S1")
    stp.pp.embed(sdata, colour, key_added="X_colour", tile_um=40, n_subtiles=1)
    with pytest.raises(ValueError, match=r"X_colour.*encoder of your own.*reference= from elsew"):
        stp.tl.cross_validate(sdata, {"ridge": never})


def test_ranks_among_selected_genes_are_made_again(sdata):
    table = sdata["table"]
    stp.pp.rank_expression(sdata, genes=table.var_names[table.var["selected"]])
    fit = functools.partial(ridge, layer="ranks")
    result = stp.tl.cross_validate(sdata, {"ridge": fit})
    assert not result.failures
    for section in SECTIONS:
        values = oof(sdata)[rows_of(sdata, section)].X
        known = values[:, ~np.isnan(values).any(axis=0)]
        np.testing.assert_allclose(np.sort(known.sum(axis=1)), 21)  # ranks of six
    assert "noise_ceiling" not in result.summary().index


@pytest.mark.parametrize(
    ("groups", "message"),
    [("half", "patients P1, P2 and spots of sections S1, S2, S3"), ("region", "patients P1")],
)
def test_a_split_that_leaks_is_refused_or_called_so(sdata, groups, message):
    table = sdata["table"]
    table.obs["half"] = np.where(np.arange(table.n_obs) % 2, "odd", "even")
    table.obs["patient"] = np.where(rows_of(sdata, "S2"), "P2", "P1")
    with pytest.raises(ValueError, match=rf"{message} would stand on both sides.*allow_leak=True"):
        stp.tl.cross_validate(sdata, {"ridge": never}, groups=groups)
    assert "out_of_fold" not in sdata.tables
    result = stp.tl.cross_validate(sdata, METHODS, groups=groups, allow_leak=True)
    assert not result.failures
    assert result.leaky
    assert result.protocol.startswith(f"LEAKY: {message}")
    assert str(result.compare("factors", "ridge")).startswith("LEAKY: ")
    assert oof(sdata).uns["stpredict"]["cross_validate"]["leaky"]


# ---- the same again --------------------------------------------------------------------------


def test_run_twice_the_same(sdata):
    methods = {**METHODS, "deepspot": deepspot}
    one, other = (stp.tl.cross_validate(sdata, methods) for _ in range(2))
    same(one, other)


def test_an_interrupted_run_goes_on_where_it_was(sdata, tmp_path):
    calls = []

    def counted(train):
        calls.append(tuple(_sections.section_names(train["table"])))
        if len(calls) == 3 and not (tmp_path / "second").exists():
            raise KeyboardInterrupt
        return ridge(train)

    methods = {"ridge": counted, "factors": factors}
    whole = stp.tl.cross_validate(sdata, {"ridge": ridge, "factors": factors})
    table = oof(sdata).copy()
    del sdata.tables["out_of_fold"]
    with pytest.raises(KeyboardInterrupt):
        stp.tl.cross_validate(sdata, methods, folder=tmp_path / "run")
    assert "out_of_fold" not in sdata.tables
    (tmp_path / "second").touch()
    again = stp.tl.cross_validate(sdata, methods, folder=tmp_path / "run")
    assert calls == [("S2", "S3"), ("S1", "S3"), ("S1", "S2"), ("S1", "S2")]
    same(again, whole)
    np.testing.assert_array_equal(oof(sdata).layers["factors"], table.layers["factors"])


def test_a_folder_of_another_run_is_refused(sdata, tmp_path):
    stp.tl.cross_validate(sdata, {"ridge": ridge}, folder=tmp_path / "run")
    with pytest.raises(ValueError, match=r"run holds .* with other method .ridge.: give"):
        stp.tl.cross_validate(sdata, {"ridge": factors}, folder=tmp_path / "run")
    calls = []

    def counted(train):
        calls.append(train)
        return factors(train)

    more = {"ridge": never, "factors": counted}
    with pytest.raises(ValueError, match="other method 'ridge'"):
        stp.tl.cross_validate(sdata, more, folder=tmp_path / "run")
    more["ridge"] = ridge  # another method joins what is finished
    assert not stp.tl.cross_validate(sdata, more, folder=tmp_path / "run").failures
    assert len(calls) == 3
    sdata["table"].layers["log1p"] *= 2
    with pytest.raises(ValueError, match=r"with other data: give another folder="):
        stp.tl.cross_validate(sdata, {"ridge": ridge}, folder=tmp_path / "run")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="mine holds something else"):
        stp.tl.cross_validate(sdata, {"ridge": never}, folder=tmp_path / "mine")


def test_on_a_cluster_the_same(sdata, monkeypatch):
    monkeypatch.setattr(stp.settings, "verbosity", 1)
    distributed = pytest.importorskip("distributed")
    alone = stp.tl.cross_validate(sdata, METHODS)
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster),
    ):
        same(stp.tl.cross_validate(sdata, METHODS), alone)
    assert stp.settings.verbosity == 1


# ---- what goes wrong -------------------------------------------------------------------------


def test_a_method_that_fails_in_a_fold_leaves_the_others_alone(sdata):
    def shaky(train):
        if "S2" not in train.shapes:
            raise RuntimeError("no S2, no model")
        return ridge(train)

    result = stp.tl.cross_validate(sdata, {"shaky": shaky, "ridge": ridge})
    (failure,) = result.failures
    assert (failure.method, failure.fold) == ("shaky", "S2")
    assert failure.error == "RuntimeError: no S2, no model"
    assert "in shaky" in failure.traceback
    assert "1 fits FAILED" in result.protocol
    summary = result.summary()
    assert summary.loc["shaky", "n_sections"] == 2
    assert summary.loc["ridge", "n_sections"] == 3
    assert np.isnan(oof(sdata)[rows_of(sdata, "S2")].layers["shaky"]).all()


def test_if_all_fail_nothing_is_written(sdata):
    with pytest.raises(ValueError, match=r"every method failed in every fold; wrong without S1:"):
        stp.tl.cross_validate(sdata, {"wrong": lambda _: None})
    assert "out_of_fold" not in sdata.tables


def test_predictions_that_are_no_numbers_fail(sdata, monkeypatch):
    def broken(train):
        model = ridge(train)
        with torch.no_grad():
            model.network.linear.bias.fill_(float("nan"))
        return model

    result = stp.tl.cross_validate(sdata, {"broken": broken, "ridge": ridge})
    assert len(result.failures) == 3
    assert "NaN or infinite" in result.failures[0].error


def test_a_fitted_model_is_no_method(sdata):
    fitted = ridge(sdata)
    result = stp.tl.cross_validate(sdata, {"fitted": lambda _: fitted, "ridge": ridge})
    assert all("not a fitted model" in failure.error for failure in result.failures)
    assert [failure.method for failure in result.failures] == ["fitted"] * 3


@pytest.mark.parametrize(
    ("methods", "options", "error", "message"),
    [
        ({}, {}, ValueError, "methods= is empty"),
        ([never], {}, TypeError, "functions by name.*list"),
        ({"a": "ridge"}, {}, TypeError, r"methods\['a'\] must be a function.*str"),
        ({"ridge, svd": never}, {}, ValueError, "that of a layer: letters"),
        ({"tuned_ridge": never}, {}, ValueError, "stands for what is shown beside"),
        ({"a": never}, {"groups": "donor"}, KeyError, "groups='donor' is no column"),
        ({"a": never}, {"groups": "one"}, ValueError, "only one one, 'B', but cross-validation"),
        ({"a": never}, {"groups": "gaps"}, ValueError, r"1 rows have no group in obs\['gaps'\]"),
        ({"a": never}, {"n_folds": 4}, ValueError, "n_folds=4 must lie between 2 and 3"),
        ({"a": never}, {"n_folds": 1}, ValueError, "n_folds=1 must lie between 2 and 3"),
    ],
)
def test_bad_input_is_told_and_left_alone(sdata, methods, options, error, message):
    table = sdata["table"]
    table.obs["one"] = "B"
    table.obs["gaps"] = [None, *["A"] * (table.n_obs - 1)]
    with pytest.raises(error, match=message):
        stp.tl.cross_validate(sdata, methods, **options)
    assert list(sdata.tables) == ["table"]


def test_methods_in_different_units_are_not_compared(sdata):
    ranks = functools.partial(ridge, layer=None)
    with pytest.raises(ValueError, match=r"same units, 'ridge' predicts 'log.*'counts' 'X'"):
        stp.tl.cross_validate(sdata, {"ridge": ridge, "counts": ranks})
    assert "out_of_fold" not in sdata.tables


# ---- choosing within -------------------------------------------------------------------------


def test_the_better_candidate_is_fitted(sdata):
    table = sdata["table"]
    table.obsm["X_noise"] = (
        np.random.default_rng(0).normal(size=(table.n_obs, 3)).astype(np.float32)
    )
    table.uns["stpredict"]["embed"]["X_noise"] = table.uns["stpredict"]["embed"]["X_colour"]
    noise = functools.partial(ridge, embedding="X_noise", context="spot")
    model = stp.tl.fit_tuned(sdata, {"noise": noise, "colour": ridge})
    tuned = model.training["tuned"]
    assert tuned["chosen"] == "colour"
    assert tuned["pcc"]["colour"] > tuned["pcc"]["noise"] + 0.2
    assert model.recipe["embedding"] == "X_colour"
    assert model.training["sections"] == list(SECTIONS)


def test_tuning_is_nested_and_saved(sdata, tmp_path):
    seen = []

    def spy(train):
        seen.append(set(_sections.section_names(train["table"])))
        return ridge(train)

    tuned = functools.partial(stp.tl.fit_tuned, candidates={"spy": spy, "factors": factors})
    stp.tl.cross_validate(sdata, {"tuned": tuned})
    outer = [{"S2", "S3"}, {"S1", "S3"}, {"S1", "S2"}]
    inner = [{name} for pair in outer for name in sorted(pair, reverse=True)]
    assert [names for names in seen if len(names) == 1] == inner
    model = stp.tl.fit_tuned(sdata, {"ridge": ridge, "factors": factors})
    model.save(tmp_path / "model")
    assert stp.models.load(tmp_path / "model").training["tuned"] == model.training["tuned"]


@pytest.mark.parametrize(
    ("candidates", "options", "message"),
    [
        ({"a": never}, {}, "nothing to choose among 1 candidates"),
        ({"a": never, "b": never}, {"groups": "half"}, "would stand on both sides"),
        ({"a": lambda _: None, "b": never}, {}, "a failed without S1:\n.*must return a fitted"),
    ],
)
def test_what_cannot_be_tuned(sdata, candidates, options, message):
    sdata["table"].obs["half"] = np.where(np.arange(sdata["table"].n_obs) % 2, "odd", "even")
    with pytest.raises(ValueError, match=f"(?s){message}"):
        stp.tl.fit_tuned(sdata, candidates, **options)
