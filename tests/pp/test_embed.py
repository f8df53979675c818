"""Embeddings equal those of crops cut by hand, at the requested size in µm."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import spatialdata as sd
import torch
from torch import nn

import stpredict as stp
from stpredict import encoders
from stpredict._sdata import _provenance
from stpredict._sdata._spot_table import open_table
from stpredict.io._shared._assemble import assemble_section


def mean_colour(tiles):
    return tiles.mean((-2, -1))


def colour_and_place(tiles):
    """Mean colour of the tile and of its upper and left half, which depends on orientation."""
    side = tiles.shape[-1]
    parts = (tiles, tiles[..., : side // 2, :], tiles[..., : side // 2])
    return torch.cat([part.mean((-2, -1)) for part in parts], dim=1)


class Pooled(nn.Module):
    """A small network with weights."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.conv = nn.Conv2d(3, 5, 3)
        self.norm = nn.BatchNorm2d(5)  # sees more than one tile, unless in evaluation mode

    def forward(self, tiles):
        return self.norm(self.conv(tiles)).mean((-2, -1))


def section(name="S1", *, size=(260, 340), mpp=0.5, n=9, seed=0, image=None, xy=None):
    rng = np.random.default_rng(seed)
    height, width = size
    if image is None:
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    if xy is None:
        xy = rng.uniform(0, (width, height), (n, 2))
        xy[0] = 0, 0  # the corner: most of its tile is glass
    return assemble_section(
        name,
        image=image,
        counts=np.ones((n, 2)),
        obs_names=[f"s{i}" for i in range(n)],
        var_names=["A", "B"],
        positions=xy,
        mpp=mpp,
        diameter_um=10,
    )


def crops(sdata, side, *, name="S1"):
    """Tiles by plain slicing of the image padded with white."""
    spots = open_table(sdata).section(name)
    padded = np.pad(
        spots.levels[0].compute(), ((0, 0), (side, side), (side, side)), constant_values=255
    )
    tiles = []
    for x, y in spots.centers:
        left, top = int(np.rint(x - side / 2)) + side, int(np.rint(y - side / 2)) + side
        tiles.append(padded[:, top : top + side, left : left + side])
    return torch.from_numpy(np.stack(tiles))


def by_hand(tiles, n, encoder):
    """Sub-tiles, row by row from the upper left."""
    small = tiles.shape[-1] // n
    return np.stack(
        [
            encoder(tiles[..., i * small : (i + 1) * small, j * small : (j + 1) * small]).numpy()
            for i in range(n)
            for j in range(n)
        ],
        axis=1,
    )


def test_slots():
    sdata = section()
    stp.pp.embed(sdata, "texture", tile_um=72, n_subtiles=3)
    table = sdata.tables["table"]
    dimension = encoders.load("texture").dimension
    whole, parts = table.obsm["X_texture"], table.obsm["X_texture_subtiles"]
    assert whole.shape == (9, dimension)
    assert parts.shape == (9, 9, dimension)
    assert whole.dtype == parts.dtype == np.float32
    assert np.isfinite(whole).all()
    assert np.isfinite(parts).all()
    assert _provenance.recorded(table, "embed")["X_texture"] == {
        "encoder": "texture",
        "weights_hash": encoders.load("texture").weights_hash,
        "tile_um": 72.0,
        "mpp": 0.5,
        "n_subtiles": 3,
    }


def test_crops_are_those_of_a_tile_that_is_resized_first():
    sdata = section()
    record = encoders.EncoderRecord("cropped", nn.Flatten, input_px=40, resize_px=48)
    stp.pp.embed(sdata, record, tile_um=24, n_subtiles=2)
    tiles = crops(sdata, 48)  # 0.5 µm per pixel: nothing is resampled
    inner = tiles[..., 4:44, 4:44].float().flatten(1) / 255
    table = sdata.tables["table"]
    np.testing.assert_allclose(table.obsm["X_cropped"], inner, atol=1e-6)
    assert table.obsm["X_cropped_subtiles"].shape == (9, 4, 3 * 40 * 40)


def test_embeddings_without_the_crop_are_not_those_of_the_model():
    cropped, direct = section(), section()
    record = encoders.EncoderRecord("cnn", nn.Flatten, input_px=40, resize_px=48)
    stp.pp.embed(cropped, record)
    # as stored by a version that resized tiles to the input
    stp.pp.embed(direct, replace(record, resize_px=None))
    steps = [open_table(each, "table").steps.embed["X_cnn"] for each in (cropped, direct)]
    (difference,) = steps[0].differences(steps[1], subtiles=False)
    assert difference.startswith("mpp is 2.8, the model was trained with 2.33")


