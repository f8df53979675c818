"""Slides opened with wsidata, in both directions: our steps on them, LazySlide's on our results."""

from __future__ import annotations

import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
import tifffile
import torch
from anndata import AnnData
from lazyslide_models.base import FeaturePredictionModel
from wsidata import open_wsi
from wsidata.io import add_features

import stpredict as stp
from stpredict._sdata._spot_table import open_table

MPP, PITCH_UM = 0.5, 60.0
GENES = ["morphology_001", "morphology_002"]

# progress bars of rich, figures of LazySlide, and metadata of zarr
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
]


class MeanColour(torch.nn.Module):
    """An encoder that LazySlide and stpredict both run."""

    name = "mean_colour"

    def forward(self, tiles):
        return tiles.mean((-2, -1))

    def encode_image(self, tiles):
        return self(tiles)


@pytest.fixture(scope="module", autouse=True)
def _silent():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stp.settings, "verbosity", 0)
        yield


@pytest.fixture(scope="module")
def zs():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of packages that LazySlide imports
        return pytest.importorskip("lazyslide")


def phantom(n_sections=1, **options):
    size = {"size_px": 1200, "mpp": MPP, "pitch_um": PITCH_UM}
    return stp.datasets.phantom(n_sections, **size, n_morphology=3, n_null=1, **options)


@pytest.fixture(scope="module")
def slide_file(tmp_path_factory):
    """A file like those of Aperio's scanners, with two levels and the µm per pixel."""
    pixels = np.asarray(phantom(seed=5).images["S1_image"]["scale0"]["image"].data)
    path = tmp_path_factory.mktemp("slides") / "tumour 1.svs"
    with tifffile.TiffWriter(path) as file:
        for step in (1, 4):
            level = np.ascontiguousarray(pixels.transpose(1, 2, 0)[::step, ::step])
            size = f"{level.shape[1]}x{level.shape[0]}"
            description = f"Aperio Image Library v12\n{size} (256x256)|AppMag = 20|MPP = {MPP}"
            options = {"photometric": "rgb", "metadata": None, "description": description}
            file.write(level, tile=(256, 256), **options)
    return path


@pytest.fixture(scope="module")
def training():
    sdata = phantom(2)
    stp.pp.normalize(sdata)
    stp.pp.embed(sdata, MeanColour(), key_added="X_mean_colour", tile_um=50)
    stp.pp.neighbors(sdata)
    return sdata


def fit(sdata, context="spot_neighbors"):
    return stp.tl.fit_ridge(
        sdata, embedding="X_mean_colour", context=context, genes=GENES, alpha=1.0
    )


def predict_on_grid(slide, model):
    stp.pp.grid(slide, pitch_um=PITCH_UM, diameter_um=30)
    stp.pp.prepare(slide, model, encoder=MeanColour())
    stp.tl.predict(slide, model)
    return slide.tables["predicted"]


def test_a_slide_of_wsidata_is_predicted_like_one_that_we_read(slide_file, training):
    model = fit(training)
    wsi = open_wsi(slide_file, store=None)
    predicted = predict_on_grid(wsi, model)
    expected = predict_on_grid(stp.io.read_slide(slide_file), model)
    assert predicted.obs_names.tolist() == expected.obs_names.tolist()
    np.testing.assert_allclose(predicted.X, expected.X, atol=1e-6)
    assert type(wsi).__name__ == "WSIData"  # the results are in the user's object
    assert open_table(wsi).sections[0].mpp == MPP


def test_the_slide_is_not_written_with_the_results(slide_file, training, tmp_path):
    model = fit(training)
    wsi = open_wsi(slide_file, store=tmp_path / "results.zarr")
    predicted = predict_on_grid(wsi, model).X
    stp.pp.detect_tissue(wsi)
    wsi.write()
    stored = sd.read_zarr(tmp_path / "results.zarr")
    assert not stored.images
    assert set(stored.tables) == {"table", "predicted"}
    # the image is attached again when the slide is opened
    again = open_wsi(slide_file, store=tmp_path / "results.zarr")
    stp.tl.predict(again, model)
    np.testing.assert_array_equal(again.tables["predicted"].X, predicted)


