"""Image files as lazy arrays."""

from __future__ import annotations

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
from stpredict.io._shared._files import require_file

CHUNK_PX = 1024
_LOCK = threading.Lock()


def open_image(image: str | Path | NDArray[Any] | da.Array) -> da.Array:
    """Open an RGB image, (y, x, 3) or (3, y, x), as a lazy array of shape (3, y, x), uint8."""
    if not isinstance(image, str | Path):
        return _to_rgb(da.asarray(image), "the image array")
    path = require_file(image)
    is_tiff = path.suffix.lower() in {".tif", ".tiff", ".btf"}
    return _to_rgb(_open_tiff(path) if is_tiff else _open_pillow(path), str(path))


def open_hdf5(path: Path, name: str) -> da.Array:
    """Open an RGB image in an HDF5 file as a lazy array of shape (3, y, x), uint8."""
    path = path.resolve()  # workers may have another working directory
    with h5py.File(path, "r") as file:
        dataset = file[name]
        if not isinstance(dataset, h5py.Dataset):
            raise ValueError(f"{name} of {path} is not an image, but a group")
        windows = _HDF5Windows(path, name, dataset.shape, dataset.dtype)
    token = f"hdf5-{path}-{name}-{path.stat().st_mtime_ns}"
    return _to_rgb(da.from_array(windows, chunks=CHUNK_PX, name=token), f"{name} of {path}")


@dataclass(frozen=True)
class _HDF5Windows:
    """Array-like for dask, of which one window is read at a time."""

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __getitem__(self, window: Any) -> NDArray[Any]:
        # opened for every window: an open handle could not be pickled for another process
        with h5py.File(self.path, "r") as file:
            return np.asarray(file[self.name][window])


def _to_rgb(array: da.Array, source: str) -> da.Array:
    """Bring an array to (3, y, x), and require 8-bit RGB."""
    if array.ndim == 3 and array.shape[0] not in (3, 4) and array.shape[2] in (3, 4):
        array = array.transpose(2, 0, 1)
    if array.ndim == 3 and array.shape[0] == 4:
        info(f"{source} has an alpha channel, which is left out")
        array = array[:3]
    if array.ndim != 3 or array.shape[0] != 3 or array.dtype != np.uint8:
        properties = f"shape {tuple(array.shape)} and dtype {array.dtype}"
        raise ValueError(f"{source} has {properties}. Convert it to 8-bit RGB (y, x, 3)")
    return array.rechunk((3, CHUNK_PX, CHUNK_PX))


def _open_tiff(path: Path) -> da.Array:
    import tifffile
    import zarr

    store = tifffile.imread(path, aszarr=True, level=0)
    array = zarr.open(store, mode="r")
    weakref.finalize(array, store.close)  # the file stays open as long as the lazy array lives
    return da.from_array(array)


def _open_pillow(path: Path) -> da.Array:
    with _LOCK, _no_size_limit(), Image.open(path) as opened:
        mode, shape = opened.mode, (opened.height, opened.width, len(opened.getbands()))
    if mode == "CMYK":  # its fourth channel is not alpha
        raise ValueError(f"{path} is a CMYK image. Convert it to 8-bit RGB")
    dtype = np.uint16 if mode.startswith("I;16") else np.uint8
    # the time is part of the name and the cache's key: a file that was replaced is decoded again
    pixels = dask.delayed(_decode_once, pure=True)(path, path.stat().st_mtime_ns)
    return da.from_delayed(pixels, shape, dtype)


def _decode_once(path: Path, modified_ns: int) -> NDArray[Any]:
    with _LOCK:  # so that two threads do not decode the same file twice
        return _decode(path, modified_ns)


@lru_cache(maxsize=1)  # JPEG and PNG files are decoded whole; only the last stays in memory
def _decode(path: Path, modified_ns: int) -> NDArray[Any]:
    with _no_size_limit(), Image.open(path) as opened:
        pixels = np.asarray(opened)
    return pixels[..., None] if pixels.ndim == 2 else pixels


@contextmanager
def _no_size_limit() -> Iterator[None]:
    """Lift Pillow's limit on the size of an image, which slides exceed; callers hold the lock."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit
