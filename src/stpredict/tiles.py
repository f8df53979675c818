"""Streaming reader of tiles from lazy image pyramids."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

import dask
import dask.array as da
import numpy as np
import torch
from torch.nn import functional

from stpredict._runtime import single_threaded

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

#: Colour of glass, used beyond the border of the image.
WHITE = 255
#: Memory for decoded chunks: one row of chunks of a slide with a width of 87,000 px.
CACHE_BYTES = 256 * 2**20


class _Array(Protocol):
    @property
    def shape(self) -> tuple[int, ...]: ...


Level = TypeVar("Level", bound=_Array)


@dataclass(frozen=True)
class Windows:
    """Windows of the tiles of one section in one level of its pyramid."""

    level: da.Array  # (3, y, x) uint8
    corners: NDArray[np.int64]  # (n, 2) x and y of the upper left pixels; may be outside the image
    side: int  # in pixels of the level


def pick_level(
    levels: Sequence[Level], downsampling: float, *, rounding: Literal["finer", "coarser"] = "finer"
) -> tuple[Level, float]:
    """Pick the pyramid level (finest first) next to a downsampling factor, and its own factor.

    With ``rounding="finer"``, the coarsest level whose factor is at most `downsampling`, else the
    finest; with ``"coarser"``, the finest whose factor is at least `downsampling`, else the last.
    """
    # of the longer side, which rounding of the size changes least
    factors = [max(levels[0].shape[-2:]) / max(level.shape[-2:]) for level in levels]
    if rounding == "finer":
        # 1 % tolerance, because pyramids round sizes: 9274 px become 4637, 2318 and 1159
        suitable = [k for k, factor in enumerate(factors) if 0.99 * factor <= downsampling]
        index = max(suitable, default=0)
    else:
        suitable = [k for k, factor in enumerate(factors) if factor >= downsampling]
        index = min(suitable, default=len(levels) - 1)
    return levels[index], factors[index]


def tile_windows(
    levels: Sequence[da.Array], centers: NDArray[np.floating], *, side: float, tile_px: int
) -> Windows:
    """Locate tiles in the coarsest level that has at least one pixel per pixel of the tile."""
    # centers (n, 2) and side are in pixels of the finest level
    level, scale = pick_level(levels, side / tile_px)
    # windows have whole pixels, read_tiles resamples them to tile_px
    side_px = max(1, round(side / scale))
    corners = np.rint(np.asarray(centers, dtype=float) / scale - side_px / 2).astype(np.int64)
    return Windows(level=level, corners=corners, side=side_px)


def read_tiles(
    windows: Windows, *, tile_px: int, batch_size: int = 64
) -> Iterator[tuple[NDArray[np.intp], torch.Tensor]]:
    """Read indices (b,) and tiles (b, 3, tile_px, tile_px) uint8 in batches, in spatial order.

    Each chunk of the image is decoded about once. Memory scales with the batch and `CACHE_BYTES`,
    not with the image.
    """
    for rows, (tiles,) in read_fields([windows], tile_px=[tile_px], batch_size=batch_size):
        yield rows, tiles


def read_fields(
    fields: Sequence[Windows], *, tile_px: Sequence[int], batch_size: int = 64
) -> Iterator[tuple[NDArray[np.intp], list[torch.Tensor]]]:
    """Read as `read_tiles` does, but tiles of several sides around the same centres together."""
    widest = max(windows.level.shape[-1] for windows in fields)
    caches = {
        # a row of chunks of a coarse level is shorter
        windows.level.name: _ChunkCache(
            windows.level,
            min(CACHE_BYTES * windows.level.shape[-1] // widest, _most_useful_bytes(windows)),
        )
        for windows in fields
    }
    order = _spatial_order(fields[0])

    def read(start: int) -> tuple[NDArray[np.intp], list[torch.Tensor]]:
        rows = order[start : start + batch_size]
        batch = []
        for windows, px in zip(fields, tile_px, strict=True):
            cut = caches[windows.level.name].windows(windows.corners[rows], windows.side)
            batch.append(resize(torch.from_numpy(cut), px))
        return rows, batch

    # one batch is decoded in the background while the caller uses the previous one
    with single_threaded(1) as pool:
        pending = None
        for start in range(0, len(order), batch_size):
            previous, pending = pending, pool.submit(read, start)
            if previous is not None:
                yield previous.result()
        if pending is not None:
            yield pending.result()


def resize(tiles: torch.Tensor, tile_px: int) -> torch.Tensor:
    """Resample square tiles (b, 3, h, w) to a side of `tile_px` (bilinear, antialiased)."""
    if tiles.shape[-1] == tile_px:
        return tiles
    return functional.interpolate(
        tiles, size=(tile_px, tile_px), mode="bilinear", antialias=True, align_corners=False
    )


def _most_useful_bytes(windows: Windows) -> int:
    """Memory of the rows of chunks under the tiles of one row of chunks, and of the row after."""
    chunk = max(windows.level.chunks[1])
    n_rows = 2 + 2 * math.ceil(windows.side / (2 * chunk))
    return n_rows * chunk * 3 * windows.level.shape[2]


def _spatial_order(windows: Windows) -> NDArray[np.intp]:
    """Order tiles along rows of chunks in alternating directions, so that chunks stay cached."""
    middle = windows.corners + windows.side // 2
    edges_y, edges_x = (np.cumsum(sizes) for sizes in windows.level.chunks[1:])
    row = np.searchsorted(edges_y, middle[:, 1], side="right")
    column = np.searchsorted(edges_x, middle[:, 0], side="right")
    # back and forth: the chunks at the end of a row are next to those that follow
    column = np.where(row % 2 == 0, column, -column)
    return np.lexsort((middle[:, 0], middle[:, 1], column, row))


class _ChunkCache:
    """Least-recently-used cache of the decoded chunks of an image."""

    def __init__(self, level: da.Array, n_bytes: int) -> None:
        self.n_bytes = n_bytes  # of decoded chunks
        self.level = level.rechunk({0: -1})  # all channels of a chunk at once
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
        """Chunks along an axis that overlap a window."""
        low, high = max(start, 0), min(start + side, self.shape_yx[axis])
        if low >= high:  # outside the image
            return range(0)
        first, last = np.searchsorted(self.starts[axis], [low, high - 1], side="right") - 1
        return range(first, last + 1)

    def _load(self, keys: set[tuple[int, int]]) -> None:
        missing = sorted(keys - self.chunks.keys())
        # a single call decodes the chunks in parallel
        decoded = dask.compute(*(self.level.blocks[0, i, j] for i, j in missing))
        self.chunks.update(zip(missing, decoded, strict=True))
        for key in keys:
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
        # after cutting: the chunks of the current batch are needed even if they exceed the limit
        n_bytes = sum(chunk.nbytes for chunk in self.chunks.values())
        while n_bytes > self.n_bytes:
            _, oldest = self.chunks.popitem(last=False)
            n_bytes -= oldest.nbytes
