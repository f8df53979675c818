"""Streaming tile reader: windows of a lazy image in, batches of tiles out."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dask
import dask.array as da
import numpy as np
import torch
from torch.nn import functional

from stpredict._runtime import single_threaded

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

#: Glass: what lies beyond the border of the image.
WHITE = 255
#: Decoded chunks kept in memory: a full row of chunks of a slide of 170,000 px.
CACHE_BYTES = 512 * 2**20


@dataclass(frozen=True)
class Windows:
    """Where the tiles of one section lie in one level of its pyramid.

    Attributes
    ----------
    level
        Lazy image (3, y, x) uint8.
    corners
        Upper left corners, (n, 2) int, x and y in pixels of the level; may lie beyond the border.
    side
        Side of a window in pixels of the level.
    """

    level: da.Array
    corners: NDArray[np.int64]
    side: int


def place(
    levels: Sequence[da.Array], centers: NDArray[np.floating], *, side: float, tile_px: int
) -> Windows:
    """Choose the level of the pyramid to read tiles from, and their windows in it.

    The coarsest level that still has a pixel for every pixel of the tile, else the finest.

    Parameters
    ----------
    levels
        Pyramid, finest first, each (3, y, x).
    centers
        Centres of the tiles, (n, 2), x and y in pixels of the finest level.
    side
        Side of a tile in pixels of the finest level.
    tile_px
        Side of the tiles wanted, in pixels.
    """
    chosen, scale = levels[0], 1.0
    for level in levels[1:]:
        downsampling = levels[0].shape[2] / level.shape[2]
        # pyramids round their sizes: 9274 px become 4637, 2318, 1159
        if side / downsampling < tile_px * 0.99:
            break
        chosen, scale = level, downsampling
    in_level = max(1, round(side / scale))
    corners = np.rint(np.asarray(centers, dtype=float) / scale - in_level / 2).astype(np.int64)
    return Windows(level=chosen, corners=corners, side=in_level)


def read_tiles(
    windows: Windows, *, tile_px: int, batch_size: int = 64
) -> Iterator[tuple[NDArray[np.intp], torch.Tensor]]:
    """Read tiles in spatial order, while the caller works on the batch before.

    Each chunk of the image is decoded about once; memory depends on the batch and on
    `CACHE_BYTES`, not on the image.

    Parameters
    ----------
    windows
        From `place`.
    tile_px
        Side of the tiles, which are resampled to it (bilinear, antialiased).
    batch_size
        Tiles at a time.

    Yields
    ------
    tuple
        Which tiles, (b,) int, and the tiles, (b, 3, tile_px, tile_px) uint8.
    """
    cache = _ChunkCache(windows.level)
    order = _spatial_order(windows)

    def read(start: int) -> tuple[NDArray[np.intp], torch.Tensor]:
        rows = order[start : start + batch_size]
        tiles = torch.from_numpy(cache.windows(windows.corners[rows], windows.side))
        return rows, resize(tiles, tile_px)

    with single_threaded(1) as pool:
        ahead = None
        for start in range(0, len(order), batch_size):
            ready, ahead = ahead, pool.submit(read, start)
            if ready is not None:
                yield ready.result()
        if ahead is not None:
            yield ahead.result()


def resize(tiles: torch.Tensor, tile_px: int) -> torch.Tensor:
    """Resample tiles (b, 3, h, w) to a side (bilinear, antialiased)."""
    if tiles.shape[-1] == tile_px:
        return tiles
    return functional.interpolate(
        tiles, size=(tile_px, tile_px), mode="bilinear", antialias=True, align_corners=False
    )


def _spatial_order(windows: Windows) -> NDArray[np.intp]:
    """Order tiles along the rows of chunks, back and forth, so that chunks are met in runs."""
    middle = windows.corners + windows.side // 2
    edges_y, edges_x = (np.cumsum(sizes) for sizes in windows.level.chunks[1:])
    row = np.searchsorted(edges_y, middle[:, 1], side="right")
    column = np.searchsorted(edges_x, middle[:, 0], side="right")
    column = np.where(row % 2 == 0, column, -column)
    return np.lexsort((middle[:, 0], middle[:, 1], column, row))


class _ChunkCache:
    """Decoded chunks of an image, the least recently used dropped first."""

    def __init__(self, level: da.Array) -> None:
        self.level = level.rechunk({0: -1})
        self.shape_yx = self.level.shape[1:]
        self.starts = [np.concatenate([[0], np.cumsum(s)]) for s in self.level.chunks[1:]]
        self.chunks: OrderedDict[tuple[int, int], NDArray[np.uint8]] = OrderedDict()

    def windows(self, corners: NDArray[np.int64], side: int) -> NDArray[np.uint8]:
        """Cut windows, white beyond the border; (n, 3, side, side)."""
        cut = np.full((len(corners), 3, side, side), WHITE, dtype=np.uint8)
        spans = [
            [self._span(axis, corner[1 - axis], side) for axis in (0, 1)] for corner in corners
        ]
        self._load({(i, j) for rows, columns in spans for i in rows for j in columns})
        for window, (x, y), (rows, columns) in zip(cut, corners, spans, strict=True):
            for i in rows:
                for j in columns:
                    self._copy(window, i, j, y, x, side)
        self._shrink()
        return cut

    def _span(self, axis: int, start: int, side: int) -> range:
        """Chunks along an axis that a window touches."""
        low, high = max(start, 0), min(start + side, self.shape_yx[axis])
        if low >= high:
            return range(0)
        first, last = np.searchsorted(self.starts[axis], [low, high - 1], side="right") - 1
        return range(first, last + 1)

    def _load(self, wanted: set[tuple[int, int]]) -> None:
        missing = sorted(wanted - self.chunks.keys())
        # one call for all, so that chunks are decoded in parallel
        decoded = dask.compute(*(self.level.blocks[0, i, j] for i, j in missing))
        self.chunks.update(zip(missing, decoded, strict=True))
        for key in wanted:
            self.chunks.move_to_end(key)

    def _copy(self, window: NDArray[Any], i: int, j: int, y: int, x: int, side: int) -> None:
        chunk = self.chunks[i, j]
        top, left = self.starts[0][i], self.starts[1][j]
        y0, y1 = max(y, top), min(y + side, top + chunk.shape[1])
        x0, x1 = max(x, left), min(x + side, left + chunk.shape[2])
        window[:, y0 - y : y1 - y, x0 - x : x1 - x] = chunk[
            :, y0 - top : y1 - top, x0 - left : x1 - left
        ]

    def _shrink(self) -> None:
        held = sum(chunk.nbytes for chunk in self.chunks.values())
        while held > CACHE_BYTES:
            _, dropped = self.chunks.popitem(last=False)
            held -= dropped.nbytes