def test_a_copy_leaves_the_slide_as_it_is(slide_file):
    wsi = open_wsi(slide_file, store=None)
    changed = stp.pp.grid(wsi, pitch_um=PITCH_UM, copy=True)
    assert "table" in changed.tables
    assert not wsi.tables
    assert not wsi.shapes
    assert stp.pp.detect_tissue(wsi, copy=True).labels.keys() == {"tumour_1_image_tissue"}
    assert not wsi.labels


def test_a_whole_slide_is_predicted_in_one_call(slide_file, training):
    stp.pp.embed(training, tile_um=50)
    model = stp.tl.fit_ridge(training, genes=GENES, alpha=1.0)
    wsi = open_wsi(slide_file, store=None)
    stp.tl.predict_slide(wsi, model)
    expected = stp.tl.predict_slide(slide_file, model)
    np.testing.assert_allclose(wsi["predicted"].X, expected["predicted"].X, atol=1e-6)


def tiled(zs, slide_file, **options):
    wsi = open_wsi(slide_file, store=None)
    zs.pp.find_tissues(wsi)
    zs.pp.tile_tissues(wsi, tile_px=100, mpp=MPP, stride_px=int(PITCH_UM / MPP), **options)
    return wsi


def add_spots(wsi):
    """A table with one row per tile, and no genes."""
    add_features(wsi, "table", "tiles", np.empty((len(wsi["tiles"]), 0), dtype=np.float32))


def test_lazyslide_draws_our_predictions_on_its_tiles(zs, slide_file, training, tmp_path):
    model = fit(training, "spot")
    wsi = tiled(zs, slide_file)
    add_spots(wsi)
    stp.pp.prepare(wsi, model, encoder=MeanColour())
    stp.tl.predict(wsi, model)
    section = open_table(wsi).sections[0]
    bounds = wsi["tiles"].bounds.to_numpy()
    np.testing.assert_allclose(section.centers, (bounds[:, :2] + bounds[:, 2:]) / 2)
    zs.pl.tiles(wsi, feature_key="predicted", color=GENES[0], tile_key="tiles")
    plt.savefig(tmp_path / "tiles.png")
    plt.close("all")
    adata = wsi.fetch.features_anndata("predicted")
    np.testing.assert_array_equal(adata.X, wsi["predicted"].X)
    wsi.write(tmp_path / "tiles.zarr")
    np.testing.assert_array_equal(sd.read_zarr(tmp_path / "tiles.zarr")["predicted"].X, adata.X)


def test_features_of_lazyslide_are_an_embedding(zs, slide_file, training):
    model = fit(training, "spot")
    wsi = tiled(zs, slide_file)
    encoder = MeanColour()
    scale = lambda tile: torch.from_numpy(tile).permute(2, 0, 1) / 255  # noqa: E731
    zs.tl.feature_extraction(wsi, encoder, transform=scale, model_name="mean_colour", pbar=False)
    add_spots(wsi)
    wsi["table"].obsm["X_mean_colour"] = wsi["mean_colour_tiles"].X
    embed = model.recipe.embed
    stp.pp.register_embedding(
        wsi,
        "X_mean_colour",
        encoder=embed.encoder,
        tile_um=embed.tile_um,
        mpp=embed.mpp,
        weights_hash=embed.weights_hash,
    )
    stp.tl.predict(wsi, model, key_added="registered")
    # the same tiles, embedded by us
    stp.pp.prepare(wsi, model, encoder=encoder)
    stp.tl.predict(wsi, model)
    np.testing.assert_allclose(wsi["registered"].X, wsi["predicted"].X, atol=1e-4)
    # the same features, predicted by LazySlide
    zs.tl.feature_prediction(wsi, model.as_feature_predictor(), "mean_colour", pbar=False)
    np.testing.assert_allclose(wsi["stpredict_ridge_tiles"].X, wsi["registered"].X, atol=1e-6)
    assert wsi["stpredict_ridge_tiles"].var_names.tolist() == GENES


