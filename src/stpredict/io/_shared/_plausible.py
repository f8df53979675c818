"""Whether the µm per pixel of an image agree with what the image and the spots show."""

from __future__ import annotations

from itertools import product
from typing import Any

import dask
import dask.array as da
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from stpredict import _validate
from stpredict._log import warn

#: µm per pixel of images of tissue: from oil immersion to overviews.
PLAUSIBLE_MPP = (0.05, 20.0)
_MOST_UM = 100_000  # a slide is 75 mm long
_OVERLAP = 0.5  # distance of neighbouring centres, in diameters, below which most spots overlap
# Details of H&E, mostly nuclei: half width of the autocorrelation of the red channel's optical
# density. On HER2ST it is 2.0 µm at 0.28, 2.8 µm at 0.69 and 5 µm at 2.7 µm per pixel.
_DETAIL_UM = (0.8, 6.0)
_TYPICAL_UM = 3.0
_SHARP_PX, _RESOLVED_PX = 1.2, 3.0  # noise is narrower; coarse pixels widen details below 3 px
_WINDOW_PX, _N_WINDOWS = 256, 9
_LEAST_CONTRAST = 0.03  # standard deviation of the optical density; glass has less


def require_plausible_mpp(mpp: float, *, hint: str = "") -> None:
    """Require µm per pixel that images of tissue can have."""
    _validate.positive("mpp", mpp, unit="µm per pixel")
    low, high = PLAUSIBLE_MPP
    if not low <= mpp <= high:
        raise ValueError(
            f"mpp={mpp:g} is not plausible: images of tissue have {low:g} to {high:g} µm per pixel"
            + (f". {hint}" if hint else "")
        )


def warn_implausible_mpp(
    section: str,
    mpp: float,
    pixels: da.Array,  # (3, y, x) uint8
    *,
    centers: NDArray[np.floating] | None = None,  # (n, 2) x and y of spots in pixels
    diameter_um: float | None = None,
) -> None:
    """Warn if the µm per pixel disagree with the extent, the spots or the details of an image."""
    extent = max(pixels.shape[1:]) * mpp
    problem = ""
    if extent > _MOST_UM:
        problem = f"the image is {extent / 1000:.0f} mm wide, but a slide is at most 75 mm"
    elif (distance := _spot_distance(centers)) is not None and diameter_um:
        least = _OVERLAP * diameter_um
        if distance * mpp < least:
            problem = (
                f"neighbouring spots of {diameter_um:.3g} µm are {distance * mpp:.3g} µm apart, "
                f"but at least {least:.3g} µm are expected"
            )
    if not problem and (detail := _detail_px(pixels, centers)):
        low, high = _DETAIL_UM
        if detail * mpp < low or (detail * mpp > high and detail > _RESOLVED_PX):
            problem = (
                f"details of the tissue, such as nuclei, are {detail * mpp:.2g} µm wide; about "
                f"{_TYPICAL_UM / detail:.2g} µm per pixel are expected"
            )
    if problem:
        warn(f"section {section!r}: at {mpp:.3g} µm per pixel {problem}. Check mpp")


def _spot_distance(centers: NDArray[np.floating] | None) -> float | None:
    """Median distance of neighbouring spots in pixels; None for few spots."""
    if centers is None or len(centers) < 10:
        return None
    some = centers[:: max(1, len(centers) // 1000)]
    return float(np.median(cKDTree(centers).query(some, k=2)[0][:, 1]))


def _detail_px(pixels: da.Array, centers: NDArray[np.floating] | None) -> float | None:
    """Half width of the autocorrelation in pixels, median over windows; None without tissue."""
    height, width = pixels.shape[1:]
    if centers is None:
        steps = np.linspace(0.1, 0.9, 5)
        points = np.array(list(product(steps * width, steps * height)))
    else:
        points = centers[np.linspace(0, len(centers) - 1, _N_WINDOWS).astype(int)]
    last = np.maximum(0, np.array([width, height]) - _WINDOW_PX)
    corners = np.clip(points - _WINDOW_PX / 2, 0, last)
    side = slice(_WINDOW_PX)
    red = [pixels[0, int(y) :, int(x) :][side, side] for x, y in corners]
    windows: tuple[NDArray[np.uint8], ...] = dask.compute(*red)
    widths = [half_width for window in windows if (half_width := _half_width(window))]
    detail = float(np.median(widths)) if widths else 0.0
    return detail if detail > _SHARP_PX else None


def _half_width(window: NDArray[Any]) -> float | None:
    """Shift at which the autocorrelation of the optical density is one half."""
    density = -np.log10(np.maximum(window, 1) / 255)
    density -= gaussian_filter(density, 16)
    if min(window.shape) < _WINDOW_PX / 2 or density.std() < _LEAST_CONTRAST:
        return None
    power = np.abs(np.fft.rfft2(density)) ** 2
    correlation = np.fft.irfft2(power, density.shape)
    profile = (correlation[0, :64] + correlation[:64, 0]) / (2 * correlation[0, 0])
    after = int(np.argmax(profile < 0.5))
    if after == 0:  # never: the density is nearly constant
        return None
    before = profile[after - 1]
    return float(after - 1 + (before - 0.5) / (before - profile[after]))
