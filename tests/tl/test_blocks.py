"""Cross-validation over blocks of tissue: buffer, tiles, graph, protocol and picture."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import spatialdata as sd

import stpredict as stp
from stpredict._sdata._spot_table import copy_of, open_table
from stpredict._sdata._steps import TilesStep
from stpredict.tl._crossval._fold_data import fold_data
from stpredict.tl._crossval._folds import leave_blocks_out
from stpredict.tl._crossval._outcome import check_tiles

PITCH_UM = 40.0
ridge = functools.partial(stp.tl.fit_ridge, embedding="X_colour", context="spot_neighbors")


@pytest.fixture
def sdata(colour_sections):
    """A single section."""
    spots = open_table(colour_sections)
    return spots.subset(spots.section_rows["S1"]).sdata


def spied(fit, calls):
    """The function, which also notes the spots that it is given."""

    def spy(train):
        calls.append(open_table(train))
        return fit(train)

    return spy


@pytest.fixture(scope="module")
def run(colour_sections):
    """Sections, scores, and the training spots of each of three folds."""
    spots = open_table(colour_sections)
    sdata, calls = spots.subset(spots.section_rows["S1"]).sdata, []
    methods = {"ridge": spied(ridge, calls)}
    scores = stp.tl.cross_validate(sdata, methods, groups="blocks", n_folds=3)
    return sdata, scores, calls


def positions(spots, names):
    """Positions in µm of some spots by name."""
    return spots.positions_um[spots.table.obs_names.get_indexer(names)]


def never(sdata):
    raise AssertionError("was called before the checks were done")


def test_no_training_spot_lies_within_the_buffer_of_a_test_spot(run):
    sdata, scores, calls = run
    spots, folds = open_table(sdata), sdata["out_of_fold"].obs["fold"].astype(str)
    names = spots.table.obs_names
    assert scores.protocol.buffer_um == pytest.approx(2.5 * PITCH_UM, rel=0.02)
    assert list(scores.protocol.folds) == [f"block {number}" for number in range(3)]
    for name, training in zip(scores.protocol.folds, calls, strict=True):
        test, train = names[folds == name], training.table.obs_names
        difference = positions(spots, test)[:, None] - positions(spots, train)[None]
        distance = np.abs(difference).max(axis=-1)
        assert distance.min() >= scores.protocol.buffer_um
        unused = names.difference(test.union(train))
        assert len(unused)
        # and every spot that is far enough is in training
        difference = positions(spots, test)[:, None] - positions(spots, unused)[None]
        assert (np.abs(difference).max(axis=-1).min(axis=0) < scores.protocol.buffer_um).all()


def test_blocks_are_contiguous_of_equal_size_and_together_the_section(run):
    sdata = run[0]
    spots, folds = open_table(sdata), sdata["out_of_fold"].obs["fold"].astype(str)
    axis = np.argmax(np.ptp(spots.positions_um, axis=0))
    along = pd.Series(spots.positions_um[:, axis]).groupby(folds.to_numpy())
    ends = along.agg(["min", "max"]).sort_index()
    assert (ends["max"].to_numpy()[:-1] <= ends["min"].to_numpy()[1:]).all()
    assert np.ptp(along.size()) <= 1
    assert len(ends) == 3
    assert not np.isnan(sdata["out_of_fold"].layers["ridge"]).all(axis=1).any()


def test_predictions_are_those_of_a_model_fitted_to_the_training_spots(run):
    sdata, _, calls = run
    spots, table = open_table(sdata), sdata["out_of_fold"]
    rows = np.flatnonzero(table.obs["fold"] == "block 2")
    model, test = ridge(calls[2].sdata), spots.subset(rows).sdata
    stp.tl.predict(test, model)
    expected = np.asarray(test["predicted"].X)
    np.testing.assert_array_equal(table[rows, list(model.genes)].layers["ridge"], expected)


def test_expression_of_a_block_does_not_change_its_predictions(run):
    before, sdata = run[0]["out_of_fold"], copy_of(run[0])
    rows = np.flatnonzero(before.obs["fold"] == "block 1")
    layer = sdata["table"].layers["log1p"].toarray()
    layer[rows] = layer[np.random.default_rng(0).permutation(rows)] * 2
    sdata["table"].layers["log1p"] = sp.csr_matrix(layer)
    stp.tl.cross_validate(sdata, {"ridge": ridge}, groups="blocks", n_folds=3)
    after = sdata["out_of_fold"]
    genes = before.var_names[~np.isnan(before[rows].layers["ridge"]).any(axis=0)].tolist()
    for layer in ("ridge", "tuned_ridge"):
        values, expected = (part[rows, genes].layers[layer] for part in (after, before))
        np.testing.assert_array_equal(values, expected)


def test_tissue_outside_a_block_does_not_reach_its_inputs(run):
    """The graph of a fold's test spots links none of the other spots."""
    sdata, _, calls = run
    spots = open_table(sdata)
    fold = leave_blocks_out(spots, 3).folds[1]
    training, test = fold_data(spots, fold, device="cpu")
    assert test.table.obs_names.equals(spots.table.obs_names[fold.rows])
    expected = spots.graph[fold.rows][:, fold.rows]
    assert (test.graph != expected).nnz == 0
    assert test.graph.nnz < spots.graph[fold.rows].nnz
    assert training.table.obs_names.equals(calls[1].table.obs_names)


