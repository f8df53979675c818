"""Batches, streams and caches of tiles hold the pixels of the image."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile

import dask.array as da
import numpy as np
import pytest
import torch
from torch import nn

from stpredict.nn import TileCNN
from stpredict.nn._tiles import symmetry
from stpredict.tiles import read_tiles, tile_windows
from stpredict.training import Augmentation, Measured, Pixels, TileBatch, TileStream
from stpredict.training._pixels import cached

N, PX, G = 70, 8, 3
CPU = torch.device("cpu")


def tiles_of(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (N, 3, PX, PX), dtype=np.uint8)


def targets_of(seed=0):
    return Measured(np.random.default_rng(seed).normal(size=(N, G)).astype(np.float32))


def batched(tiles, batch_size=32):
    for start in range(0, len(tiles), batch_size):
        rows = np.arange(start, min(start + batch_size, len(tiles)))
        yield rows, torch.from_numpy(np.array(tiles[rows]))


def predicted(network, tiles, **options):
    """Predictions of a stream, in the order of the rows."""
    outputs = torch.full((N, G), torch.nan)
    for rows, values, members in TileStream(tiles, N, **options).walk(network, CPU):
        assert members is None
        outputs[rows] = values
    return outputs


class Positions(nn.Module):
    """A network that depends on the position of each pixel."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(3 * PX * PX, G)
        self.dropout = nn.Dropout(0.5)

    def forward(self, tiles):
        return self.dropout(self.linear(tiles.float().flatten(1) / 255))


def test_a_batch_holds_the_tiles_and_targets_of_its_rows():
    pixels, targets = Pixels(tiles_of()), targets_of()
    rows = np.array([5, 0, 69, 5])
    batch = pixels.batch(rows, targets)
    assert isinstance(batch, TileBatch)
    assert batch.tiles.dtype == torch.uint8
    assert np.array_equal(batch.tiles.numpy(), tiles_of()[rows])
    assert np.array_equal(batch.targets.numpy(), targets.targets[rows])
    assert batch.log_expected is None
    network = Positions().eval()
    assert torch.equal(batch.predict(network), network(batch.tiles))


def test_only_training_batches_are_augmented():
    pixels = Pixels(tiles_of(), Augmentation(flip=True, rotate=True, stain=0.2))
    rows, targets = np.arange(10), targets_of()
    assert np.array_equal(pixels.batch(rows, targets).tiles.numpy(), tiles_of()[rows])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        first = pixels.batch(rows, targets, training=True)
        second = pixels.batch(rows, targets, training=True)
        torch.manual_seed(3)
        repeated = pixels.batch(rows, targets, training=True)
    assert not np.array_equal(first.tiles.numpy(), tiles_of()[rows])
    assert not torch.equal(first.tiles, second.tiles)  # drawn for each batch
    assert torch.equal(first.tiles, repeated.tiles)
    assert torch.equal(first.targets, repeated.targets)
    assert np.array_equal(pixels.tiles, tiles_of())


def test_expected_counts_belong_to_their_rows():
    counts = Measured(
        np.ones((N, 2), dtype=np.float32),
        np.arange(N, dtype=np.float32),
        np.array([0.0, 0.5], dtype=np.float32),
    )
    batch = Pixels(tiles_of()).batch(np.array([4, 1]), counts)
    assert batch.log_expected.tolist() == [[4, 4.5], [1, 1.5]]
    assert len(Pixels(tiles_of())) == N


def test_a_stream_is_predicted_in_evaluation_mode():
    network = Positions().train()  # with dropout, unless switched to evaluation
    outputs = predicted(network, batched(tiles_of()))
    torch.testing.assert_close(outputs, network(torch.from_numpy(tiles_of())))


def test_averaging_over_symmetries_is_the_mean_of_eight_predictions():
    network = Positions().eval()
    tiles = torch.from_numpy(tiles_of())
    explicit = []
    for flipped in (tiles, torch.flip(tiles, dims=[3])):
        explicit += [network(torch.rot90(flipped, k, dims=(2, 3))) for k in range(4)]
    averaged = predicted(network, batched(tiles.numpy()), symmetries=True)
    torch.testing.assert_close(averaged, torch.stack(explicit).mean(0))
    assert not torch.allclose(averaged, explicit[0])
    rotated = predicted(network, batched(symmetry(tiles, 5).numpy()), symmetries=True)
    torch.testing.assert_close(rotated, averaged)