def test_lazyslide_runs_models_with_neighbours(zs, slide_file, training):
    sdata = stp.pp.neighbors(training, radius_um=70, copy=True)
    wsi = tiled(zs, slide_file)
    add_spots(wsi)
    model = fit(sdata)
    stp.pp.embed(wsi, MeanColour(), key_added="X_mean_colour", tile_um=50)
    add_features(wsi, "mean_colour_tiles", "tiles", wsi["table"].obsm["X_mean_colour"])
    predictor = model.as_feature_predictor(mpp=wsi.properties.mpp)
    # hexagonal spots in training, square tiles here
    with pytest.raises(ValueError, match="layout is square, the model was trained with hexagonal"):
        zs.tl.feature_prediction(wsi, predictor, batch_size=7, pbar=False)
    square = phantom(2, spots="square")
    stp.pp.normalize(square)
    stp.pp.embed(square, MeanColour(), key_added="X_mean_colour", tile_um=50)
    stp.pp.neighbors(square)
    model = fit(square)
    predictor = model.as_feature_predictor(mpp=wsi.properties.mpp)
    zs.tl.feature_prediction(wsi, predictor, batch_size=7, key_added="by_zs", pbar=False)
    stp.pp.prepare(wsi, model, encoder=MeanColour())
    stp.tl.predict(wsi, model)
    np.testing.assert_allclose(wsi["by_zs"].X, wsi["predicted"].X, atol=1e-6)


def test_a_slide_without_scale_is_refused_until_it_is_set(slide_file, tmp_path):
    path = tmp_path / "plain.tif"
    tifffile.imwrite(path, tifffile.imread(slide_file, key=0), tile=(256, 256), photometric="rgb")
    wsi = open_wsi(path, store=None)
    with pytest.raises(ValueError, match="µm per pixel"):
        stp.pp.grid(wsi, "plain_image", pitch_um=PITCH_UM)
    assert not wsi.shapes
    wsi.set_mpp(MPP)
    stp.pp.grid(wsi, pitch_um=PITCH_UM)
    assert open_table(wsi).sections[0].mpp == MPP
    wsi.set_mpp(2 * MPP)
    with pytest.raises(ValueError, match=r"the slide has 1 µm per pixel, but .* with 0\.5: open"):
        stp.pp.embed(wsi)


def test_thumbnails_and_attached_images_do_not_confuse_sections(zs, slide_file):
    wsi = open_wsi(slide_file, store=None, attach_images=True, attach_thumbnail=True)
    zs.pp.find_tissues(wsi)
    zs.pp.tile_tissues(wsi, tile_px=100, mpp=MPP)
    add_spots(wsi)
    assert open_table(wsi).sections[0].image == "tumour_1_image"
    assert set(wsi.images) == {"wsi", "wsi_thumbnail", "tumour_1_image"}


class LinearPredictor(FeaturePredictionModel):
    """A small predictor of LazySlide: genes from the mean colour of a tile."""

    name = "linear"
    features_model_name = "mean_colour"
    model = torch.nn.Identity()

    def predict(self, features, coords=None):
        red, green, blue = np.asarray(features).T
        return {GENES[0]: 3 - 2 * red + blue, "absent": green, GENES[1]: red * green}


