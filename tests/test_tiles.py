"""The tile reader equals slicing, reads each chunk once, and picks the right level."""

from __future__ import annotations

from collections import Counter

import dask.array as da
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from stpredict import tiles
from stpredict.nn._tiles import split_tiles

EXAMPLES = settings(max_examples=40, deadline=None)


def naive_window(image, corner, side):
    """One window: white, with the part of the image that overlaps it copied row by row."""
    window = np.full((3, side, side), 255, dtype=np.uint8)
    x, y = corner
    for row in range(max(0, -y), min(side, image.shape[1] - y)):
        left, right = max(0, -x), min(side, image.shape[2] - x)
        if left < right:
            window[:, row, left:right] = image[:, y + row, x + left : x + right]
    return window


def read_all(windows, *, tile_px, batch_size):
    """All tiles in the order of the centres, and the order in which they were read."""
    n = len(windows.corners)
    read = torch.zeros((n, 3, tile_px, tile_px), dtype=torch.uint8)
    order = []
    for rows, batch in tiles.read_tiles(windows, tile_px=tile_px, batch_size=batch_size):
        assert batch.dtype == torch.uint8
        assert 0 < len(rows) <= batch_size
        read[rows] = batch
        order.extend(rows.tolist())
    assert sorted(order) == list(range(n))
    return read.numpy(), order


def random_image(height, width, *, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (3, height, width), dtype=np.uint8)


@st.composite
def axis(draw):
    """Chunks of one axis, of different sizes."""
    return tuple(draw(st.lists(st.integers(1, 30), min_size=1, max_size=4)))


@EXAMPLES
@given(
    chunks_y=axis(),
    chunks_x=axis(),
    channels=st.sampled_from([(3,), (1, 1, 1), (2, 1)]),
    centers=st.lists(st.tuples(st.floats(-40, 140), st.floats(-40, 140)), max_size=12),
    side=st.integers(1, 45),
    batch_size=st.integers(1, 5),
    cache_bytes=st.sampled_from([0, 2000, 2**29]),
)
def test_tiles_equal_slices_of_the_image(
    chunks_y, chunks_x, channels, centers, side, batch_size, cache_bytes
):
    image = random_image(sum(chunks_y), sum(chunks_x))
    level = da.from_array(image, chunks=(channels, chunks_y, chunks_x))
    positions = np.array(centers, dtype=float).reshape(-1, 2)
    windows = tiles.tile_windows([level], positions, side=side, tile_px=side)
    assert windows.side == side
    # the centre of a window is the spot, to half a pixel
    np.testing.assert_array_less(np.abs(windows.corners + side / 2 - positions), 0.5 + 1e-9)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "CACHE_BYTES", cache_bytes)
        read, _ = read_all(windows, tile_px=side, batch_size=batch_size)
    for tile, corner in zip(read, windows.corners, strict=True):
        np.testing.assert_array_equal(tile, naive_window(image, corner, side))


@EXAMPLES
@given(
    height=st.integers(40, 120),
    width=st.integers(40, 120),
    side=st.floats(4, 60),
    tile_px=st.integers(2, 40),
    seed=st.integers(0, 99),
)
def test_tiles_of_a_pyramid_equal_slices_of_the_level(height, width, side, tile_px, seed):
    rng = np.random.default_rng(seed)
    images = [random_image(height >> k, width >> k, seed=k) for k in range(3)]
    levels = [da.from_array(image, chunks=(3, 16, 16)) for image in images]
    centers = rng.uniform(0, (width, height), (6, 2))
    windows = tiles.tile_windows(levels, centers, side=side, tile_px=tile_px)
    read, _ = read_all(windows, tile_px=tile_px, batch_size=4)

    # the coarsest level with a pixel for every pixel of the tile, else the finest
    scales = [max(height, width) / max(image.shape[1:]) for image in images]
    fine_enough = [k for k, scale in enumerate(scales) if side / scale >= 0.99 * tile_px]
    index = fine_enough[-1] if fine_enough else 0
    assert windows.level is levels[index]
    in_level = max(1, round(side / scales[index]))
    crops = np.stack(
        [
            naive_window(
                images[index], np.rint(c / scales[index] - in_level / 2).astype(int), in_level
            )
            for c in centers
        ]
    )
    expected = torch.from_numpy(crops)
    if in_level != tile_px:
        # in floating point, so that torch's own arithmetic in 8 bits may round differently
        expected = functional.interpolate(
            expected.float(), (tile_px, tile_px), mode="bilinear", antialias=True
        )
    np.testing.assert_allclose(read.astype(float), expected.numpy(), atol=1.01)