def image_of(px=100):
    random = np.random.default_rng(0)
    return da.from_array(random.integers(0, 256, (3, px, px), dtype=np.uint8), chunks=(3, 32, 32))


def centers_of(n=N, px=100):
    return np.random.default_rng(1).uniform(0, px, (n, 2))  # some beyond the border


def test_the_cache_holds_the_tiles_that_are_read_directly():
    windows = tile_windows([image_of()], centers_of(), side=PX, tile_px=PX)
    direct = np.empty((N, 3, PX, PX), dtype=np.uint8)
    order = []
    for rows, tiles in read_tiles(windows, tile_px=PX, batch_size=16):
        direct[rows] = tiles.numpy()
        order += rows.tolist()
    assert order != sorted(order)  # read in spatial order, stored in the order of the rows
    with cached(read_tiles(windows, tile_px=PX, batch_size=9), n=N, tile_px=PX) as cache:
        assert isinstance(cache, np.memmap)
        assert np.array_equal(cache, direct)
        with pytest.raises(ValueError, match="read-only"):
            cache[0] = 0
        assert np.array_equal(Pixels(cache).read(np.array([3, 1])).numpy(), direct[[3, 1]])


@pytest.mark.skipif(os.name != "posix", reason="only POSIX deletes open files")
def test_nothing_remains_of_the_cache_if_the_process_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with cached(batched(tiles_of()), n=N, tile_px=PX) as cache:
        assert list(tmp_path.iterdir()) == []  # the name is gone while the tiles are in use
        assert np.array_equal(cache, tiles_of())


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="the system cannot reserve space")
def test_a_full_temporary_folder_is_an_error_before_tiles_are_read(tmp_path, monkeypatch):
    def refuse(descriptor, offset, length):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def unread():
        raise AssertionError("tiles were read")
        yield

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(os, "posix_fallocate", refuse)
    message = f"cannot hold 1.08 GB of tiles .*TMPDIR.*{tmp_path.name}"
    with pytest.raises(OSError, match=message), cached(unread(), n=350_000, tile_px=32):
        pass


def test_without_a_way_to_reserve_space_the_free_space_is_compared(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    with cached(batched(tiles_of()), n=N, tile_px=PX) as cache:
        assert np.array_equal(cache, tiles_of())
    n_tiles = shutil.disk_usage(tmp_path).total // (3 * PX * PX) + 1
    with (
        pytest.raises(OSError, match="cannot hold"),
        cached(batched(tiles_of()), n=n_tiles, tile_px=PX),
    ):
        pass


def test_streamed_and_cached_tiles_give_the_same_predictions():
    torch.manual_seed(0)
    network = TileCNN(G, tile_px=16).eval()
    nn.init.normal_(network.head.weight)
    windows = tile_windows([image_of()], centers_of(), side=16, tile_px=16)
    streamed = predicted(network, read_tiles(windows, tile_px=16, batch_size=7))
    with cached(read_tiles(windows, tile_px=16), n=N, tile_px=16) as cache:
        stored = predicted(network, batched(cache))
    torch.testing.assert_close(streamed, stored, rtol=1e-4, atol=1e-5)


def batches_of(rows):
    yield np.array(rows), torch.zeros(len(rows), 3, PX, PX, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("rows", "message"),
    [([0, 1], "1 of 3 rows .* row 2: 0 times"), ([0, 1, 2, 1], "1 of 3 rows .* row 1: 2 times")],
)
def test_missing_and_repeated_rows_of_a_cache_are_refused(rows, message):
    with pytest.raises(ValueError, match=message), cached(batches_of(rows), n=3, tile_px=PX):
        pass


@pytest.mark.parametrize(
    ("tiles", "error", "message"),
    [
        (np.zeros((2, 3, 4, 4)), TypeError, "uint8, not float64"),
        (np.zeros((2, 4, 4, 3), dtype=np.uint8), ValueError, r"not \(2, 4, 4, 3\)"),
        (np.zeros((3, 4, 4), dtype=np.uint8), ValueError, r"must be \(n, 3, h, w\)"),
    ],
)
def test_invalid_tiles_are_refused(tiles, error, message):
    with pytest.raises(error, match=message):
        Pixels(tiles)
