"""Image files as lazy arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import h5py
import numpy as np
from numpy.typing import NDArray

from stpredict._log import info
from stpredict.io._shared._decoded import is_pillow, open_pillow
from stpredict.io._shared._files import reading, require_file
from stpredict.io._shared._tiff import is_tiff, open_tiff
from stpredict.io._shared._windows import CHUNK_PX, Pyramid, Windows, check_size


def open_image(image: str | Path | NDArray[Any] | da.Array | Pyramid) -> Pyramid:
    """Open an RGB image, a file or (y, x, 3) or (3, y, x), with the file's own levels."""
    if isinstance(image, Pyramid):
        return image
    if not isinstance(image, str | Path):
        array = da.asarray(image)
        chunks = dict.fromkeys(range(array.ndim), CHUNK_PX)
        return Pyramid(_to_rgb([array.rechunk(chunks)], "the image array"))
    path = require_file(image).resolve()  # workers may have another working directory
    # imported here, because wsidata takes a while
    from stpredict.io._shared import _slide

    if _slide.is_vendor_format(path):
        return _slide.open_vendor_format(path)
    if is_tiff(path):
        levels, mpp_xy = open_tiff(path)
        return Pyramid(_to_rgb(levels, str(path)), mpp_xy)
    if is_pillow(path):
        return Pyramid(_to_rgb(open_pillow(path), str(path)))
    return _slide.open_other_format(path)


def open_hdf5(path: Path, name: str) -> da.Array:
    """Open an RGB image in an HDF5 file, uint8 or in [0, 1], as a lazy array (3, y, x), uint8."""
    path, source = path.resolve(), f"{name} of {path}"
    with h5py.File(path, "r") as file:
        dataset = file.get(name)
        if not isinstance(dataset, h5py.Dataset):
            raise ValueError(f"{source} is not an image, but {dataset}")
        check_size(source, dataset.shape, dataset.id.get_storage_size())
        modified_ns = path.stat().st_mtime_ns
        windows = _HDF5Windows(path, modified_ns, dataset.shape, dataset.dtype, name)
    array = windows.lazy([CHUNK_PX] * windows.ndim, name=name)
    if array.dtype.kind == "f":
        low, high = dask.compute(array.min(), array.max())
        if not (low >= 0 and high <= 1):  # NaN is refused, too
            values = f"values from {low:g} to {high:g}"
            raise ValueError(f"{source} has {values}. Convert it to 8-bit RGB, or to [0, 1]")
        array = (array * 255).round().astype(np.uint8)
    return _to_rgb([array], source)[0]


@dataclass(frozen=True)
class _HDF5Windows(Windows):
    name: str

    def __getitem__(self, window: Any) -> NDArray[Any]:
        # opened for every window: an open handle could not be pickled for another process
        with reading(self.path), h5py.File(self.path, "r") as file:
            return np.asarray(file[self.name][window])


def _to_rgb(arrays: Sequence[da.Array], source: str) -> tuple[da.Array, ...]:
    """Bring the levels of an image to (3, y, x), and require 8-bit RGB."""
    levels: list[da.Array] = []
    for array in arrays:
        if array.ndim == 3 and array.shape[0] not in (3, 4) and array.shape[2] in (3, 4):
            array = array.transpose(2, 0, 1)
        has_alpha = array.ndim == 3 and array.shape[0] == 4
        if has_alpha and not levels:
            info(f"{source} has an alpha channel, which is left out")
        array = array[:3] if has_alpha else array
        if array.ndim != 3 or array.shape[0] != 3 or array.dtype != np.uint8 or 0 in array.shape:
            properties = f"shape {tuple(array.shape)} and dtype {array.dtype}"
            raise ValueError(f"{source} has {properties}. Convert it to 8-bit RGB (y, x, 3)")
        levels.append(array.rechunk({0: 3}))
    return tuple(levels)