@pytest.mark.parametrize(
    ("side", "level"), [(100, 0), (221, 0), (224, 0), (447, 1), (448, 1), (896, 2), (5000, 2)]
)
def test_tiles_are_read_from_the_coarsest_level_that_is_fine_enough(side, level):
    # pyramids round their sizes: 927 px become 463, 231
    levels = [da.zeros((3, size, size), dtype=np.uint8) for size in (927, 463, 231)]
    windows = tiles.tile_windows(levels, np.array([[400.0, 200.0]]), side=side, tile_px=224)
    assert windows.level is levels[level]
    scale = 927 / levels[level].shape[2]
    assert windows.side == round(side / scale)
    np.testing.assert_allclose(
        (windows.corners[0] + windows.side / 2) * scale, [400, 200], atol=0.51 * scale
    )


@pytest.mark.parametrize(
    ("downsampling", "finer", "coarser"),
    [(0.5, 0, 0), (1, 0, 0), (1.9, 0, 1), (2, 1, 1), (2.5, 1, 2), (4, 2, 2), (50, 2, 2)],
)
def test_a_level_is_picked_by_its_downsampling(downsampling, finer, coarser):
    levels = [np.zeros((3, 4, width)) for width in (927, 463, 231)]
    for rounding, index in (("finer", finer), ("coarser", coarser)):
        level, factor = tiles.pick_level(levels, downsampling, rounding=rounding)
        assert level is levels[index]
        assert factor == 927 / level.shape[2]


class CountingImage:
    """An image that counts how often each of its chunks is decoded."""

    def __init__(self, image):
        self.image, self.shape, self.dtype, self.ndim = image, image.shape, image.dtype, 3
        self.decoded = Counter()

    def __getitem__(self, window):
        pixels = self.image[window]
        if pixels.size:
            self.decoded[tuple(part.start for part in window)] += 1
        return pixels


