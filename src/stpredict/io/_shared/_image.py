"""Image files as lazy arrays."""

from __future__ import annotations

import threading
import weakref
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask.array as da
import h5py
import numpy as np
from PIL import Image

from stpredict._log import info
from stpredict.io._shared._files import require_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

CHUNK_PX = 1024
_LOCK = threading.Lock()


def open_image(image: str | Path | NDArray[Any] | da.Array) -> da.Array:
    """Open an RGB image as a lazy array of shape (3, y, x), uint8.

    TIFF files are read window by window. JPEG and PNG files are decoded whole when the first
    window is read, and only the most recently used one stays in memory. Arrays may be (y, x, 3) or
    (3, y, x). A fourth channel is assumed to be alpha and left out.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If the image is not 8-bit RGB.
    """
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
        windows = _Windows(dataset.shape, dataset.dtype, partial(_read_hdf5, path, name))
    token = f"hdf5-{path}-{name}-{path.stat().st_mtime_ns}"
    return _to_rgb(da.from_array(windows, chunks=CHUNK_PX, name=token), f"{name} of {path}")


@dataclass(frozen=True)
class _Windows:
    """Array-like for dask, of which a function reads one window at a time."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[Any], NDArray[Any]]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __getitem__(self, window: Any) -> NDArray[Any]:
        return self.read(window)


def _to_rgb(array: da.Array, source: str) -> da.Array:
    """Bring an array to (3, y, x), and require 8-bit RGB."""
    if array.ndim == 3 and array.shape[0] not in (3, 4) and array.shape[2] in (3, 4):
        array = array.transpose(2, 0, 1)
    if array.ndim == 3 and array.shape[0] == 4:
        info(f"{source} has an alpha channel, which is left out")
        array = array[:3]
    if array.ndim != 3 or array.shape[0] != 3 or array.dtype != np.uint8:
        raise ValueError(
            f"{source} has shape {tuple(array.shape)} and dtype {array.dtype}. Convert it to 8-bit "
            "RGB: shape (y, x, 3) or (3, y, x), dtype uint8"
        )
    return array.rechunk((3, CHUNK_PX, CHUNK_PX))


def _open_tiff(path: Path) -> da.Array:
    import tifffile
    import zarr

    store = tifffile.imread(path, aszarr=True, level=0)
    array = zarr.open(store, mode="r")
    weakref.finalize(array, store.close)  # the file stays open as long as the lazy array lives
    return da.from_array(array)


def _read_hdf5(path: Path, name: str, window: Any) -> NDArray[Any]:
    # opened for every window: an open handle could not be pickled for another process
    with h5py.File(path, "r") as file:
        return np.asarray(file[name][window])


def _open_pillow(path: Path) -> da.Array:
    with _LOCK, _no_size_limit(), Image.open(path) as opened:
        mode, bands = opened.mode, opened.getbands()
        shape = (opened.height, opened.width, len(bands))
    if mode == "CMYK":  # its fourth channel is not alpha
        raise ValueError(f"{path} is a CMYK image. Convert it to 8-bit RGB")
    modified_ns = path.stat().st_mtime_ns
    windows = _Windows(
        shape,
        np.dtype(np.uint16 if mode.startswith("I;16") else np.uint8),
        partial(_read_pillow, path, modified_ns),
    )
    return da.from_array(windows, chunks=CHUNK_PX, name=f"image-{path}-{modified_ns}")


def _read_pillow(path: Path, modified_ns: int, window: Any) -> NDArray[Any]:
    with _LOCK:  # so that two threads do not decode the same file twice
        pixels = _decode(path, modified_ns)
    return pixels[window]


@lru_cache(maxsize=1)
def _decode(path: Path, modified_ns: int) -> NDArray[Any]:
    # modified_ns is part of the cache's key, so that a file that was replaced is decoded again
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
