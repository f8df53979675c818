"""Sample pixels of stained tissue from a section."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dask
import numpy as np

from stpredict.tiles import WHITE, pick_level

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stpredict._sdata._sections import Section
    from stpredict._sdata._tissue import TissueMask

#: Mean optical density of the least stained tissue: Macenko et al., ISBI (2009), 1107.
LEAST_DENSITY = 0.15
#: µm per pixel at which a nucleus is still several pixels wide.
_FIT_MPP = 2.0
#: Pixels that are read, and pixels of tissue that a stain is fitted to.
_MOST_PIXELS, _MOST_FITTED = 2_000_000, 100_000
#: Side of the image in which the colour of the glass is measured.
_COARSE_PX = 2000
#: Minimum number of tissue pixels for a fit, and their minimum share of the image.
_LEAST_PIXELS, _LEAST_SHARE = 200, 0.001
#: Background darker than this (mean of the 8-bit channels) is not glass.
_GLASS = 200


class DegenerateError(ValueError):
    """The stain of a section cannot be estimated."""

    def __init__(self, section: Section, reason: str) -> None:
        self.reason = reason
        super().__init__(
            f"the stain of section {section.name!r} cannot be estimated: {reason}. To leave such "
            'sections unchanged: stp.pp.normalize_stain(..., degenerate="skip")'
        )


def tissue_pixels(
    section: Section, tissue: TissueMask
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Sample pixels of stained tissue, (3, n), on white glass; and the colour of the glass, (3,)."""
    level, _ = pick_level(section.levels, _FIT_MPP / section.mpp)
    step = int(np.ceil(np.sqrt(level.shape[1] * level.shape[2] / _MOST_PIXELS)))
    last = section.levels[-1]
    skip = int(np.ceil(max(last.shape[1:]) / _COARSE_PX))
    sample, coarse = dask.compute(level[:, ::step, ::step], last[:, ::skip, ::skip])
    # tissue at the pixels of the coarse image, by their position in the finest level
    spacing = skip * section.shape_yx[1] / last.shape[2]
    ys, xs = (np.arange(size) * spacing for size in coarse.shape[1:])
    mask = tissue.contains(np.stack(np.meshgrid(xs, ys), axis=-1))
    white = _glass_colour(coarse, mask)  # a coarse level averages the camera's noise
    balanced = np.rint(white_balance(sample, white)).astype(np.uint8)
    density = np.log(256 / (np.arange(256, dtype=np.float32) + 1))[balanced].mean(axis=0)
    # pixels of the coarse mask that the sampled pixels lie in
    rows, columns = (
        ((np.arange(n) + 0.5) * m / n).astype(int)
        for n, m in zip(sample.shape[1:], mask.shape, strict=True)
    )
    stained = mask[np.ix_(rows, columns)] & (density > LEAST_DENSITY)
    pixels = balanced[:, stained]
    n = pixels.shape[1]
    if n < max(_LEAST_PIXELS, _LEAST_SHARE * stained.size):
        share = n / stained.size
        raise DegenerateError(section, f"only {share:.2%} of its image is stained tissue")
    # evenly over the section, so that the sample is the same in every call
    return pixels[:, np.linspace(0, n - 1, min(n, _MOST_FITTED)).astype(int)], white


def _glass_colour(image: NDArray[np.uint8], tissue: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Colour of the glass, (3,); white if the image shows almost none."""
    glass = ~tissue & (image.mean(axis=0) >= _GLASS)
    if np.count_nonzero(glass) < _LEAST_PIXELS:
        return np.full(3, float(WHITE))
    return np.asarray(np.median(image[:, glass], axis=1), dtype=np.float64)


def white_balance(image: NDArray[np.uint8], white: NDArray[np.float64]) -> NDArray[np.float32]:
    """Scale the channels so that glass, and whatever is brighter, becomes white."""
    values = (np.arange(256, dtype=np.float64) + 1) * (WHITE + 1) / (white[:, None] + 1) - 1
    table = np.minimum(values, WHITE).astype(np.float32)
    return np.stack([table[c][image[c]] for c in range(3)])
