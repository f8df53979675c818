"""Embeddings are stored under everything they depend on, and used again."""

from __future__ import annotations

import errno
import os

import dask.array as da
import numpy as np
import pytest
import spatialdata as sd
import tifffile
import torch
from PIL import Image
from spatialdata.models import Image2DModel
from spatialdata.transformations import Scale

import stpredict as stp
from stpredict import encoders
from stpredict._sdata import _elements
from stpredict._sdata._spot_table import open_table
from stpredict.encoders import _cache
from stpredict.encoders._content import content_of
from stpredict.encoders._embed import embed_section
from stpredict.io._shared._assemble import assemble_section
from stpredict.io._shared._image import open_image

#: Number of tiles of each batch that the encoder of the tests has seen.
CALLS: list[int] = []
#: Number of batches after which the encoder is interrupted.
LIMIT = [np.inf]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(stp.settings, "verbosity", 0)
    monkeypatch.setattr(stp.settings, "cache_dir", tmp_path / "cache")
    CALLS.clear()
    return tmp_path / "cache" / "embeddings"


def colour(tiles):
    if len(CALLS) >= LIMIT[0]:
        raise KeyboardInterrupt
    CALLS.append(len(tiles))
    return torch.cat([tiles.mean((-2, -1)), tiles.std((-2, -1))], dim=1)


def embedded():
    """Tiles that were embedded since the last call, without those that measure the encoder."""
    n_tiles = sum(n for n in CALLS if n > 2)
    CALLS.clear()
    return n_tiles


def section(*, seed=0, xy=None):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (300, 400, 3), dtype=np.uint8)
    xy = rng.uniform((60, 60), (340, 240), (30, 2)) if xy is None else xy
    return assemble_section(
        "S1", image=image, counts=np.ones((len(xy), 2)), positions=xy, mpp=0.5, diameter_um=10,
        obs_names=[f"s{i}" for i in range(len(xy))], var_names=["A", "B"],
    )  # fmt: skip


def embed(sdata, encoder=colour, **options):
    """Embed from the cache; returns the embeddings and how many tiles were computed."""
    CALLS.clear()
    options = {"tile_um": [20, 40], "n_subtiles": 2, "key_added": "X_colour", **options}
    stp.pp.embed(sdata, encoder, cache=True, **options)
    obsm = sdata["table"].obsm
    n_tiles = embedded()
    values = [obsm["X_colour"].copy()]
    if options["n_subtiles"] > 1:
        values.append(obsm["X_colour_subtiles"].reshape(len(values[0]), -1))
    return np.hstack(values), n_tiles


def uncached(sdata, **options):
    stp.pp.embed(sdata, colour, tile_um=[20, 40], n_subtiles=2, key_added="X_plain", **options)
    obsm = sdata["table"].obsm
    flat = obsm["X_plain_subtiles"].reshape(len(obsm["X_plain"]), -1)
    return np.hstack([obsm["X_plain"], flat])


def test_a_second_call_computes_nothing_and_is_identical(folder):
    first, n_first = embed(section())
    again, n_again = embed(section())
    assert n_first == 30 * 6  # two fields and four sub-tiles
    assert n_again == 0
    np.testing.assert_array_equal(again, first)
    np.testing.assert_array_equal(uncached(section()), first)
    (path,) = folder.rglob("*.*")
    with np.load(path, allow_pickle=False) as arrays:
        assert arrays["values"].dtype == np.float32
        assert arrays["values"].shape == (30, 36)


def test_without_cache_nothing_is_stored_or_read(folder):
    uncached(section())
    assert not folder.exists()


def test_named_encoders_are_stored_with_one_field():
    results = []
    for _ in range(2):
        sdata = section()
        stp.pp.embed(sdata, "texture", tile_um=30, cache=True)
        results.append(sdata["table"].obsm["X_texture"])
    np.testing.assert_array_equal(*results)


