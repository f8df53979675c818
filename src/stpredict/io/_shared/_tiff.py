"""TIFF files, with their own pyramid and µm per pixel, through tifffile."""

from __future__ import annotations

import math
import weakref
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import dask.array as da
import numpy as np
import tifffile
import zarr
from numpy.typing import NDArray

from stpredict.io._shared._files import reading
from stpredict.io._shared._plausible import PLAUSIBLE_MPP
from stpredict.io._shared._windows import CHUNK_PX, Windows, check_size
from stpredict.tiles import WHITE

_HEADERS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two: BigTIFF
_UM = {"m": 1e6, "cm": 1e4, "mm": 1e3, "µm": 1.0, "um": 1.0, "nm": 1e-3}  # units of OME
_RESOLUTION_UM = {2: 25_400.0, 3: 1e4, 4: 1e3, 5: 1.0}  # units of TIFF, the first is the inch
_STRIPS_PX = 4 * CHUNK_PX**2  # most pixels of a chunk of strips


def is_tiff(path: Path) -> bool:
    """Whether a file begins as TIFF files do."""
    with path.open("rb") as file:
        return file.read(4) in _HEADERS


def open_tiff(path: Path) -> tuple[list[da.Array], tuple[float, float] | None]:
    """Levels of the first image in the file's axes, finest first, and µm per pixel along x, y."""
    with reading(path), tifffile.TiffFile(path) as file:
        levels = file.series[0].levels
        page = levels[0].keyframe
        mpp_xy = _ome_mpp(file.ome_metadata) or _resolution_mpp(page)
        color = getattr(page.photometric, "name", str(page.photometric))
        parts = [[part for part in level.pages if part] for level in levels]
        ends = [_end(part) or math.inf for pages in parts for part in pages]
        # tifffile converts YCbCr to RGB where JPEG does
        is_jpeg = page.compression in (tifffile.COMPRESSION.JPEG, tifffile.COMPRESSION.OJPEG)
        is_converted = color == "YCBCR" and is_jpeg and page.planarconfig == 1
    if color != "RGB" and not is_converted:
        raise ValueError(f"{path} has the colour model {color}. Convert it to 8-bit RGB")
    _require_end(path, max(ends, default=math.inf))
    arrays = []
    for k, (level, pages) in enumerate(zip(levels, parts, strict=True)):
        n_stored = sum(sum(part.databytecounts) for part in pages)
        check_size(path, level.shape, n_stored)
        arrays.append(_lazy(path, k, level))
    return arrays, mpp_xy


def require_complete(path: Path) -> None:
    """Require that no part of a TIFF file, also of a vendor's, lies after its end."""
    end = 0.0
    # a slide that tifffile cannot parse may be valid, its own reader decides
    with suppress(Exception), tifffile.TiffFile(path) as file:
        end = max(_end(page) for page in file.pages)
    _require_end(path, end)


def _end(page: Any) -> float:
    """Last byte of the pixels of a page, 0 if it has none."""
    return float(np.add(page.dataoffsets, page.databytecounts).max(initial=0))


def _require_end(path: Path, end: float) -> None:
    if end > path.stat().st_size:
        raise ValueError(f"{path} is truncated: its pixels end after the end of the file")


def _lazy(path: Path, level: int, series: Any) -> da.Array:
    """One level, in chunks of about 1024 px that cut no tile or strip of the file."""
    page = series.keyframe
    shared = (path, path.stat().st_mtime_ns, series.shape, series.dtype)
    y_axis = series.axes.index("Y")
    chunks = [*series.shape]
    if len(series.pages) == 1 and page.is_memmappable:
        windows: Windows = _MappedWindows(*shared, offset=page.dataoffsets[0])
        chunks[y_axis : y_axis + 2] = [CHUNK_PX, CHUNK_PX]
    else:
        windows = _TiffWindows(*shared, level=level)
        if page.is_tiled:
            tile = (page.tilelength, page.tilewidth)
            chunks[y_axis : y_axis + 2] = [max(1, CHUNK_PX // size) * size for size in tile]
        else:  # strips have the whole width: few rows of them, in no more pixels
            rows = max(1, page.rowsperstrip)
            chunks[y_axis] = max(1, _STRIPS_PX // (rows * page.imagewidth)) * rows
    return windows.lazy(chunks, name=str(level))


@dataclass(frozen=True)
class _MappedWindows(Windows):
    offset: int  # of the pixels, which are neither compressed nor cut into pieces

    def __getitem__(self, window: Any) -> NDArray[Any]:
        with reading(self.path):
            pixels = np.memmap(self.path, self.dtype, "r", self.offset, self.shape)
            return np.array(pixels[window])


@dataclass(frozen=True)
class _TiffWindows(Windows):
    level: int

    def __getitem__(self, window: Any) -> NDArray[Any]:
        with reading(self.path):
            return np.asarray(_opened(self.path, self.modified_ns, self.level)[window])


@lru_cache(maxsize=16)  # each process opens a level once; open files cannot be pickled
def _opened(path: Path, modified_ns: int, level: int) -> Any:
    # tiles that the scanner left out are glass
    store = tifffile.imread(path, aszarr=True, series=0, level=level, fillvalue=WHITE)
    array = zarr.open(store, mode="r")
    weakref.finalize(array, store.close)
    return array


def _ome_mpp(metadata: str | None) -> tuple[float, float] | None:
    """µm per pixel in OME's metadata."""
    with suppress(ElementTree.ParseError, ValueError, KeyError):
        pixels = ElementTree.fromstring(metadata or "").find(".//{*}Pixels")
        if pixels is not None:
            x, y = (
                float(pixels.attrib[f"PhysicalSize{axis}"])
                * _UM[pixels.get(f"PhysicalSize{axis}Unit", "µm")]
                for axis in "XY"
            )
            return x, y
    return None


def _resolution_mpp(page: Any) -> tuple[float, float] | None:
    """µm per pixel by the tags of the resolution, which many programs set to that of a screen."""
    if "XResolution" not in page.tags or page.resolutionunit not in _RESOLUTION_UM:
        return None
    unit_um = _RESOLUTION_UM[page.resolutionunit]
    x, y = (unit_um / value if value > 0 else math.inf for value in page.resolution)
    low, high = PLAUSIBLE_MPP
    return (x, y) if low <= min(x, y) and max(x, y) <= high else None