def test_the_buffer_is_as_wide_as_the_largest_tile(sdata):
    stp.pp.embed(sdata, "texture", tile_um=[40.0, 130.0], n_subtiles=1)
    scores = stp.tl.cross_validate(sdata, {"ridge": ridge}, groups="blocks")
    assert scores.protocol.buffer_um == 130
    assert "with a buffer of 130 µm" in str(scores.protocol)


@pytest.mark.parametrize(("tile_um", "is_refused"), [(99.0, False), (120.0, True)])
def test_models_whose_tiles_reach_across_the_buffer_are_refused(run, tile_um, is_refused):
    sdata, scores, _ = run
    model, fold = ridge(sdata), leave_blocks_out(open_table(sdata)).folds[0]
    assert fold.buffer_um == scores.protocol.buffer_um == pytest.approx(100, rel=0.01)
    embed = replace(model.recipe.embed, tile_um=tile_um)
    recipe = replace(model.recipe, embed=embed)
    on_pixels = replace(recipe, embed=None, tiles=TilesStep(tile_um, 16))
    for changed in (recipe, on_pixels):
        expected = pytest.raises(ValueError, match=f"'a' reads tiles of {tile_um:g} µm, which")
        with expected if is_refused else contextlib.nullcontext():
            check_tiles("a", replace(model, recipe=changed), fold)


def test_one_section_is_not_leaky_and_several_are_marked(run, colour_sections):
    one = run[1]
    assert not one.leaky
    text = str(one.protocol)
    assert text.startswith("Leave one block of each section out (3 folds), with a buffer of ")
    assert "of 1 section of unknown patients" in text
    assert "unseen tissue of the same sections, not of other sections" in text
    assert "within each block of a section, mean over genes" in text
    assert "on the training spots of each fold" in text
    sections = copy_of(colour_sections)
    several = stp.tl.cross_validate(sections, {"ridge": ridge}, groups="blocks", n_folds=2)
    assert several.leaky
    assert str(several.protocol).startswith("LEAKY: sections S1, S2, S3 in both")
    groups = several.values().reset_index()[["group", "section"]].drop_duplicates()
    assert len(groups) == 6


def test_scores_are_means_over_blocks(run):
    sdata, scores, _ = run
    table = sdata["out_of_fold"]
    expected = []
    for name in scores.protocol.folds:
        block = table[table.obs["fold"] == name]
        genes = ~np.isnan(block.layers["ridge"]).any(axis=0)
        expected.append(stp.metrics.pcc(block.X[:, genes], block.layers["ridge"][:, genes]))
    summary = scores.summary().loc["ridge", "pcc"]
    assert summary == pytest.approx(np.concatenate(expected).mean())