def test_images_on_disk_are_recognised_by_their_bytes(tmp_path):
    section().write(tmp_path / "a.zarr")
    first, n_first = embed(sd.read_zarr(tmp_path / "a.zarr"))
    again, n_again = embed(sd.read_zarr(tmp_path / "a.zarr"))
    assert (n_first, n_again) == (180, 0)
    np.testing.assert_array_equal(again, first)
    # another image in the same file, with the same times
    files = [path for path in (tmp_path / "a.zarr" / "images").rglob("*") if path.is_file()]
    times = {path: path.stat() for path in files}
    other = section(seed=1)
    other.write(tmp_path / "b.zarr")
    for path, stat in times.items():
        source = tmp_path / "b.zarr" / path.relative_to(tmp_path / "a.zarr")
        path.write_bytes(source.read_bytes())
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    changed, n_changed = embed(sd.read_zarr(tmp_path / "a.zarr"))
    assert n_changed == 180
    np.testing.assert_array_equal(changed, uncached(sd.read_zarr(tmp_path / "a.zarr")))


def brightened(block):
    """Computed by a function that dask knows by its name only."""
    return np.where(np.indices(block.shape)[1] < EDGE, 255 - block, block)


EDGE = 0


def test_images_that_a_function_computes_are_compared_by_their_pixels():
    def changed_image():
        sdata = section()
        level = _elements.levels_of(sdata, "S1_image")[0].rechunk(-1)
        image = level.map_blocks(brightened, dtype=np.uint8, name=f"brightened-{EDGE == -1}")
        element = Image2DModel.parse(
            image, dims=("c", "y", "x"), c_coords=["r", "g", "b"],
            transformations={"S1_um": Scale([0.5, 0.5], ("x", "y"))},
        )  # fmt: skip
        del sdata.images["S1_image"]
        sdata.images["S1_image"] = element
        return sdata

    global EDGE
    section_levels = open_table(changed_image()).sections[0].levels
    assert content_of(section_levels[0]) is None
    assert embed(changed_image())[1] == 180
    assert embed(changed_image())[1] == 0
    try:
        EDGE = 100  # the same name in dask, but other pixels in the upper part
        values, n_tiles = embed(changed_image())
        expected = uncached(changed_image())
    finally:
        EDGE = 0
    # only tiles that reach into it are computed
    y = open_table(section()).sections[0].centers[:, 1]
    assert 0 < n_tiles <= 6 * (y < 141).sum() < 180
    np.testing.assert_allclose(values, expected, atol=1e-6)


def test_only_new_spots_are_embedded():
    sdata = section()
    first, _ = embed(sdata)
    rows = np.random.default_rng(1).permutation(30)[:12]
    part = open_table(sdata).subset(rows).sdata
    values, n_tiles = embed(part)
    assert n_tiles == 0
    np.testing.assert_array_equal(values, first[np.sort(rows)])
    centers = open_table(sdata).sections[0].centers
    more = np.vstack([centers[:7], centers[:3] + 25])
    values, n_tiles = embed(section(xy=more))
    assert n_tiles == 3 * 6
    np.testing.assert_array_equal(values[:7], first[:7])


def scaled(factor):
    def function(tiles):
        CALLS.append(len(tiles))
        return tiles.mean((-2, -1)) * factor

    return function


class Weighted(torch.nn.Module):
    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.linear = torch.nn.Linear(3, 2)

    def forward(self, tiles):
        CALLS.append(len(tiles))
        return self.linear(tiles.mean((-2, -1)))


def thresholded(tiles, threshold=0.5):
    CALLS.append(len(tiles))
    return (tiles > threshold).float().mean((-2, -1))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"encoder": scaled(1.0)}, {"encoder": scaled(2.0)}),
        ({"encoder": Weighted(0)}, {"encoder": Weighted(1)}),
        ({"encoder": thresholded}, {"encoder": lambda tiles: thresholded(tiles, 0.500001)}),
        ({"tile_um": [20, 40]}, {"tile_um": [20, 41]}),
        ({"tile_um": [20, 40]}, {"tile_um": 20}),
        ({"n_subtiles": 2}, {"n_subtiles": 3}),
        ({"n_subtiles": 1}, {"n_subtiles": 2}),
    ],
)
def test_other_encoders_and_tiles_are_computed(first, second):
    for options in (first, second):
        assert embed(section(), **options)[1] > 0
        assert embed(section(), **options)[1] == 0


