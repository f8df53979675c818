"""A slide predicted in blocks gives what grid, prepare and predict give in memory."""

from __future__ import annotations

import functools

import anndata as ad
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
import squidpy as sq
import tifffile
import torch

import stpredict as stp
from stpredict._sdata import _provenance
from stpredict._sdata._spot_table import open_table
from stpredict.tl._prediction import _blocks, _store

SMALL = {"size_px": 800, "mpp": 0.5, "n_morphology": 3, "n_neighborhood": 3, "n_null": 2}
SHORT = stp.tl.Schedule(max_epochs=1)
SETS = {"network": stp.tl.DeepSpotNetwork(n_hidden=8, n_phi=2, n_rho=2), "schedule": SHORT}


def colour(tiles):
    return torch.cat([tiles.mean((-2, -1)), tiles.std((-2, -1))], dim=1)


def training_sections(*, normalize_stain=True):
    sdata = stp.datasets.phantom(2, **SMALL, pitch_um=40.0)
    if normalize_stain:
        stp.pp.normalize_stain(sdata)
    stp.pp.normalize(sdata)
    stp.pp.select_genes(sdata, n_top_genes=5)
    stp.pp.embed(sdata, colour, tile_um=40, n_subtiles=2, key_added="X_colour")
    stp.pp.neighbors(sdata)
    return sdata


@pytest.fixture(scope="module")
def train():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stp.settings, "verbosity", 0)
        return training_sections()


def bare_slide(**options):
    """An image with known µm per pixel, without spots and table."""
    return stp.datasets.phantom(**{**SMALL, "pitch_um": 40.0, **options}, seed=3).subset(
        ["S1_image"]
    )


ridge = functools.partial(stp.tl.fit_ridge, embedding="X_colour", alpha=1.0)
deepspot = functools.partial(stp.tl.fit_deepspot, embedding="X_colour", **SETS)
cnn = functools.partial(
    stp.tl.fit_cnn,
    network=stp.tl.CNNNetwork(tile_px=16),
    tile_um=20.0,
    schedule=SHORT,
)
METHODS = {
    "ridge": functools.partial(ridge, context="spot"),
    "deepspot": functools.partial(deepspot, context="spot_subspot_neighbors"),
    "deepcell": functools.partial(
        stp.tl.fit_deepcell,
        embedding="X_colour",
        network=stp.tl.DeepCellNetwork(n_hidden=8, n_phi=2, n_rho=2),
        schedule=SHORT,
    ),
    "trees": functools.partial(stp.tl.fit_trees, embedding="X_colour", n_trees=5),
    "factors": functools.partial(ridge, context="spot_neighbors", targets="svd", n_factors=2),
    "cnn": cnn,
    "stack": lambda sdata: stp.tl.fit_stacking(
        sdata, {"ridge": functools.partial(ridge, context="spot_neighbors"), "cnn": cnn}
    ),
}


@pytest.mark.parametrize("name", METHODS)
def test_blocks_predict_what_the_slide_in_memory_does(name, train, monkeypatch):
    model = METHODS[name](train)
    encoder = None if model.uses_pixels else colour
    whole = bare_slide()
    stp.pp.grid(whole, "S1_image", pitch_um=40, diameter_um=22)
    stp.pp.prepare(whole, model, encoder=encoder)
    stp.tl.predict(whole, model)
    expected = whole.tables["predicted"]
    monkeypatch.setattr(_blocks, "BLOCK_SPOTS", 30)
    slide = bare_slide()
    assert stp.tl.predict_slide(slide, model, encoder=encoder) is slide
    predicted = slide.tables["predicted"]
    assert expected.n_obs > 60
    assert list(predicted.obs_names) == list(expected.obs_names)
    assert list(predicted.var_names) == list(expected.var_names)
    np.testing.assert_allclose(predicted.X, expected.X, atol=1e-6)
    assert predicted.layers.keys() == expected.layers.keys()
    for layer in expected.layers:
        if layer is not None:
            np.testing.assert_allclose(predicted.layers[layer], expected.layers[layer], atol=1e-6)
    few = [model.genes[3], model.genes[1]]
    some = stp.tl.predict_slide(bare_slide(), model, encoder=encoder, genes=few)
    assert list(some.tables["predicted"].var_names) == few
    np.testing.assert_allclose(some.tables["predicted"].X, expected[:, few].X, atol=1e-6)
    assert not [slot for slot in slide.tables["table"].obsm if slot.startswith("X_")]