@pytest.fixture(scope="module")
def predicted_tiles(zs, slide_file):
    """Tiles of LazySlide that do not coincide with the spots of the section."""
    wsi = open_wsi(slide_file, store=None)
    zs.pp.find_tissues(wsi)
    zs.pp.tile_tissues(wsi, tile_px=100, mpp=MPP, stride_px=70)
    scale = lambda tile: torch.from_numpy(tile).permute(2, 0, 1) / 255  # noqa: E731
    options = {"model_name": "mean_colour", "pbar": False}
    zs.tl.feature_extraction(wsi, MeanColour(), transform=scale, **options)
    zs.tl.feature_prediction(wsi, LinearPredictor(), pbar=False)
    return wsi


def nearest_tiles(wsi, sdata):
    """Predictions of the tiles of each spot, in a loop; NaN for spots off the tiles."""
    section, bounds = open_table(sdata).sections[0], wsi["tiles"].bounds.to_numpy()
    tiles, values = (bounds[:, :2] + bounds[:, 2:]) / 2 * MPP, wsi["linear_tiles"].to_df()[GENES]
    expected = np.full((sdata["table"].n_obs, len(GENES)), np.nan)
    for row, center in zip(section.rows, section.centers_um, strict=True):
        distance = np.hypot(*(tiles - center).T)
        inside = distance <= section.radius_um[0]
        if inside.any():
            expected[row] = values[inside].mean(axis=0)
        elif distance.min() < 1.05 * 35 / np.sqrt(2):
            expected[row] = values[distance <= distance.min() + 1e-3].mean(axis=0)
    return expected


def test_predictions_of_lazyslide_score_like_the_same_values_inside(predicted_tiles, training):
    sdata = phantom(seed=5, off_tissue=2)
    stp.pp.normalize(sdata)
    stp.pp.embed(sdata, MeanColour(), key_added="X_mean_colour", tile_um=50)
    stp.pp.neighbors(sdata)
    stp.io.read_predictions(
        sdata, predicted_tiles, key="linear_tiles", training_sections=[], key_added="lazyslide"
    )
    expected = nearest_tiles(predicted_tiles, sdata)
    matched = np.isfinite(expected).all(axis=1)
    assert 20 < matched.sum() < len(matched)  # spots lie off the tissue, too
    np.testing.assert_allclose(sdata["lazyslide"].X, expected[matched], atol=1e-5)
    # the same values in a table of our own
    stp.tl.predict(sdata, fit(training, "spot"))
    sdata["predicted"].X = np.where(matched[:, None], expected, 0).astype(np.float32)
    sdata["predicted"] = sdata["predicted"][matched].copy()
    scores = stp.tl.evaluate(sdata, ["predicted", "lazyslide"])
    for metric in ("pcc", "spearman", "auc", "ssim", "morans_i_difference", "pcc_shuffled"):
        values = scores.values(metric)
        np.testing.assert_allclose(values["lazyslide"], values["predicted"], atol=1e-6)
    note = str(scores.protocol)
    assert f"{matched.sum()} of {len(matched)} spots matched by position to tiles 35 µm" in note
    assert "1 others not measured" in note


def test_predictions_on_tiles_of_the_same_object_are_read_by_its_coordinates(
    predicted_tiles, training
):
    wsi = predicted_tiles
    table = stp.pp.grid(wsi, pitch_um=PITCH_UM, diameter_um=30, table_name="spots", copy=True)
    spots = table["spots"]
    genes = np.random.default_rng(0).poisson(2.0, (spots.n_obs, 2)).astype(np.float32)
    measured = sd.models.TableModel.parse(
        AnnData(genes, obs=spots.obs, var=pd.DataFrame(index=GENES)),
        region=list(spots.obs["region"].cat.categories),
        region_key="region",
        instance_key="instance_id",
    )
    table.tables["table"] = measured
    stp.io.read_predictions(table, table, key="linear_tiles", layer=None)
    stp.io.read_predictions(table, wsi, key="linear_tiles", layer=None, key_added="separate")
    assert table["external"].n_obs > 20
    np.testing.assert_allclose(table["external"].X, table["separate"].X, atol=1e-6)