def test_another_scale_is_computed():
    sdata = section()
    levels, centers = open_table(sdata).sections[0].levels, open_table(sdata).sections[0].centers
    encoder = encoders.load(colour)
    for mpp in (0.5, 0.6):
        for n_tiles in (30, 0):
            embed_section(
                levels, centers, encoder, mpp=mpp, fields_um=[20.0], n_subtiles=1, cache=True
            )
            assert embedded() == n_tiles


def test_records_of_the_user_with_other_code_are_computed():
    def record(module):
        return encoders.EncoderRecord("mine", module, dimension=3, input_px=32)

    class First(torch.nn.Module):
        def forward(self, tiles):
            CALLS.append(len(tiles))
            return tiles.mean((-2, -1))

    class Second(torch.nn.Module):
        def forward(self, tiles):
            CALLS.append(len(tiles))
            return tiles.amax((-2, -1))

    for module in (First, Second):
        for n_tiles in (180, 0):
            assert embed(section(), record(module))[1] == n_tiles


def test_an_interrupted_call_continues(monkeypatch):
    monkeypatch.setattr(_cache, "_SECONDS", 0.0)
    LIMIT[0] = 20
    sdata = section()
    try:
        with pytest.raises(KeyboardInterrupt):
            embed(sdata, batch_size=4)
    finally:
        LIMIT[0] = np.inf
    assert "X_colour" not in sdata["table"].obsm
    values, n_tiles = embed(section(), batch_size=4)
    assert 0 < n_tiles < 180
    np.testing.assert_allclose(values, uncached(section()), atol=1e-6)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"no archive"),
        lambda path: path.write_bytes(path.read_bytes()[:-50]),
        lambda path: path.write_bytes(flipped(path.read_bytes(), 1500)),
        lambda path: write_array(path),
        lambda path: write(path),
        lambda path: write(path, values=np.ones((30, 7), "f4")),
        lambda path: write(path, values=np.ones((30, 36), "f8")),
        lambda path: write(path, values=np.full((30, 36), np.nan, "f4")),
    ],
)
def test_a_damaged_file_is_reported_and_computed_again(folder, damage):
    first, _ = embed(section())
    (path,) = folder.rglob("*.npz")
    damage(path)
    with pytest.warns(UserWarning, match=f"{path.name} are damaged and computed again"):
        values, n_tiles = embed(section())
    assert n_tiles == 180
    np.testing.assert_array_equal(values, first)
    assert embed(section())[1] == 0


def flipped(content, place):
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def write(path, **arrays):
    with path.open("wb") as file:
        np.savez(file, ids=np.zeros((30, 16), "u1"), **arrays)


def write_array(path):
    with path.open("wb") as file:
        np.save(file, np.ones(3))


def test_a_folder_that_cannot_be_written_is_reported_before_embedding(tmp_path):
    (tmp_path / "file").write_text("")
    stp.settings.cache_dir = tmp_path / "file" / "cache"
    sdata = section()
    with pytest.raises(OSError, match=r"cache folder '.*' cannot be written .*settings\.cache_dir"):
        stp.pp.embed(sdata, colour, tile_um=20, cache=True)
    assert CALLS == []
    assert "X_colour" not in sdata["table"].obsm


