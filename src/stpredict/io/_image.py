"""Image files as lazy arrays."""

from __future__ import annotations

import threading
import weakref
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask.array as da
import h5py
import numpy as np

from stpredict._log import tell

if TYPE_CHECKING:
    from numpy.typing import NDArray

CHUNK_PX = 1024
_LOCK = threading.Lock()


def open_image(image: str | Path | NDArray[Any] | da.Array) -> da.Array:
    """Open an RGB image as a lazy array of shape (3, y, x), uint8.

    TIFF files are read window by window. JPEG and PNG cannot be: they are decoded when the first
    window is asked for, and only the most recently used one is kept in memory.

    Parameters
    ----------
    image
        Path of a TIFF, JPEG or PNG file, or an array (y, x, 3) or (3, y, x). A fourth channel is
        taken for alpha and left out.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the image is not 8-bit RGB.
    """
    if isinstance(image, str | Path):
        path = Path(image)
        if not path.is_file():
            raise FileNotFoundError(f"image {path} does not exist")
        array = (
            _open_tiff(path)
            if path.suffix.lower() in {".tif", ".tiff", ".btf"}
            else _open_whole(path)
        )
        source = str(path)
    else:
        array = da.asarray(image)
        source = "the image array"
    return _rgb_cyx(array, source)


def open_hdf5(path: Path, name: str) -> da.Array:
    """Open an RGB image in an HDF5 file as a lazy array of shape (3, y, x), uint8."""
    dataset = _Dataset(path.resolve(), name)
    chunks = (CHUNK_PX, CHUNK_PX, -1) if dataset.ndim == 3 else "auto"
    token = f"hdf5-{dataset.path}-{name}-{path.stat().st_mtime_ns}"
    return _rgb_cyx(da.from_array(dataset, chunks=chunks, name=token), f"{name} of {path}")


def _rgb_cyx(array: da.Array, source: str) -> da.Array:
    if array.ndim == 3 and array.shape[0] not in (3, 4) and array.shape[2] in (3, 4):
        array = array.transpose(2, 0, 1)
    if array.ndim == 3 and array.shape[0] == 4:
        tell(f"{source} has an alpha channel, left out")
        array = array[:3]
    if array.ndim != 3 or array.shape[0] != 3 or array.dtype != np.uint8:
        raise ValueError(
            f"{source} has shape {tuple(array.shape)} and dtype {array.dtype}; an H&E image must "
            "be 8-bit RGB, shape (y, x, 3) or (3, y, x), dtype uint8: convert it first"
        )
    return array.rechunk((3, CHUNK_PX, CHUNK_PX))


def _open_tiff(path: Path) -> da.Array:
    import tifffile
    import zarr

    store = tifffile.imread(path, aszarr=True, level=0)
    array = zarr.open(store, mode="r")
    weakref.finalize(array, store.close)  # the file stays open as long as the lazy array lives
    return da.from_array(array)


def _open_whole(path: Path) -> da.Array:
    file = _WholeFile(path)
    return da.from_array(
        file, chunks=(CHUNK_PX, CHUNK_PX, -1), name=f"image-{path}-{file.modified_ns}"
    )


class _Dataset:
    """A dataset whose file is opened for each window: no handle stays open, none is pickled."""

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        with h5py.File(path, "r") as file:
            dataset = file[name]
            if not isinstance(dataset, h5py.Dataset):
                raise ValueError(f"{name} of {path} is not an image, but a group")
            self.shape, self.dtype, self.ndim = dataset.shape, dataset.dtype, dataset.ndim

    def __getitem__(self, window: Any) -> NDArray[Any]:
        with h5py.File(self.path, "r") as file:
            return np.asarray(file[self.name][window])


class _WholeFile:
    """A file that can only be decoded as a whole, sliced like an array."""

    def __init__(self, path: Path) -> None:
        from PIL import Image

        self.path = path
        self.modified_ns = path.stat().st_mtime_ns
        with _LOCK, _unlimited(Image), Image.open(path) as opened:
            if opened.mode == "CMYK":  # four channels, of which the last is no alpha
                raise ValueError(
                    f"{path} is a CMYK image; an H&E image must be 8-bit RGB: convert it first"
                )
            bands = len(opened.getbands())
            self.dtype = np.dtype(np.uint16 if opened.mode.startswith("I;16") else np.uint8)
            self.shape = (opened.height, opened.width, bands)
        self.ndim = 3

    def __getitem__(self, window: Any) -> NDArray[Any]:
        with _LOCK:  # so that two threads do not decode the same file twice
            pixels = _decode(self.path, self.modified_ns)
        return pixels[window]


@lru_cache(maxsize=1)
def _decode(path: Path, modified_ns: int) -> NDArray[Any]:
    # modified_ns tells a file that was replaced from the one decoded before
    from PIL import Image

    with _unlimited(Image), Image.open(path) as opened:
        pixels = np.asarray(opened)
    return pixels[..., None] if pixels.ndim == 2 else pixels


class _unlimited:
    """Lift Pillow's limit on the size of an image; slides are larger. Callers hold the lock."""

    def __init__(self, module: Any) -> None:
        self.module = module

    def __enter__(self) -> None:
        self.limit = self.module.MAX_IMAGE_PIXELS
        self.module.MAX_IMAGE_PIXELS = None

    def __exit__(self, *_: object) -> None:
        self.module.MAX_IMAGE_PIXELS = self.limit
