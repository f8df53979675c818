"""A slide predicted at fine positions in blocks is what superresolve gives in memory."""

from __future__ import annotations

import functools

import anndata as ad
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import spatialdata as sd

import stpredict as stp
from helpers import colour, prepared_phantom
from stpredict._sdata._provenance import recorded
from stpredict.tl._prediction import _blocks, _store

SMALL = {"size_px": 800, "mpp": 0.5, "pitch_um": 40.0, "n_morphology": 3, "n_null": 2}


def training_sections(*, normalize_stain=True):
    return prepared_phantom(
        2, SMALL, select={"n_top_genes": 5}, n_subtiles=2, normalize_stain=normalize_stain
    )


@pytest.fixture(scope="module")
def train():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stp.settings, "verbosity", 0)
        return training_sections()


def bare_slide():
    return stp.datasets.phantom(**SMALL, seed=3).subset(["S1_image"])


ridge = functools.partial(stp.tl.fit_ridge, embedding="X_colour", alpha=1.0)
SCHEDULE = stp.tl.Schedule(max_epochs=1)
METHODS = {
    "spot": functools.partial(ridge, context="spot"),
    "neighbours": functools.partial(ridge, context="spot_neighbors"),
    "within sections": functools.partial(ridge, context="spot_neighbors", standardize="section"),
    "ensemble": functools.partial(
        stp.tl.fit_deepspot,
        embedding="X_colour",
        context="spot_subspot_neighbors",
        network=stp.tl.DeepSpotNetwork(n_hidden=8, n_phi=2, n_rho=2, n_networks=1),
        schedule=SCHEDULE,
    ),
    "pixels": functools.partial(
        stp.tl.fit_cnn, network=stp.tl.CNNNetwork(tile_px=16), tile_um=20.0, schedule=SCHEDULE
    ),
}


def in_memory(model, *, resolution_um, encoder=colour):
    whole = bare_slide()
    stp.pp.grid(whole, pitch_um=40, diameter_um=22)
    stp.pp.prepare(whole, model, encoder=encoder)
    stp.tl.predict(whole, model)
    stp.tl.superresolve(whole, model, resolution_um=resolution_um, encoder=encoder)
    return whole


def assert_same(table, expected):
    assert list(table.obs_names) == list(expected.obs_names)
    np.testing.assert_allclose(np.asarray(table.X), expected.X, atol=1e-6)
    layers = [name for name in expected.layers if name is not None]
    assert [name for name in table.layers if name is not None] == layers
    for name in layers:
        values = np.asarray(table.layers[name])
        np.testing.assert_allclose(values, expected.layers[name], atol=1e-6)
    pd.testing.assert_frame_equal(table.obs, expected.obs, check_categorical=False, atol=1e-6)
    pd.testing.assert_frame_equal(table.var, expected.var)
    np.testing.assert_array_equal(table.obsm["spatial"], expected.obsm["spatial"])


@pytest.mark.parametrize("name", METHODS)
def test_blocks_of_fine_positions_predict_what_superresolve_does_in_memory(
    name, train, monkeypatch
):
    model = METHODS[name](train)
    encoder = None if model.uses_pixels else colour
    whole = in_memory(model, resolution_um=15, encoder=encoder)
    monkeypatch.setattr(_blocks, "BLOCK_SPOTS", 67)
    slide = bare_slide()
    assert stp.tl.predict_slide(slide, model, encoder=encoder, resolution_um=15) is slide
    fine = slide.tables["superresolved"]
    assert fine.n_obs > 5 * 67
    assert_same(fine, whole.tables["superresolved"])
    assert_same(slide.tables["predicted"], whole.tables["predicted"])
    pd.testing.assert_frame_equal(
        slide.shapes["S1_superresolved"], whole.shapes["S1_superresolved"]
    )
    assert "spatial_connectivities" not in fine.obsp
    assert recorded(fine, "superresolve") == recorded(whole.tables["superresolved"], "superresolve")