@pytest.mark.parametrize("shape", [(1607, 2003), (5003, 83), (83, 5003)])
@pytest.mark.parametrize("magnification", [1, 4, 16])
def test_tiles_are_centred_in_levels_whose_sizes_are_rounded(shape, magnification):
    """A scanner's levels, a fourth each, with dark squares: tiles around them have them inside."""
    height, width = shape
    centers = np.array([[0.1, 0.1], [0.5, 0.5], [0.9, 0.9]]) * (width, height)
    side = 16 * magnification
    image = np.full((3, height, width), 255, dtype=np.uint8)
    y, x = np.mgrid[:height, :width]
    for center in centers:
        image[:, np.maximum(abs(x - center[0]), abs(y - center[1])) < side / 2] = 0
    levels = [image]
    for _ in range(2):
        finer = levels[-1]
        means = finer[:, : finer.shape[1] // 4 * 4, : finer.shape[2] // 4 * 4]
        means = means.reshape(3, finer.shape[1] // 4, 4, finer.shape[2] // 4, 4).mean((2, 4))
        levels.append(means.astype(np.uint8))
    windows = tiles.tile_windows([*map(da.from_array, levels)], centers, side=2 * side, tile_px=32)
    assert windows.level.shape == levels[{1: 0, 4: 1, 16: 2}[magnification]].shape
    read, _ = read_all(windows, tile_px=32, batch_size=8)
    for tile, (center_x, center_y) in zip(read, centers, strict=True):
        rows, columns = np.nonzero(tile[0] < 128)
        # whole pixels of the level, and as far as the square lies inside the image
        if side / 2 < center_y < height - side:
            assert abs(rows.mean() - 15.5) <= 1.5
        if side / 2 < center_x < width - side:
            assert abs(columns.mean() - 15.5) <= 1.5


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_each_chunk_is_decoded_once(batch_size):
    counted = CountingImage(random_image(192, 320))
    level = da.from_array(counted, chunks=(3, 64, 64), asarray=False)
    centers = np.random.default_rng(1).uniform((0, 0), (320, 192), (120, 2))
    windows = tiles.tile_windows([level], centers, side=30, tile_px=30)
    counted.decoded.clear()
    read_all(windows, tile_px=30, batch_size=batch_size)
    assert len(counted.decoded) == 3 * 5
    assert set(counted.decoded.values()) == {1}


def test_chunks_without_tiles_are_not_decoded():
    counted = CountingImage(random_image(256, 256))
    level = da.from_array(counted, chunks=(3, 64, 64), asarray=False)
    windows = tiles.tile_windows([level], np.array([[96.0, 96], [100, 90]]), side=20, tile_px=20)
    counted.decoded.clear()
    read_all(windows, tile_px=20, batch_size=64)
    assert counted.decoded == {(0, 64, 64): 1}


def test_a_small_cache_decodes_few_chunks_twice():
    counted = CountingImage(random_image(512, 512))
    level = da.from_array(counted, chunks=(3, 64, 64), asarray=False)
    centers = np.random.default_rng(2).uniform(0, 512, (400, 2))
    windows = tiles.tile_windows([level], centers, side=20, tile_px=20)
    counted.decoded.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "CACHE_BYTES", 2 * 8 * 3 * 64 * 64)  # two rows of chunks
        read_all(windows, tile_px=20, batch_size=8)
    assert len(counted.decoded) == 64
    assert sum(counted.decoded.values()) <= 1.5 * 64


def test_tiles_are_read_chunk_by_chunk():
    level = da.zeros((3, 256, 256), chunks=(3, 64, 64), dtype=np.uint8)
    centers = np.random.default_rng(3).uniform(0, 256, (200, 2))
    windows = tiles.tile_windows([level], centers, side=8, tile_px=8)
    _, order = read_all(windows, tile_px=8, batch_size=16)
    chunk = (windows.corners[order] + 4) // 64
    changes = np.count_nonzero((np.diff(chunk, axis=0) != 0).any(axis=1))
    assert changes == len(np.unique(chunk, axis=0)) - 1


def test_no_centres_give_no_batches():
    windows = tiles.tile_windows(
        [da.zeros((3, 9, 9), dtype=np.uint8)], np.zeros((0, 2)), side=4, tile_px=4
    )
    assert list(tiles.read_tiles(windows, tile_px=4)) == []


def test_an_error_while_decoding_is_raised():
    def broken(block):
        if block.size:
            raise OSError("the file is cut off")
        return block

    level = da.zeros((3, 32, 32), dtype=np.uint8).map_blocks(broken, dtype=np.uint8)
    windows = tiles.tile_windows([level], np.array([[16.0, 16]]), side=8, tile_px=8)
    with pytest.raises(OSError, match="the file is cut off"):
        list(tiles.read_tiles(windows, tile_px=8))


def test_a_reader_may_stop_early():
    level = da.from_array(random_image(64, 64), chunks=(3, 16, 16))
    centers = np.random.default_rng(4).uniform(0, 64, (50, 2))
    reader = tiles.read_tiles(
        tiles.tile_windows([level], centers, side=8, tile_px=8), tile_px=8, batch_size=4
    )
    rows, batch = next(reader)
    assert len(rows) == len(batch) == 4
    reader.close()


@EXAMPLES
@given(side=st.integers(1, 50), n=st.integers(1, 6), b=st.integers(1, 3))
def test_subtiles_equal_slices_of_the_tile(side, n, b):
    n = min(n, side)
    batch = torch.randint(0, 256, (b, 3, side, side), dtype=torch.uint8)
    parts = split_tiles(batch, n)
    small = side // n
    rest = (side - small * n) // 2
    assert parts.shape == (b, n * n, 3, small, small)
    for k in range(n * n):
        top, left = rest + (k // n) * small, rest + (k % n) * small  # row by row
        torch.testing.assert_close(
            parts[:, k], batch[:, :, top : top + small, left : left + small], rtol=0, atol=0
        )