@pytest.fixture(scope="module")
def model(train):
    return METHODS["ridge"](train)


@pytest.fixture(scope="module")
def calibrated():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stp.settings, "verbosity", 0)
        # the stain would be fitted again in each fold
        train = training_sections(normalize_stain=False)
        stp.tl.cross_validate(train, {"ridge": METHODS["ridge"]})
        return stp.tl.calibrate(train, METHODS["ridge"](train))


def write_file(path, **options):
    """A TIFF file of the slide without µm per pixel."""
    pixels = bare_slide(**options).images["S1_image"]["scale0"]["image"].to_numpy()
    tifffile.imwrite(path, pixels.transpose(1, 2, 0), photometric="rgb", tile=(256, 256))
    return path


def dense(values):
    return np.asarray(values)


def test_the_result_on_disk_is_that_in_memory(calibrated, tmp_path, monkeypatch):
    monkeypatch.setattr(_blocks, "BLOCK_SPOTS", 30)
    monkeypatch.setattr(_store, "_CHUNK", 40)
    file = write_file(tmp_path / "slide 1.tif")
    whole = stp.tl.predict_slide(file, calibrated, mpp=0.5, encoder=colour)
    out = tmp_path / "new" / "out"
    result = stp.tl.predict_slide(file, calibrated, mpp=0.5, encoder=colour, out=out)
    assert sorted(path.name for path in out.iterdir()) == ["slide_1.h5ad", "slide_1.zarr"]
    expected, lazy = whole.tables["predicted"], result.tables["predicted"]
    stored = sd.read_zarr(out / "slide_1.zarr")
    exported = ad.read_h5ad(out / "slide_1.h5ad")
    assert isinstance(lazy.X, da.Array)
    for table in (lazy, stored.tables["predicted"], exported):
        np.testing.assert_array_equal(dense(table.X), expected.X)
        for layer in ("lower", "upper"):
            np.testing.assert_array_equal(dense(table.layers[layer]), expected.layers[layer])
        pd.testing.assert_frame_equal(table.obs, expected.obs, check_categorical=False)
        pd.testing.assert_frame_equal(table.var, expected.var)
        note = _provenance.recorded(table, "predict_slide")
        assert note["slide"] == "slide 1.tif"
        assert (note["mpp"], note["pitch_um"], note["method"]) == (0.5, 40, "ridge")
    np.testing.assert_array_equal(exported.obsm["spatial"], whole.tables["table"].obsm["spatial"])
    assert "slide_1_image_tissue" in result.labels
    assert not [slot for slot in stored.tables["table"].obsm if slot.startswith("X_")]


def test_the_result_on_disk_is_drawn_without_the_slide(calibrated, tmp_path):
    file = write_file(tmp_path / "slide.tif", size_px=1600, mpp=0.25)
    result = stp.tl.predict_slide(file, calibrated, mpp=0.25, encoder=colour, out=tmp_path)
    assert max(result.images["slide_image"].shape) <= 1500
    file.unlink()
    gene = calibrated.genes[0]
    stp.pl.prediction(result, gene, panels=["image", "predicted", "width"])
    stp.io.to_anndata(result, table_name="predicted")
    sq.pl.spatial_scatter(ad.read_h5ad(tmp_path / "slide.h5ad"), color=gene)
    section = open_table(result, "predicted").sections[0]
    assert section.mpp == pytest.approx(0.25 * 1600 / section.shape_yx[0])
    whole = stp.tl.predict_slide(bare_slide(size_px=1600, mpp=0.25), calibrated, encoder=colour)
    centers = open_table(whole).sections[0].centers_um
    np.testing.assert_allclose(section.centers_um, centers, atol=1e-6)
