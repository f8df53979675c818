"""A slide predicted in blocks gives what grid, prepare and predict give in memory."""

from __future__ import annotations

import errno
import functools
from dataclasses import replace
from pathlib import Path

import anndata as ad
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
import squidpy as sq
import tifffile
from filelock import FileLock
from spatialdata.models import Image2DModel, ShapesModel, TableModel
from spatialdata.transformations import Scale, get_transformation

import stpredict as stp
from helpers import colour, prepared_phantom
from stpredict._sdata import _provenance
from stpredict._sdata._spot_table import open_table
from stpredict.models._records import TrainingSpots
from stpredict.tl._prediction import _blocks, _store

SMALL = {"size_px": 800, "mpp": 0.5, "n_morphology": 3, "n_neighborhood": 3, "n_null": 2}
SHORT = stp.tl.Schedule(max_epochs=1)
SETS = {
    "network": stp.tl.DeepSpotNetwork(n_hidden=8, n_phi=2, n_rho=2, n_networks=1),
    "schedule": SHORT,
}


def training_sections(*, normalize_stain=True):
    return prepared_phantom(
        2, SMALL, select={"n_top_genes": 5}, n_subtiles=2, normalize_stain=normalize_stain
    )


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
    "ridge within sections": functools.partial(
        ridge, context="spot_subspot_neighbors", standardize="section"
    ),
    "stack within sections": lambda sdata: stp.tl.fit_stacking(
        sdata,
        {
            "section": functools.partial(ridge, context="spot", standardize="section"),
            "training": functools.partial(ridge, context="spot_neighbors"),
            "cnn": cnn,
        },
    ),
    "ranked stack": lambda sdata: stp.tl.fit_stacking(sdata, RIDGES, meta="rank_mean"),
}
RIDGES = {
    context: functools.partial(ridge, context=context) for context in ("spot", "spot_neighbors")
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
    stp.tl.predict(whole, model, genes=few, key_added="few")
    in_memory = whole.tables["few"]
    assert list(in_memory.var_names) == few
    np.testing.assert_allclose(in_memory.X, expected[:, few].X, atol=1e-6)
    assert in_memory.layers.keys() == expected.layers.keys()
    if "std" in expected.layers:
        spread = expected[:, few].layers["std"]
        np.testing.assert_allclose(in_memory.layers["std"], spread, atol=1e-6)
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
    whole = stp.io.read_slide(file, mpp=0.5)
    stp.pp.detect_tissue(whole)
    stp.pp.grid(whole, "slide_1_image", pitch_um=40, diameter_um=22)
    stp.pp.prepare(whole, calibrated, encoder=colour)
    stp.tl.predict(whole, calibrated)
    out = tmp_path / "new" / "out"
    result = stp.tl.predict_slide(file, calibrated, mpp=0.5, encoder=colour, out=out)
    assert sorted(path.name for path in out.iterdir()) == ["slide_1.h5ad", "slide_1.zarr"]
    expected, lazy = whole.tables["predicted"], result.tables["predicted"]
    stored = sd.read_zarr(out / "slide_1.zarr")
    exported = ad.read_h5ad(out / "slide_1.h5ad")
    assert isinstance(lazy.X, da.Array)
    for table in (lazy, stored.tables["predicted"], exported):
        np.testing.assert_allclose(dense(table.X), expected.X, atol=1e-6)
        for layer in ("lower", "upper"):
            bound = expected.layers[layer]
            np.testing.assert_allclose(dense(table.layers[layer]), bound, atol=1e-6)
        pd.testing.assert_frame_equal(table.obs, expected.obs, check_categorical=False, atol=1e-6)
        pd.testing.assert_frame_equal(table.var, expected.var)
        note = _provenance.recorded(table, "predict_slide")
        assert note["slide"] == "slide 1.tif"
        assert (note["mpp"], note["pitch_um"], note["method"]) == (0.5, 40, "ridge")
    np.testing.assert_array_equal(exported.obsm["spatial"], whole.tables["table"].obsm["spatial"])
    few = list(expected.var_names[[2, 0]])
    stp.tl.predict(whole, calibrated, genes=few, key_added="few")
    for layer in ("lower", "upper"):
        bound = expected[:, few].layers[layer]
        np.testing.assert_allclose(whole.tables["few"].layers[layer], bound, atol=1e-6)
    pd.testing.assert_frame_equal(whole.tables["few"].var, expected.var.loc[few])
    assert "slide_1_image_tissue" in result.labels
    assert not [slot for slot in stored.tables["table"].obsm if slot.startswith("X_")]


def test_ranks_on_disk_are_those_of_the_whole_slide(train, tmp_path, monkeypatch):
    model = METHODS["ranked stack"](train)
    whole = stp.tl.predict_slide(bare_slide(), model, encoder=colour).tables["predicted"]
    monkeypatch.setattr(_blocks, "BLOCK_SPOTS", 30)
    monkeypatch.setattr(_store, "_CHUNK", 400)
    genes = [model.genes[k] for k in (4, 0, 2)]
    options = {"encoder": colour, "genes": genes, "out": tmp_path}
    stored = stp.tl.predict_slide(bare_slide(), model, **options).tables["predicted"]
    np.testing.assert_allclose(dense(stored.X), whole[:, genes].X, atol=1e-6)
    np.testing.assert_allclose(
        dense(stored.layers["std"]), whole[:, genes].layers["std"], atol=1e-6
    )


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


def test_the_spots_are_those_of_training(train, model, tmp_path):
    assert model.training.spots == TrainingSpots("hexagonal", 40.0, 22.0)
    model.save(tmp_path / "model")
    assert stp.models.load(tmp_path / "model").training.spots == model.training.spots
    slide = stp.tl.predict_slide(bare_slide(), model, encoder=colour)
    grid = _provenance.recorded(slide.tables["table"], "grid")["S1"]
    assert (grid["layout"], grid["pitch_um"], grid["diameter_um"]) == ("hexagonal", 40, 22)
    older = replace(model, training=replace(model.training, spots=None))
    slide = stp.tl.predict_slide(bare_slide(), older, encoder=colour)
    assert _provenance.recorded(slide.tables["table"], "grid")["S1"]["pitch_um"] == 100
    slide = stp.tl.predict_slide(bare_slide(), model, encoder=colour, pitch_um=15)
    grid = _provenance.recorded(slide.tables["table"], "grid")["S1"]
    assert (grid["pitch_um"], grid["diameter_um"]) == (15, 15)


def test_one_of_several_images_is_predicted(model):
    slide = stp.datasets.phantom(2, **SMALL, pitch_um=40.0).subset(["S1_image", "S2_image"])
    stp.tl.predict_slide(slide, model, encoder=colour, image="S2_image")
    assert list(slide.shapes) == ["S2"]
    assert "S1_image_normalized" not in slide.images


def test_spots_of_the_object_are_predicted(model):
    sdata = stp.datasets.phantom(**SMALL, pitch_um=40.0, seed=3)
    stp.tl.predict_slide(sdata, model, encoder=colour, key_added="ridge")
    stp.pp.prepare(sdata, model, encoder=colour)
    stp.tl.predict(sdata, model)
    np.testing.assert_allclose(sdata.tables["ridge"].X, sdata.tables["predicted"].X, atol=1e-6)
    with pytest.raises(ValueError, match=r"tables\['table'\] has spots already: omit pitch_um="):
        stp.tl.predict_slide(sdata, model, encoder=colour, pitch_um=50)


def other_colour(tiles):
    return colour(tiles) ** 2


def glass():
    pixels = np.full((3, 300, 300), 245, dtype=np.uint8)
    to_um = {"S1_um": Scale([0.5, 0.5], axes=("x", "y"))}
    image = Image2DModel.parse(pixels, dims=("c", "y", "x"), transformations=to_um)
    return sd.SpatialData(images={"S1_image": image})


def thumbnail():
    pixels = bare_slide().images["S1_image"]["scale0"]["image"].to_numpy()[:, 300:360, 300:]
    to_um = {"S1_um": Scale([0.5, 0.5], axes=("x", "y"))}
    image = Image2DModel.parse(pixels, dims=("c", "y", "x"), transformations=to_um)
    return sd.SpatialData(images={"S1_image": image})


@pytest.mark.parametrize(
    ("slide", "options", "error", "message"),
    [
        (glass, {}, ValueError, "has no tissue"),
        (thumbnail, {}, ValueError, "larger than the image of section 'S1'"),
        (bare_slide, {"mpp": 0.5}, ValueError, "mpp= is for files"),
        (bare_slide, {"genes": ["none"]}, ValueError, "1 of 1 genes are not among the model's 5"),
        (bare_slide, {"pitch_um": 0}, ValueError, "pitch_um must be a number above 0"),
        (bare_slide, {"encoder": None}, KeyError, "'colour' is a custom encoder.* as encoder="),
        (bare_slide, {"encoder": other_colour}, ValueError, "has other weights than recorded"),
        (bare_slide, {"key_added": "S1"}, ValueError, "'S1' is the name of another element"),
        (lambda: stp.datasets.phantom(2).subset(["S1_image", "S2_image"]), {}, ValueError,
         "has 2 images: S1_image, S2_image. Select one with image="),
        (lambda: stp.datasets.phantom(2), {}, ValueError, "several sections: S1, S2"),
    ],
)  # fmt: skip
def test_slides_that_cannot_be_predicted_are_refused_unchanged(
    slide, options, error, message, model, tmp_path
):
    slide = slide()
    before = [name for _, name, _ in slide.gen_elements()]
    with pytest.raises(error, match=message):
        stp.tl.predict_slide(slide, model, out=tmp_path / "out", **{"encoder": colour, **options})
    assert [name for _, name, _ in slide.gen_elements()] == before
    assert not (tmp_path / "out").exists()


def write_result(model, out):
    return stp.tl.predict_slide(bare_slide(), model, encoder=colour, out=out)


def test_a_result_is_not_overwritten(model, tmp_path):
    write_result(model, tmp_path)
    with pytest.raises(FileExistsError, match=r"S1\.zarr exists: delete it"):
        write_result(model, tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="is a file: give a folder"):
        write_result(model, tmp_path / "file")


def test_a_full_disk_leaves_nothing_behind(model, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(_store, "to_anndata", full)
    with pytest.raises(OSError, match="No space left"):
        write_result(model, tmp_path)
    assert not list(tmp_path.iterdir())


def test_files_of_killed_runs_are_replaced_and_those_of_others_kept(model, tmp_path):
    killed, running = tmp_path / ".S1~killed", tmp_path / ".S1~running"
    for folder in (killed, running):
        (folder / "values").mkdir(parents=True)
        (folder / "lock").touch()
    with FileLock(running / "lock"):
        write_result(model, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".S1~running", "S1.h5ad", "S1.zarr"]


def test_a_run_killed_while_it_moves_its_files_is_finished_by_the_next(model, tmp_path):
    write_result(model, tmp_path)
    killed = tmp_path / ".S1~killed"
    killed.mkdir()
    (killed / "lock").touch()
    (tmp_path / "S1.h5ad").rename(killed / "result.h5ad")
    with pytest.raises(FileExistsError):
        write_result(model, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["S1.h5ad", "S1.zarr"]


def test_of_two_runs_at_once_the_last_one_wins(model, tmp_path):
    with _store.open_store(tmp_path, "S1") as store:
        write_result(model, tmp_path)
        (store.folder / "result.zarr").mkdir()
        (store.folder / "result.h5ad").touch()
        store.move()
    assert not list((tmp_path / "S1.zarr").iterdir())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["S1.h5ad", "S1.zarr"]


def test_blocks_are_compact_and_of_about_equal_size():
    points = np.stack(np.meshgrid(np.arange(60.0), np.arange(90.0)), axis=-1).reshape(-1, 2)
    blocks = _blocks.split_blocks(points, np.arange(5400), most=700)
    np.testing.assert_array_equal(np.sort(np.concatenate(blocks)), np.arange(5400))
    assert len(blocks) == 8
    assert all(len(block) == 675 for block in blocks)
    assert all(np.ptp(points[block], axis=0).max() <= 45 for block in blocks)


def test_a_slide_has_one_progress_bar(model, monkeypatch, capsys):
    monkeypatch.setattr(stp.settings, "verbosity", 1)
    monkeypatch.setattr(_blocks, "BLOCK_SPOTS", 30)
    stp.tl.predict_slide(bare_slide(), model, encoder=colour)
    shown = capsys.readouterr().err
    assert "predict S1: 100%" in shown
    assert "embed" not in shown


HER2ST = Path(__file__).parents[3] / "shared" / "data" / "her2st"


@pytest.mark.skipif(not HER2ST.is_dir(), reason="no real data: ../shared/data/her2st")
def test_a_measured_section_read_as_a_slide_scores_as_the_section_does():
    train = stp.datasets.her2st(["C2", "C3", "C4"], directory=HER2ST)
    stp.pp.filter_spots(train)
    stp.pp.normalize(train)
    stp.pp.select_genes(train, n_top_genes=100)
    stp.pp.embed(train, "texture")
    stp.pp.neighbors(train)
    model = stp.tl.fit_ridge(train, alpha=1000.0)
    measured = stp.datasets.her2st(["C5"], directory=HER2ST)
    stp.pp.prepare(measured, model)
    stp.tl.predict(measured, model)
    (section,) = open_table(measured).sections
    (file,) = (HER2ST / "ST-imgs" / "C" / "C5").glob("*.jpg")
    slide = stp.io.read_slide(file, mpp=section.mpp, name="C5")
    slide.shapes["C5"] = ShapesModel.parse(
        section.centers,
        geometry=0,
        radius=section.radius_um / section.mpp,
        index=measured.shapes["C5"].index,
        transformations=get_transformation(slide.images["C5_image"], get_all=True),
    )
    obs = measured.tables["table"].obs[["region", "instance_id"]].copy()
    slide.tables["table"] = TableModel.parse(
        ad.AnnData(obs=obs), region="C5", region_key="region", instance_key="instance_id"
    )
    stp.tl.predict_slide(slide, model)
    expected = measured.tables["table"][:, list(model.genes)].layers["log1p"].toarray()
    by_section, by_slide = (
        stp.metrics.pcc(expected, np.asarray(sdata.tables["predicted"].X)).mean()
        for sdata in (measured, slide)
    )
    assert by_section > 0.3
    assert by_slide == pytest.approx(by_section, abs=0.01)