def test_a_disk_that_fills_up_does_not_stop_the_embedding(monkeypatch):
    def full(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(_cache, "replaced_binary", full)
    with pytest.warns(UserWarning, match=r"cannot be stored in .* \(No space left on device\)"):
        values, _ = embed(section())
    np.testing.assert_array_equal(values, uncached(section()))


def test_two_processes_may_use_one_folder():
    sdata = section()
    level = open_table(sdata).sections[0].levels[:1]
    centers = open_table(sdata).sections[0].centers
    windows = [stp.tiles.tile_windows(level, centers, side=40, tile_px=40)]
    encoder = encoders.load(colour)
    rows = np.arange(30)
    values = np.random.default_rng(0).random((30, 6)).astype(np.float32)
    with (
        _cache.stored_tiles(encoder, windows, centers, width=6) as first,
        _cache.stored_tiles(encoder, windows, centers, width=6) as second,
    ):
        first.add(rows[:20], [], values)
        second.add(rows[10:], [], values)
    with _cache.stored_tiles(encoder, windows, centers, width=6) as stored:
        filled = np.zeros_like(values)
        assert stored.fill(rows, [], filled).all()
    np.testing.assert_array_equal(filled, values)


def test_prepare_uses_stored_embeddings():
    sdata = section()
    first, _ = embed(sdata, n_subtiles=1)
    model = stp.tl.fit_ridge(
        sdata, embedding="X_colour", context="spot", genes=["A"], layer=None, alpha=1.0
    )
    new = section()
    CALLS.clear()
    stp.pp.prepare(new, model, encoder=colour, cache=True)
    assert embedded() == 0
    np.testing.assert_array_equal(new["table"].obsm["X_colour"], first)


def test_equal_tiles_keep_one_embedding():
    image = np.full((200, 200, 3), 255, dtype=np.uint8)
    sdata = assemble_section(
        "S1", image=image, counts=np.ones((5, 2)), obs_names=list("abcde"), var_names=["A", "B"],
        positions=np.linspace(60, 140, 10).reshape(5, 2), mpp=0.5, diameter_um=10,
    )  # fmt: skip
    level = _elements.levels_of(sdata, "S1_image")[0].map_blocks(lambda block: block)
    encoder = encoders.load(colour)
    options = {"mpp": 0.5, "fields_um": [20.0], "n_subtiles": 1, "cache": True}
    centers = open_table(sdata).sections[0].centers
    first, _ = embed_section((level,), centers, encoder, **options)
    again, _ = embed_section((level,), centers[::-1], encoder, **options)
    assert len(np.unique(first, axis=0)) == 1
    np.testing.assert_array_equal(first, again)


def test_content_is_that_of_the_file_and_of_the_part_that_is_read(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (200, 220, 3), dtype=np.uint8)
    path = tmp_path / "image.png"
    Image.fromarray(image).save(path)
    level, again = (open_image(path).levels[0] for _ in range(2))
    assert content_of(level) == content_of(again)
    assert content_of(level) is not None
    assert content_of(level[:, 10:110, :100]) != content_of(level[:, :100, :100])
    assert content_of(255 - level) is None
    assert content_of(da.where(level > 9, level, 0)) is None
    assert content_of(da.from_array(image, chunks=50)) != content_of(da.from_array(image + 1, 50))
    # a file of the same name, size and time
    stat = path.stat()
    before = content_of(level)
    Image.fromarray(255 - image).save(path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert content_of(open_image(path).levels[0]) != before


def test_slides_of_scanners_are_recognised_by_their_file(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    text = "Aperio Image Library v11.2.1\r\n256x256 [0,0 256x256] (64x64)|AppMag = 20|MPP = 0.5"
    options = {"description": text, "compression": "jpeg", "photometric": "rgb", "metadata": None}
    contents = []
    for image in (pixels, pixels, 255 - pixels):
        with tifffile.TiffWriter(tmp_path / "a.svs") as file:
            file.write(image, tile=(64, 64), **options)
            file.write(image[::8, ::8].copy(), **options)
        level = open_image(tmp_path / "a.svs").levels[0]
        assert level.name.startswith("_read_block-")
        contents.append(content_of(level))
    assert contents[0] == contents[1] != contents[2]
    assert None not in contents


@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.zarr", "memory"])
def test_images_of_readers_are_recognised_without_reading_pixels(tmp_path, name):
    image = np.random.default_rng(0).integers(0, 256, (1100, 300, 3), dtype=np.uint8)
    path = tmp_path / name
    if name == "a.tif":
        tifffile.imwrite(path, image, tile=(128, 128), photometric="rgb")
    elif name == "a.png":
        Image.fromarray(image).save(path)
    contents = []
    for _ in range(2):
        sdata = assemble_section(
            "S1", image=path if path.exists() and name != "a.zarr" else image, mpp=0.5,
            counts=np.ones((1, 1)), obs_names=["s"], var_names=["A"], diameter_um=10,
            positions=np.array([[100.0, 100.0]]),
        )  # fmt: skip
        if name == "a.zarr":
            sdata.write(path, overwrite=True)
            sdata = sd.read_zarr(path)
        # also the level that is computed from the finest
        contents.append([content_of(level) for level in open_table(sdata).sections[0].levels])
    assert contents[0] == contents[1]
    assert len(contents[0]) > 1
    assert None not in contents[0]
