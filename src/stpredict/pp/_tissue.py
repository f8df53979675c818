"""How much of the area under a spot is tissue."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
from spatialdata import SpatialData
from spatialdata.models import Image2DModel

from stpredict._log import SPATIALDATA, quiet

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stpredict._sections import Section

#: Corners darker than this (mean of the 8-bit channels) are no glass.
_GLASS = 200
#: The corner of an image: this share of its sides.
_CORNER = 0.02


def tissue_fraction(section: Section) -> NDArray[np.float64]:
    """Share of each spot's area that lies on tissue, (n,) in [0, 1]; NaN positions give 0."""
    coarse = section.levels[-1].compute()
    scale = section.shape_yx[1] / coarse.shape[2]
    mask = _tissue_mask(coarse)
    centers = section.centers / scale
    radius = section.radius_um / section.mpp / scale
    return np.array([_share(mask, x, y, r) for (x, y), r in zip(centers, radius, strict=True)])


def _tissue_mask(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Tissue in an image (3, y, x) that fits in memory."""
    if not _has_glass(image):
        return np.ones(image.shape[1:], dtype=bool)
    from squidpy.experimental.im import detect_tissue

    # squidpy writes labels at full resolution; on an object with the coarse level only, it is not
    # asked to
    small = SpatialData(images={"image": Image2DModel.parse(image, dims=("c", "y", "x"))})
    with quiet(SPATIALDATA), warnings.catch_warnings():
        # squidpy 1.8 calls scikit-image 0.26 by an argument that was renamed
        warnings.filterwarnings("ignore", "Parameter `area_threshold`", FutureWarning)
        return np.asarray(detect_tissue(small, "image", inplace=False)) > 0


def _has_glass(image: NDArray[np.uint8]) -> bool:
    h, w = (max(1, round(size * _CORNER)) for size in image.shape[1:])
    rows, columns = (slice(h), slice(-h, None)), (slice(w), slice(-w, None))
    corners = [image[:, ys, xs].mean() for ys in rows for xs in columns]
    return max(corners) >= _GLASS


def _share(mask: NDArray[np.bool_], x: float, y: float, radius: float) -> float:
    if not (np.isfinite(x) and np.isfinite(y)):
        return 0.0
    reach = max(radius, 0.5)
    low_y, low_x = int(np.floor(y - reach)), int(np.floor(x - reach))
    ys = np.arange(low_y, int(np.ceil(y + reach)) + 1)
    xs = np.arange(low_x, int(np.ceil(x + reach)) + 1)
    # pixel i covers [i, i + 1)
    inside = (ys[:, None] + 0.5 - y) ** 2 + (xs[None, :] + 0.5 - x) ** 2 <= reach**2
    known_y, known_x = (ys >= 0) & (ys < mask.shape[0]), (xs >= 0) & (xs < mask.shape[1])
    covered = np.zeros(inside.shape, dtype=bool)
    covered[np.ix_(known_y, known_x)] = mask[np.ix_(ys[known_y], xs[known_x])]
    n_pixels = np.count_nonzero(inside)
    return float(np.count_nonzero(covered & inside) / n_pixels) if n_pixels else 0.0
