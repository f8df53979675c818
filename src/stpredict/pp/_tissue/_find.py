"""Separate tissue from glass at a coarse resolution, for images of any size."""

from __future__ import annotations

import io
import warnings
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
from spatialdata import SpatialData
from spatialdata.models import Image2DModel

from stpredict._log import SPATIALDATA, importing_squidpy, quiet
from stpredict._runtime import return_memory
from stpredict._sdata._elements import levels_of
from stpredict._sdata._images import mpp_of
from stpredict._sdata._tissue import MOST_PX, TissueMask, stored_tissue_mask
from stpredict.tiles import pick_level

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

#: Target µm per pixel; pyramid levels from 4 to 8 µm per pixel are used as they are.
_WORKING_UM = 5.6
#: If the µm per pixel are unknown, the image is downsampled to about this many pixels.
_WORKING_PX = 2_000_000
#: Small images keep at least this many pixels on their longer side.
_LEAST_SIDE = 512
#: Corners darker than this (mean of the 8-bit channels) are not glass.
_GLASS = 200
#: Side of the corners, as a share of the image's sides.
_CORNER = 0.02
#: Minimum difference in brightness between glass and tissue, of 255. Pale eosin differs by at
#: least 40; the two halves of empty glass with spilled stain differ by 12.
_CONTRAST = 20
#: Pale stroma, fat and lumina inside stained tissue count as tissue: holes up to this area (a
#: circle of 250 µm) are filled, unless larger than a share of the image.
_HOLE_UM2, _HOLE_SHARE = 50_000, 0.001
#: Smaller pieces are debris: the area of twelve Visium spots, at most a share of the image.
_PIECE_UM2, _PIECE_SHARE = 100_000, 0.01


def tissue_mask(sdata: SpatialData, image: str) -> TissueMask:
    """Tissue mask of an image: the stored one, else detected now and not stored."""
    _, *shape_yx = levels_of(sdata, image)[0].shape
    return stored_tissue_mask(sdata, image, tuple(shape_yx)) or detect_mask(sdata, image)[0]


def detect_mask(
    sdata: SpatialData, image: str, *, method: str = "otsu"
) -> tuple[TissueMask, NDArray[np.int32]]:
    """Tissue mask of an image, and the number of the piece in each of its pixels."""
    levels = levels_of(sdata, image)
    pieces, scale = find_tissue(levels, mpp=mpp_of(sdata, image), method=method)
    return_memory()  # of squidpy's intermediate images
    _, height, width = levels[0].shape
    return TissueMask(mask=pieces > 0, scale=scale, shape_yx=(height, width)), pieces


def find_tissue(
    levels: Sequence[da.Array], *, mpp: float | None, method: str = "otsu"
) -> tuple[NDArray[np.int32], tuple[float, float]]:
    """Number of the piece of tissue in each coarse pixel, (y, x), 0 for glass; and their scale.

    The scale is the pixels of the finest level per coarse pixel, x and y.
    """
    image, scale = _coarse(levels, mpp)
    corners = _corners(image)
    # a crop of tissue shows no glass, and a threshold would split it
    if corners.max() < _GLASS:
        return np.ones(image.shape[1:], dtype=np.int32), scale
    area_um2 = None if mpp is None else image[0].size * scale[0] * scale[1] * mpp**2
    pieces = _segment(image, method, corners >= _GLASS, area_um2)
    on_tissue = pieces > 0
    # a threshold splits any image in two, also one of glass only
    if not on_tissue.any() or corners.max() - image[:, on_tissue].mean() < _CONTRAST:
        pieces = np.zeros_like(pieces)
    return pieces, scale


def _coarse(
    levels: Sequence[da.Array], mpp: float | None
) -> tuple[NDArray[np.uint8], tuple[float, float]]:
    """Image at the working resolution, and pixels of the finest level per pixel, x and y."""
    height, width = levels[0].shape[1:]
    target = np.sqrt(height * width / _WORKING_PX) if mpp is None else _WORKING_UM / mpp
    target = max(target, np.sqrt(height * width / MOST_PX))
    target = max(1.0, min(target, max(height, width) / _LEAST_SIDE))
    level, downsampling = pick_level(levels, target * np.sqrt(2))
    factor = max(1, round(target / downsampling))
    scale = width / level.shape[2] * factor, height / level.shape[1] * factor
    if factor > 1:  # lazily, so that the level is read chunk by chunk
        level = da.coarsen(np.mean, level, {1: factor, 2: factor}, trim_excess=True)
        level = level.round().astype(np.uint8)
    return np.asarray(level), scale


def _corners(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Brightness of the upper left, upper right, lower left and lower right corner."""
    h, w = (max(1, round(size * _CORNER)) for size in image.shape[1:])
    rows, columns = (slice(h), slice(-h, None)), (slice(w), slice(-w, None))
    return np.array([image[:, ys, xs].mean() for ys in rows for xs in columns])


def _segment(
    image: NDArray[np.uint8], method: str, glass: NDArray[np.bool_], area_um2: float | None
) -> NDArray[np.int32]:
    with importing_squidpy():
        from squidpy.experimental.im import BackgroundDetectionParams, detect_tissue

    # without corners, squidpy's thresholds assume bright glass; with corners, they infer it from
    # pixels that vignetting may have darkened
    corners = glass if method == "weka" else np.zeros(4, dtype=bool)
    names = ("ymin_xmin_is_bg", "ymin_xmax_is_bg", "ymax_xmin_is_bg", "ymax_xmax_is_bg")
    background = BackgroundDetectionParams(**dict(zip(names, map(bool, corners), strict=True)))
    options: dict[str, Any] = {
        "method": method,
        "background_detection_params": background,
        "close_holes_smaller_than_frac": _share(_HOLE_UM2, area_um2, _HOLE_SHARE),
        "min_specimen_area_frac": _share(_PIECE_UM2, area_um2, _PIECE_SHARE),
        # by default squidpy drops the smaller of several pieces
        "n_samples": image[0].size,
        "mask_smoothing_cycles": 1,  # closes clefts narrower than about 10 pixels
        "auto_max_pixels": image[0].size,
    }
    # squidpy writes labels at full resolution, so it gets an object with the coarse image only
    small = SpatialData(images={"image": Image2DModel.parse(image, dims=("c", "y", "x"))})
    with quiet(SPATIALDATA), warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        # squidpy 1.8 uses deprecated parameters of scikit-image and scikit-learn
        warnings.simplefilter("ignore", FutureWarning)
        return np.asarray(detect_tissue(small, "image", inplace=False, **options), dtype=np.int32)


def _share(area_um2: float, image_um2: float | None, most: float) -> float:
    """Area as a share of the image, at most ``most``."""
    return most if image_um2 is None else min(most, area_um2 / image_um2)
