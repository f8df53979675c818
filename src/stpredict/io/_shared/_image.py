"""Image files as lazy arrays."""

from __future__ import annotations

import math
import mmap
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import h5py
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stpredict._log import info
from stpredict.io._shared._files import reading, require_file

CHUNK_PX = 1024
_LOCK = threading.Lock()
_TIFF_HEADERS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two: BigTIFF
_TRAILERS = {"PNG": b"IEND", "JPEG": b"\xff\xd9"}  # a file without is truncated
# Bytes of pixels per byte of the file above which its header cannot be right; blank images have
# about 1,000 in PNG, the format that compresses them most.
_MOST_COMPRESSION = 10_000


def open_image(image: str | Path | NDArray[Any] | da.Array) -> da.Array:
    """Open an RGB image, (y, x, 3) or (3, y, x), as a lazy array of shape (3, y, x), uint8."""
    if not isinstance(image, str | Path):
        return _to_rgb(da.asarray(image), "the image array")
    path = require_file(image).resolve()  # workers may have another working directory
    with path.open("rb") as file:
        is_tiff = file.read(4) in _TIFF_HEADERS
    return _to_rgb(_open_tiff(path) if is_tiff else _open_pillow(path), str(path))


def open_hdf5(path: Path, name: str) -> da.Array:
    """Open an RGB image in an HDF5 file, uint8 or in [0, 1], as a lazy array (3, y, x), uint8."""
    path, source = path.resolve(), f"{name} of {path}"
    with h5py.File(path, "r") as file:
        dataset = file.get(name)
        if not isinstance(dataset, h5py.Dataset):
            raise ValueError(f"{source} is not an image, but {dataset}")
        _check_size(source, dataset.shape, dataset.id.get_storage_size())
        windows = _HDF5Windows(path, dataset.shape, dataset.dtype, name)
    array = da.from_array(windows, chunks=CHUNK_PX, name=_token(path, name))
    if array.dtype.kind == "f":
        low, high = dask.compute(array.min(), array.max())
        if not (low >= 0 and high <= 1):  # NaN is refused, too
            values = f"values from {low:g} to {high:g}"
            raise ValueError(f"{source} has {values}. Convert it to 8-bit RGB, or to [0, 1]")
        array = (array * 255).round().astype(np.uint8)
    return _to_rgb(array, source)


def _token(path: Path, name: str = "") -> str:
    """Name of the array of a file: another one if the file is replaced."""
    return f"image-{path}-{name}-{path.stat().st_mtime_ns}"


def _check_size(source: object, shape: tuple[int, ...], n_stored: int) -> None:
    """Require a size that the stored bytes can fill, before an array of this size is planned."""
    if math.prod(shape) > _MOST_COMPRESSION * max(n_stored, 1):
        size = " × ".join(map(str, shape))
        raise ValueError(
            f"{source} declares {size} values, but stores them in {n_stored} bytes. It is damaged"
        )


@dataclass(frozen=True)
class _Windows:
    """Array-like for dask, of which one window is read at a time; errors name the file."""

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def ndim(self) -> int:
        return len(self.shape)


@dataclass(frozen=True)
class _HDF5Windows(_Windows):
    name: str

    def __getitem__(self, window: Any) -> NDArray[Any]:
        # opened for every window: an open handle could not be pickled for another process
        with reading(self.path), h5py.File(self.path, "r") as file:
            return np.asarray(file[self.name][window])


@dataclass(frozen=True)
class _TiffWindows(_Windows):
    array: Any

    def __getitem__(self, window: Any) -> NDArray[Any]:
        with reading(self.path):
            return np.asarray(self.array[window])


def _to_rgb(array: da.Array, source: str) -> da.Array:
    """Bring an array to (3, y, x), and require 8-bit RGB."""
    if array.ndim == 3 and array.shape[0] not in (3, 4) and array.shape[2] in (3, 4):
        array = array.transpose(2, 0, 1)
    if array.ndim == 3 and array.shape[0] == 4:
        info(f"{source} has an alpha channel, which is left out")
        array = array[:3]
    if array.ndim != 3 or array.shape[0] != 3 or array.dtype != np.uint8 or 0 in array.shape:
        properties = f"shape {tuple(array.shape)} and dtype {array.dtype}"
        raise ValueError(f"{source} has {properties}. Convert it to 8-bit RGB (y, x, 3)")
    return array.rechunk((3, CHUNK_PX, CHUNK_PX))


def _open_tiff(path: Path) -> da.Array:
    import tifffile
    import zarr

    with reading(path), tifffile.TiffFile(path) as file:
        page, shape = file.series[0].keyframe, file.series[0].shape
        ends = np.add(page.dataoffsets, page.databytecounts)
        n_stored = sum(sum(part.databytecounts) for part in file.series[0].pages if part)
    color = getattr(page.photometric, "name", str(page.photometric))
    # tifffile converts YCbCr to RGB where JPEG does
    is_jpeg = page.compression in (tifffile.COMPRESSION.JPEG, tifffile.COMPRESSION.OJPEG)
    if color != "RGB" and not (color == "YCBCR" and is_jpeg and page.planarconfig == 1):
        raise ValueError(f"{path} has the colour model {color}. Convert it to 8-bit RGB")
    if max(ends, default=math.inf) > path.stat().st_size:
        raise ValueError(f"{path} is truncated: its pixels end after the end of the file")
    _check_size(path, shape, n_stored)
    store = tifffile.imread(path, aszarr=True, level=0)
    array: Any = zarr.open(store, mode="r")
    weakref.finalize(array, store.close)  # the file stays open as long as the lazy array lives
    windows = _TiffWindows(path, array.shape, array.dtype, array)
    return da.from_array(windows, chunks=array.chunks, name=_token(path))


def _open_pillow(path: Path) -> da.Array:
    with reading(path), _LOCK, _no_size_limit(), Image.open(path) as opened:
        mode, shape = opened.mode, (opened.height, opened.width, len(opened.getbands()))
        trailer = _TRAILERS.get(opened.format or "", b"")
    if mode not in ("RGB", "RGBA"):
        raise ValueError(f"{path} has the colour model {mode}. Convert it to 8-bit RGB")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content.rfind(trailer) < 0:
            raise ValueError(f"{path} is truncated: its last part is missing")
    _check_size(path, shape, path.stat().st_size)
    # the time is part of the name and the cache's key: a file that was replaced is decoded again
    pixels = dask.delayed(_decode_once, pure=True)(path, path.stat().st_mtime_ns)
    return da.from_delayed(pixels, shape, np.uint8)


def _decode_once(path: Path, modified_ns: int) -> NDArray[Any]:
    with _LOCK:  # so that two threads do not decode the same file twice
        return _decode(path, modified_ns)


@lru_cache(maxsize=1)  # JPEG and PNG files are decoded whole; only the last stays in memory
def _decode(path: Path, modified_ns: int) -> NDArray[Any]:
    with reading(path), _no_size_limit(), Image.open(path) as opened:
        return np.asarray(opened)


@contextmanager
def _no_size_limit() -> Iterator[None]:
    """Lift Pillow's limit on the size of an image, which slides exceed; callers hold the lock."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit
