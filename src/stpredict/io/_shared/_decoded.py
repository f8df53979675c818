"""JPEG and PNG files: they can only be decoded as a whole, which is done once, into a pyramid."""

from __future__ import annotations

import mmap
import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from tempfile import mkstemp
from typing import Any

import dask.array as da
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from stpredict._log import info
from stpredict._runtime import return_memory
from stpredict._sdata._pyramid import n_coarser_levels
from stpredict.io._shared._files import reading
from stpredict.io._shared._windows import CHUNK_PX, Windows, check_size

_LOCK = threading.Lock()
_TRAILERS = {"PNG": b"IEND", "JPEG": b"\xff\xd9"}  # a file without is truncated
#: Pixels of smaller images stay in memory, those of larger ones in a temporary file.
_MEMORY_BYTES = 16 * 2**20
#: Most decoded images that a process keeps; all sections of HER2ST are 36.
_MOST_IMAGES = 40
_STRIP_PX = 256  # rows at a time


def is_pillow(path: Path) -> bool:
    """Whether Pillow knows the format of a file."""
    with reading(path), _LOCK, _no_size_limit():
        try:
            Image.open(path).close()
        except UnidentifiedImageError:
            return False
    return True


def open_pillow(path: Path) -> list[da.Array]:
    """Levels of an image, finest first, each lazy (3, y, x); the first that is read decodes all."""
    with reading(path), _LOCK, _no_size_limit(), Image.open(path) as opened:
        mode, shape = opened.mode, (opened.height, opened.width, len(opened.getbands()))
        trailer = _TRAILERS.get(opened.format or "", b"")
    if mode not in ("RGB", "RGBA"):
        raise ValueError(f"{path} has the colour model {mode}. Convert it to 8-bit RGB")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content.rfind(trailer) < 0:
            raise ValueError(f"{path} is truncated: its last part is missing")
    check_size(path, shape, path.stat().st_size)
    if mode == "RGBA":
        info(f"{path} has an alpha channel, which is left out")
    # the time is part of the name and the cache's key: a file that was replaced is decoded again
    modified_ns = path.stat().st_mtime_ns
    return [
        _Decoded(path, modified_ns, level_shape, np.dtype(np.uint8), level).lazy(
            (3, CHUNK_PX, CHUNK_PX), name=str(level)
        )
        for level, level_shape in enumerate(_shapes(*shape[:2]))
    ]


@dataclass(frozen=True)
class _Decoded(Windows):
    level: int

    def __getitem__(self, window: Any) -> NDArray[Any]:
        with _LOCK:  # so that two threads do not decode the same file twice
            levels = _decode(self.path, self.modified_ns)
        return np.array(levels[self.level][window])


class _TemporaryPixels:
    """Array in a temporary file; only windows of it are loaded into memory."""

    dtype, ndim = np.dtype(np.uint8), 3

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        handle, self.file = mkstemp(prefix="stpredict-", suffix=".pixels")
        # at exit at the latest
        weakref.finalize(self, Path(self.file).unlink, missing_ok=True)
        with os.fdopen(handle, "wb") as file:
            for _ in range(shape[0]):  # a full disk is noticed here, not in a mapped file
                file.write(bytes(shape[1] * shape[2]))

    def __getitem__(self, window: Any) -> NDArray[Any]:
        return np.array(np.memmap(self.file, np.uint8, "r", shape=self.shape)[window])

    def __setitem__(self, window: Any, pixels: NDArray[Any]) -> None:
        np.memmap(self.file, np.uint8, "r+", shape=self.shape)[window] = pixels


@lru_cache(maxsize=_MOST_IMAGES)
def _decode(path: Path, modified_ns: int) -> list[Any]:
    """Decode a file into arrays (3, y, x) of all levels, finest first."""
    with reading(path), _no_size_limit(), Image.open(path) as opened:
        opened.load()
        width, height = opened.size
        in_memory = 3 * width * height <= _MEMORY_BYTES
        levels: list[Any] = [
            np.empty(shape, np.uint8) if in_memory else _TemporaryPixels(shape)
            for shape in _shapes(height, width)
        ]
        for top in range(0, height, _STRIP_PX):  # a copy of the whole would double the memory
            bottom = min(top + _STRIP_PX, height)
            strip = np.asarray(opened.crop((0, top, width, bottom)).convert("RGB"))
            levels[0][:, top:bottom] = strip.transpose(2, 0, 1)
        del opened  # with its pixels
    return_memory()
    for finer, coarser in pairwise(levels):
        _halve(finer, coarser)
    if not in_memory:
        info(f"{path.name} ({height} × {width} px) is decoded once, into temporary files")
    return levels


def _shapes(height: int, width: int) -> list[tuple[int, ...]]:
    n_levels = 1 + n_coarser_levels((height, width))
    return [(3, height >> level, width >> level) for level in range(n_levels)]


def _halve(finer: Any, coarser: Any) -> None:
    """Write the means of 2 × 2 pixels, without an odd first one, as spatialdata computes them."""
    first_y, first_x = finer.shape[1] % 2, finer.shape[2] % 2
    for top in range(0, coarser.shape[1], _STRIP_PX):
        bottom = min(top + _STRIP_PX, coarser.shape[1])
        rows = finer[:, first_y + 2 * top : first_y + 2 * bottom, first_x:]
        total = rows[:, ::2, ::2].astype(np.uint16)
        for y, x in ((0, 1), (1, 0), (1, 1)):
            total += rows[:, y::2, x::2]
        coarser[:, top:bottom] = total // 4


@contextmanager
def _no_size_limit() -> Iterator[None]:
    """Lift Pillow's limit on the size of an image, which slides exceed; callers hold the lock."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit
