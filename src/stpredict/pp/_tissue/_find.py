"""Tissue told from glass, at a coarse resolution, whatever the size of the image."""

from __future__ import annotations

import io
import warnings
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
from spatialdata import SpatialData
from spatialdata.models import Image2DModel

from stpredict._log import SPATIALDATA, quiet
from stpredict._sdata._elements import levels_of
from stpredict._sdata._images import mpp_of
from stpredict._sdata._tissue import MOST_PX, Tissue, tissue_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

#: How tissue can be told from glass; squidpy's.
METHODS = ("otsu", "felzenszwalb", "weka")

#: µm per pixel at which tissue is looked for: a level of a pyramid is taken from 4 to 8.
_WORKING_UM = 5.6
#: Where µm are not known, the image is brought down to about this many pixels.
_WORKING_PX = 2_000_000
#: Small images are not brought below this many pixels on their longer side.
_LEAST_SIDE = 512
#: Corners darker than this (mean of the 8-bit channels) are no glass.
_GLASS = 200
#: The corner of an image: this share of its sides.
_CORNER = 0.02
#: Least difference in brightness between glass and tissue, of 255. Pale eosin differs by 40 and
#: more; the halves into which a threshold splits empty glass with stain spilled over it, by 12.
_CONTRAST = 20
#: Pale stroma, fat and lumina are tissue where stained tissue encloses them: holes up to this area
#: (a circle of 250 µm) are filled, but none larger than a share of the image.
_HOLE_UM2, _HOLE_SHARE = 50_000, 0.001
#: Smaller pieces are debris: twelve Visium spots, and at most a share of the image.
_PIECE_UM2, _PIECE_SHARE = 100_000, 0.01
#: Clefts narrower than some 10 pixels are closed.
_SMOOTHING = 1


def tissue(sdata: SpatialData, image: str) -> Tissue:
    """Where tissue lies in an image: as its labels say, or else as is found now."""
    levels = levels_of(sdata, image)
    shape_yx = levels[0].shape[1], levels[0].shape[2]
    stored = tissue_of(sdata, image, shape_yx)
    if stored is not None:
        return stored
    pieces, scale = find_tissue(levels, mpp=mpp_of(sdata, image))
    return Tissue(mask=pieces > 0, scale=scale, shape_yx=shape_yx)


def find_tissue(
    levels: Sequence[da.Array], *, mpp: float | None, method: str = "otsu"
) -> tuple[NDArray[np.int32], tuple[float, float]]:
    """Find the pieces of tissue in an image.

    Parameters
    ----------
    levels
        Image pyramid, finest first, each lazy (3, y, x) uint8.
    mpp
        µm per pixel of the finest level, if known.
    method
        One of `METHODS`.

    Returns
    -------
    tuple
        Number of the piece in each coarse pixel, 0 for glass, (y, x); and pixels of the finest
        level per coarse pixel, x and y. An image of which no corner is glass has no glass to tell:
        all of it is one piece.
    """
    image, scale = _coarse(levels, mpp)
    corners = _corners(image)
    if corners.max() < _GLASS:
        return np.ones(image.shape[1:], dtype=np.int32), scale
    area_um2 = None if mpp is None else image[0].size * scale[0] * scale[1] * mpp**2
    pieces = _segment(image, method, corners >= _GLASS, area_um2)
    found = pieces > 0
    # a threshold also splits what is one
    if not found.any() or corners.max() - image[:, found].mean() < _CONTRAST:
        pieces = np.zeros_like(pieces)
    return pieces, scale


def _coarse(
    levels: Sequence[da.Array], mpp: float | None
) -> tuple[NDArray[np.uint8], tuple[float, float]]:
    """Image at the working resolution, and pixels of the finest level per pixel, x and y."""
    height, width = levels[0].shape[1:]
    wanted = np.sqrt(height * width / _WORKING_PX) if mpp is None else _WORKING_UM / mpp
    wanted = max(wanted, np.sqrt(height * width / MOST_PX))
    wanted = max(1.0, min(wanted, max(height, width) / _LEAST_SIDE))
    chosen = levels[0]
    for level in levels[1:]:
        if width / level.shape[2] > wanted * np.sqrt(2):
            break
        chosen = level
    factor = max(1, round(wanted / (width / chosen.shape[2])))
    scale = width / chosen.shape[2] * factor, height / chosen.shape[1] * factor
    if factor > 1:  # chunk by chunk
        chosen = da.coarsen(np.mean, chosen, {1: factor, 2: factor}, trim_excess=True)
        chosen = chosen.round().astype(np.uint8)
    return np.asarray(chosen), scale


def _corners(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Brightness of the four corners: upper left, upper right, lower left, lower right."""
    h, w = (max(1, round(size * _CORNER)) for size in image.shape[1:])
    rows, columns = (slice(h), slice(-h, None)), (slice(w), slice(-w, None))
    return np.array([image[:, ys, xs].mean() for ys in rows for xs in columns])


def _segment(
    image: NDArray[np.uint8], method: str, glass: NDArray[np.bool_], area_um2: float | None
) -> NDArray[np.int32]:
    from squidpy.experimental.im import BackgroundDetectionParams, detect_tissue

    # thresholds need to know that glass is bright, which squidpy takes for granted when it is
    # given no corners, and else tells from corners that vignetting may have darkened
    corners = glass if method == "weka" else np.zeros(4, dtype=bool)
    upper_left, upper_right, lower_left, lower_right = map(bool, corners)
    options: dict[str, Any] = {
        "method": method,
        "background_detection_params": BackgroundDetectionParams(
            ymin_xmin_is_bg=upper_left,
            ymin_xmax_is_bg=upper_right,
            ymax_xmin_is_bg=lower_left,
            ymax_xmax_is_bg=lower_right,
        ),
        "close_holes_smaller_than_frac": _share(_HOLE_UM2, area_um2, _HOLE_SHARE),
        "min_specimen_area_frac": _share(_PIECE_UM2, area_um2, _PIECE_SHARE),
        # without a number squidpy drops the smaller of several pieces
        "n_samples": image[0].size,
        "mask_smoothing_cycles": _SMOOTHING,
        "auto_max_pixels": image[0].size,
    }
    # squidpy writes labels at full resolution; on an object with the coarse image only, it is not
    # asked to
    small = SpatialData(images={"image": Image2DModel.parse(image, dims=("c", "y", "x"))})
    with quiet(SPATIALDATA), warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        # squidpy 1.8 calls scikit-image and scikit-learn in ways that they are giving up
        warnings.simplefilter("ignore", FutureWarning)
        return np.asarray(detect_tissue(small, "image", inplace=False, **options), dtype=np.int32)


def _share(area_um2: float, image_um2: float | None, most: float) -> float:
    return most if image_um2 is None else min(most, area_um2 / image_um2)