def test_a_model_fitted_to_the_whole_section_is_refused(sdata):
    fitted = ridge(sdata)
    methods = {"fitted": lambda _: fitted, "ridge": ridge}
    scores = stp.tl.cross_validate(sdata, methods, groups="blocks", n_folds=2)
    assert [failure.method for failure in scores.failures] == ["fitted"] * 2
    assert "training spots, but its model was trained on" in scores.failures[0].error


def test_a_folder_of_other_blocks_is_refused(sdata, tmp_path):
    options = {"groups": "blocks", "folder": tmp_path / "run"}
    first = stp.tl.cross_validate(sdata, {"ridge": ridge}, n_folds=2, **options)
    again = stp.tl.cross_validate(sdata, {"ridge": ridge}, n_folds=2, **options)
    pd.testing.assert_frame_equal(first.table, again.table)
    with pytest.raises(ValueError, match="with other folds, training: give another folder="):
        stp.tl.cross_validate(sdata, {"ridge": ridge}, n_folds=3, **options)


def test_blocks_do_not_calibrate_a_model(run):
    with pytest.raises(ValueError, match="left out blocks, which do not show how sections differ"):
        stp.tl.calibrate(run[0], ridge(run[0]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"only one section, 'S1'.*or groups='blocks' for blocks of tissue"),
        ({"groups": "blocks", "n_folds": 1}, "n_folds must be .* at least 2"),
        ({"groups": "blocks", "n_folds": 200}, "has a single spot in a fold"),
    ],
)
def test_bad_blocks_are_refused_and_change_nothing(sdata, options, message):
    with pytest.raises(ValueError, match=message):
        stp.tl.cross_validate(sdata, {"ridge": never}, **options)
    assert list(sdata.tables) == ["table"]


def test_buffers_that_leave_too_little_and_columns_named_blocks_are_refused(sdata):
    step = sdata["table"].uns["stpredict"]["embed"]["X_colour"]
    step["tile_um"] = 1000.0
    with pytest.raises(ValueError, match=r"buffer of 1000 µm, 0 spots remain for training"):
        stp.tl.cross_validate(sdata, {"ridge": never}, groups="blocks")
    sdata["table"].obs["blocks"] = "A"
    with pytest.raises(ValueError, match="obs has a column 'blocks': rename it"):
        stp.tl.cross_validate(sdata, {"ridge": never}, groups="blocks")
    assert list(sdata.tables) == ["table"]


# ---- picture ---------------------------------------------------------------------------------


def test_the_picture_has_every_spot_in_its_part(run, tmp_path):
    sdata = run[0]
    sdata.write(tmp_path / "sections.zarr")
    sdata = sd.read_zarr(tmp_path / "sections.zarr")
    axes = stp.pl.folds(sdata, save=tmp_path / "folds.png")
    assert axes.shape == (3,)
    assert (tmp_path / "folds.png").stat().st_size > 10_000
    n_obs = sdata["table"].n_obs
    for name, ax in zip(["block 0", "block 1", "block 2"], axes, strict=True):
        assert ax.get_title().startswith(f"S1 · {name}\n")
        counts = [int(part.split()[0]) for part in ax.get_title().split("\n")[1].split(", ")]
        assert sum(counts) == n_obs
        colors = ax.collections[0].get_facecolors()
        assert sorted(np.unique(colors, axis=0, return_counts=True)[1]) == sorted(counts)
    assert stp.pl.folds(sdata, fold="block 1", section="S1").shape == (1,)
    with pytest.raises(ValueError, match="fold='block 9' is not one of 'block 0'"):
        stp.pl.folds(sdata, fold="block 9")
    with pytest.raises(ValueError, match=r"was not written by stp\.tl\.cross_validate"):
        stp.pl.folds(sdata, key="table")


def test_folds_of_sections_are_drawn_without_a_buffer(colour_sections):
    sdata = copy_of(colour_sections)
    stp.tl.cross_validate(sdata, {"ridge": ridge})
    axes = stp.pl.folds(sdata)
    assert axes.shape == (3, 3)
    n_obs = open_table(sdata).section_rows["S1"].size
    assert axes[0, 0].get_title() == f"S1 · S1\n{n_obs} test"
    assert axes[0, 1].get_title() == f"S1 · S2\n{n_obs} training"