@pytest.mark.parametrize(
    ("encoder", "batch_size"),
    [
        ("texture", 4),
        *((encoder, b) for encoder in (mean_colour, colour_and_place, Pooled()) for b in (4, 64)),
    ],
)
def test_equals_encoding_crops(encoder, batch_size):
    sdata = section()
    stp.pp.embed(sdata, encoder, tile_um=72, n_subtiles=3, key_added="X_e", batch_size=batch_size)
    table = sdata.tables["table"]
    loaded = encoders.load(encoder, name="e")
    tiles = crops(sdata, 144)  # 0.5 µm per pixel: nothing is resampled
    assert (tiles[0, :, :72] == 255).all()
    np.testing.assert_allclose(table.obsm["X_e"], loaded(tiles).numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        table.obsm["X_e_subtiles"], by_hand(tiles, 3, loaded), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("n_subtiles", [2, 4])
def test_subtiles_row_by_row(n_subtiles):
    # red grows to the right, green downwards
    x, y = np.meshgrid(np.arange(200), np.arange(200))
    image = np.stack([x, y, np.zeros_like(x)], axis=2).astype(np.uint8)
    sdata = section(size=(200, 200), image=image, n=1, xy=np.array([[70.0, 130.0]]))
    stp.pp.embed(sdata, mean_colour, tile_um=20, n_subtiles=n_subtiles)
    parts = sdata.tables["table"].obsm["X_mean_colour_subtiles"][0] * 255
    red, green = parts[:, 0].reshape(n_subtiles, -1), parts[:, 1].reshape(n_subtiles, -1)
    np.testing.assert_allclose(np.diff(red, axis=1), 40 // n_subtiles, atol=1e-3)
    np.testing.assert_allclose(np.diff(green, axis=0), 40 // n_subtiles, atol=1e-3)
    # pixel i covers [i, i + 1)
    np.testing.assert_allclose([red.mean(), green.mean()], [69.5, 129.5], atol=1e-3)


def test_one_subtile_means_none():
    sdata = section()
    stp.pp.embed(sdata, mean_colour, tile_um=40, n_subtiles=3)
    stp.pp.embed(sdata, mean_colour, tile_um=30, n_subtiles=1)
    table = sdata.tables["table"]
    assert set(table.obsm) == {"spatial", "X_mean_colour"}  # those of other tiles are gone
    np.testing.assert_allclose(
        table.obsm["X_mean_colour"], crops(sdata, 60).float().mean((-2, -1)) / 255, rtol=1e-5
    )
    assert _provenance.recorded(table, "embed")["X_mean_colour"]["n_subtiles"] == 1


def test_several_embeddings_coexist():
    sdata = section()
    stp.pp.embed(sdata, mean_colour, tile_um=40, n_subtiles=3)
    stp.pp.embed(sdata, mean_colour, tile_um=60, n_subtiles=3, key_added="X_wide")
    stp.pp.embed(sdata, colour_and_place, tile_um=72, n_subtiles=3, key_added="X_mine")
    table = sdata.tables["table"]
    recorded = _provenance.recorded(table, "embed")
    tile_um = {k: v["tile_um"] for k, v in recorded.items() if k != "stpredict_version"}
    assert tile_um == {"X_mean_colour": 40.0, "X_wide": 60.0, "X_mine": 72.0}
    assert {*tile_um, *(f"{k}_subtiles" for k in tile_um)} <= set(table.obsm)


def test_sections_of_different_resolution_are_seen_at_one_scale():
    rng = np.random.default_rng(1)
    coarse = np.kron(rng.integers(0, 256, (20, 24, 3)), np.ones((10, 10, 1))).astype(np.uint8)
    fine = np.kron(coarse, np.ones((2, 2, 1))).astype(np.uint8)
    parts = []
    for name, image, mpp in (("S1", coarse, 1.0), ("S2", fine, 0.5)):
        xy = np.random.default_rng(2).uniform(60, 140, (8, 2)).round() / mpp
        parts.append(
            assemble_section(
                name,
                image=image,
                counts=np.ones((8, 1)),
                obs_names=[f"s{i}" for i in range(8)],
                var_names=["A"],
                positions=xy,
                mpp=mpp,
                diameter_um=10,
            )
        )
    sdata = stp.io.concat(parts)
    sides = set()

    def recorder(tiles):
        sides.add(tuple(tiles.shape[-2:]))
        return mean_colour(tiles)

    stp.pp.embed(sdata, recorder, tile_um=60, n_subtiles=2)
    table = sdata.tables["table"]
    # the same tissue, in µm, at the same number of pixels (224: a dry run)
    assert sides - {(224, 224)} == {(120, 120), (60, 60)}
    first = (table.obs["region"] == "S1").to_numpy()
    for slot in ("X_recorder", "X_recorder_subtiles"):
        np.testing.assert_allclose(
            table.obsm[slot][first], table.obsm[slot][~first], atol=1.5 / 255
        )
    together = table.obsm["X_recorder"].copy()
    for part in parts:  # and as each section alone
        stp.pp.embed(part, recorder, tile_um=60, n_subtiles=2)
    alone = np.vstack([part.tables["table"].obsm["X_recorder"] for part in parts])
    np.testing.assert_allclose(together, alone, rtol=1e-6)


def test_rows_follow_the_table():
    sdata = section()
    stp.pp.embed(sdata, mean_colour, tile_um=40)
    expected = sdata.tables["table"].to_df().index
    values = dict(zip(expected, sdata.tables["table"].obsm["X_mean_colour"], strict=True))
    shuffled = sdata.tables["table"][np.random.default_rng(0).permutation(9)].copy()
    del shuffled.obsm["X_mean_colour"]
    other = sd.SpatialData.init_from_elements(
        {**dict(sdata.images), **dict(sdata.shapes), "table": shuffled}
    )
    stp.pp.embed(other, mean_colour, tile_um=40)
    for name, row in zip(shuffled.obs_names, shuffled.obsm["X_mean_colour"], strict=True):
        np.testing.assert_allclose(row, values[name], rtol=1e-6)


def test_encoder_with_an_input_size():
    side = []

    def build():
        class Network(nn.Module):
            def forward(self, tiles):
                side.append(tiles.shape[-1])
                return mean_colour(tiles)

        return Network()

    record = encoders.EncoderRecord("sized", build, dimension=3, input_px=32)
    sdata = section()
    stp.pp.embed(sdata, record, tile_um=48, n_subtiles=3)
    table = sdata.tables["table"]
    assert set(side) == {32}
    assert table.obsm["X_sized_subtiles"].shape == (9, 9, 3)
    assert _provenance.recorded(table, "embed")["X_sized"]["mpp"] == 1.5
    # sub-tiles keep the detail of the image: 32 of its own pixels each, not 32 / 3 enlarged
    np.testing.assert_allclose(
        table.obsm["X_sized_subtiles"],
        by_hand(crops(sdata, 96), 3, encoders.load(mean_colour)),
        rtol=1e-4,
    )


def test_same_input_same_result():
    first, second = section(), section()
    for sdata in (first, second):
        stp.pp.embed(sdata, Pooled(), tile_um=72, n_subtiles=3)
    for slot in ("X_pooled", "X_pooled_subtiles"):
        np.testing.assert_array_equal(
            first.tables["table"].obsm[slot], second.tables["table"].obsm[slot]
        )
    stp.pp.embed(first, Pooled(), tile_um=72, n_subtiles=3)  # and again
    np.testing.assert_array_equal(
        first.tables["table"].obsm["X_pooled"], second.tables["table"].obsm["X_pooled"]
    )


def test_survives_zarr(tmp_path):
    sdata = section(size=(1100, 1200))
    stp.pp.embed(sdata, mean_colour, tile_um=72, n_subtiles=3)
    sdata.write(tmp_path / "a.zarr")
    back = sd.read_zarr(tmp_path / "a.zarr")
    table, read = sdata.tables["table"], back.tables["table"]
    for slot in ("X_mean_colour", "X_mean_colour_subtiles"):
        assert read.obsm[slot].dtype == np.float32
        np.testing.assert_array_equal(table.obsm[slot], read.obsm[slot])
    assert _provenance.recorded(table, "embed") == _provenance.recorded(read, "embed")
    # from the zarr's own chunks, the same
    stp.pp.embed(back, mean_colour, tile_um=72, key_added="X_again")
    np.testing.assert_array_equal(read.obsm["X_again"], table.obsm["X_mean_colour"])


def test_misalignment_moves_the_tiles():
    from spatialdata.transformations import Scale, Sequence, Translation, set_transformation

    xy = np.random.default_rng(1).uniform(30, 200, (9, 2))
    sdata, moved = section(xy=xy), section(xy=xy)
    steps = [Scale([0.5, 0.5], ("x", "y")), Translation([7.0, -3.0], ("x", "y"))]
    set_transformation(moved.shapes["S1"], Sequence(steps), "S1_um")
    stp.pp.embed(moved, mean_colour, tile_um=20)
    np.testing.assert_allclose(
        moved.tables["table"].obsm["X_mean_colour"],
        encoders.load(mean_colour)(crops(moved, 40)).numpy(),
        rtol=1e-5,
    )
    stp.pp.embed(sdata, mean_colour, tile_um=20)
    assert not np.allclose(
        sdata.tables["table"].obsm["X_mean_colour"], moved.tables["table"].obsm["X_mean_colour"]
    )


def test_copy():
    sdata = section()
    changed = stp.pp.embed(sdata, mean_colour, tile_um=40, copy=True)
    assert isinstance(changed, sd.SpatialData)
    assert "X_mean_colour" in changed.tables["table"].obsm
    assert set(sdata.tables["table"].obsm) == {"spatial"}
    assert "stpredict" not in sdata.tables["table"].uns
    assert stp.pp.embed(sdata, mean_colour, tile_um=40) is None


def not_finite(tiles):
    return torch.full((len(tiles), 2), torch.nan)


def feature_map(tiles):
    return tiles


@pytest.mark.parametrize(
    ("encoder", "options", "error", "message"),
    [
        (mean_colour, {"tile_um": 0}, ValueError, r"tile_um must be a number above 0 \(µm\): 0"),
        (mean_colour, {"tile_um": "40"}, TypeError, "tile_um must be a finite number, not str"),
        (mean_colour, {"n_subtiles": 0}, ValueError, "n_subtiles must be a whole number of at le"),
        (mean_colour, {"n_subtiles": 2.0}, ValueError, "n_subtiles must be a whole number"),
        (mean_colour, {"batch_size": 0}, ValueError, "batch_size must be .* at least 1: 0"),
        (mean_colour, {"batch_size": -1}, ValueError, "batch_size must be .* at least 1: -1"),
        (mean_colour, {"batch_size": None}, TypeError, "batch_size must be a whole number"),
        (mean_colour, {"device": "gpu"}, ValueError, "device='gpu' is not available"),
        (
            mean_colour,
            {"tile_um": 131},
            ValueError,
            r"a tile of 131 µm is 262 px at 0.5 µm per pixel, larger than the image of section "
            r"'S1' \(340 × 260 px\)",
        ),
        (mean_colour, {"tile_um": 10, "n_subtiles": 30}, ValueError, "n_subtiles=30: .* 20 px"),
        ("textures", {}, KeyError, "texture"),
        (lambda tiles: tiles.mean((-2, -1)), {}, ValueError, "lambda"),
        (not_finite, {}, ValueError, "returned NaN or infinity"),
        (feature_map, {}, ValueError, "instead of a tensor"),
        (3, {}, TypeError, "encoder must be a string or .* not int: 3"),
    ],
)
def test_bad_input(encoder, options, error, message):
    sdata = section()
    with pytest.raises(error, match=message):
        stp.pp.embed(sdata, encoder, **{"tile_um": 40, **options})
    assert set(sdata.tables["table"].obsm) == {"spatial"}
    assert "stpredict" not in sdata.tables["table"].uns


def test_a_failure_keeps_the_earlier_embedding():
    sdata = section()
    stp.pp.embed(sdata, mean_colour, tile_um=40)
    before = sdata.tables["table"].obsm["X_mean_colour"].copy()
    with pytest.raises(ValueError, match="larger than the image"):
        stp.pp.embed(sdata, mean_colour, tile_um=4000)
    np.testing.assert_array_equal(sdata.tables["table"].obsm["X_mean_colour"], before)
    assert _provenance.recorded(sdata.tables["table"], "embed")["X_mean_colour"]["tile_um"] == 40


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile_um": 40, "n_subtiles": 3}, r"n_subtiles=3: the sub-tiles .* 40 µm, .* are 26 px"),
        ({"tile_um": 20}, r"^tiles of 20 µm, read at 40 px, are 40 px wide"),
    ],
)
def test_tiles_too_small_for_the_encoder_are_refused(options, message):
    sdata = section()
    with pytest.raises(ValueError, match=rf"{message}.*'texture' needs 48 px. Increase tile_um="):
        stp.pp.embed(sdata, "texture", **options)
    assert set(sdata.tables["table"].obsm) == {"spatial"}