def test_fine_positions_on_disk_are_those_in_memory(tmp_path, monkeypatch):
    # the stain would be fitted again in each fold
    train = training_sections(normalize_stain=False)
    stp.tl.cross_validate(train, {"ridge": METHODS["neighbours"]})
    model = stp.tl.calibrate(train, METHODS["neighbours"](train))
    genes = [model.genes[3], model.genes[1]]
    expected = in_memory(model, resolution_um=15).tables["superresolved"][:, genes].copy()
    monkeypatch.setattr(_blocks, "BLOCK_SPOTS", 67)
    monkeypatch.setattr(_store, "_CHUNK", 100)
    slide = bare_slide()
    before = [name for _, name, _ in slide.gen_elements()]
    result = stp.tl.predict_slide(
        slide, model, encoder=colour, genes=genes, resolution_um=15, out=tmp_path
    )
    assert [name for _, name, _ in slide.gen_elements()] == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["S1.h5ad", "S1.zarr"]
    stored = sd.read_zarr(tmp_path / "S1.zarr")
    assert isinstance(result.tables["superresolved"].X, da.Array)
    for sdata in (result, stored):
        assert_same(sdata.tables["superresolved"], expected)
        assert set(sdata.shapes) == {"S1", "S1_superresolved"}
    assert "familiarity" in expected.obs
    assert "lower" in result.tables["predicted"].layers
    exported = ad.read_h5ad(tmp_path / "S1.h5ad")
    assert list(exported.obs_names) == list(result.tables["predicted"].obs_names)
    stp.pl.prediction(result, genes[0], key="superresolved")
    stp.io.to_anndata(result, table_name="superresolved").write_h5ad(tmp_path / "fine.h5ad")


def test_a_second_call_replaces_the_fine_positions_of_the_first(train):
    model = METHODS["spot"](train)
    slide = bare_slide()
    stp.tl.predict_slide(slide, model, encoder=colour, resolution_um=20)
    coarse = slide.tables["superresolved"].n_obs
    stp.tl.predict_slide(slide, model, encoder=colour, resolution_um=10)
    assert slide.tables["superresolved"].n_obs > 3 * coarse
    assert len(slide.shapes["S1_superresolved"]) == slide.tables["superresolved"].n_obs


def ranked(train):
    bases = {name: METHODS[name] for name in ("spot", "neighbours")}
    return stp.tl.fit_stacking(train, bases, meta="rank_mean")


@pytest.mark.parametrize(
    ("fit", "options", "message"),
    [
        (METHODS["spot"], {"resolution_um": -1}, "resolution_um must be a number above 0"),
        (METHODS["spot"], {"resolution_um": 30}, "too coarse for section 'S1'"),
        (METHODS["neighbours"], {"resolution_um": 25}, "too coarse for the model's neighbours"),
        (METHODS["spot"], {"resolution_um": 0.01}, "the maximum is 5,000,000"),
        (METHODS["spot"], {"resolution_um": 10, "key_added": "superresolved"},
         "is the name of the table of fine positions"),
        (METHODS["spot"], {"resolution_um": 10, "table_name": "superresolved"},
         "holds no predictions of stpredict"),
        (ranked, {"resolution_um": 10}, "averages ranks over the whole slide"),
    ],
)  # fmt: skip
def test_fine_positions_that_cannot_be_predicted_are_refused_before_anything_is_embedded(
    fit, options, message, train, tmp_path, monkeypatch
):
    model = fit(train)

    def embed(*args, **kwargs):
        raise AssertionError("embedded")

    monkeypatch.setattr(_blocks, "embed_tiles", embed)
    slide = bare_slide()
    before = [name for _, name, _ in slide.gen_elements()]
    with pytest.raises(ValueError, match=message):
        stp.tl.predict_slide(slide, model, encoder=colour, out=tmp_path / "out", **options)
    assert [name for _, name, _ in slide.gen_elements()] == before
    assert not (tmp_path / "out").exists()


def test_groups_stay_together_in_the_block_of_their_first_row():
    rng = np.random.default_rng(0)
    points, groups = rng.random((500, 2)), rng.permutation(500) % 90
    blocks = _blocks.split_blocks(points, np.arange(500), most=60)
    together = _blocks.keep_together(blocks, groups)
    np.testing.assert_array_equal(np.sort(np.concatenate(together)), np.arange(500))
    for group in range(90):
        rows = np.flatnonzero(groups == group)
        (first,) = (block for block in blocks if rows[0] in block)
        (block,) = (block for block in together if rows[0] in block)
        assert set(rows) <= set(block)
        assert any(np.isin(block, first))
