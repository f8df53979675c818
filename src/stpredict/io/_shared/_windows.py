"""Files of which one window is read at a time, as arrays for dask."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np

from stpredict._sdata import _pyramid

CHUNK_PX = _pyramid.CHUNK_PX
# Bytes of pixels per byte of the file above which its header cannot be right; blank images have
# about 1,000 in PNG, the format that compresses them most.
_MOST_COMPRESSION = 10_000


@dataclass(frozen=True)
class Pyramid:
    """An image as its levels, finest first, each lazy (3, y, x) uint8."""

    levels: tuple[da.Array, ...]
    mpp_xy: tuple[float, float] | None = None  # µm per pixel, as far as the file has plausible ones

    @property
    def shape_yx(self) -> tuple[int, int]:
        """Height and width of the finest level in pixels."""
        return self.levels[0].shape[1], self.levels[0].shape[2]


@dataclass(frozen=True)
class Windows:
    """Array-like for dask, of which one window is read at a time; errors name the file."""

    path: Path
    modified_ns: int  # a file that was replaced is read again
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def lazy(self, chunks: Sequence[int], *, name: str) -> da.Array:
        """The lazy array, whose name differs if the file is replaced."""
        token = f"image-{self.path}-{name}-{self.modified_ns}"
        meta = np.empty((0,) * self.ndim, self.dtype)  # else dask reads a window
        return da.from_array(self, chunks=tuple(chunks), name=token, meta=meta)


def check_size(source: object, shape: tuple[int, ...], n_stored: int) -> None:
    """Require a size that the stored bytes can fill, before an array of this size is planned."""
    if math.prod(shape) > _MOST_COMPRESSION * max(n_stored, 1):
        size = " × ".join(map(str, shape))
        raise ValueError(
            f"{source} declares {size} values, but stores them in {n_stored} bytes. It is damaged"
        )
