"""Pixels of stained tissue, sampled from a section; arrays only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dask
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stpredict._sdata._sections import Section
    from stpredict._sdata._tissue import Tissue

#: Glass of a normalised image, and what lies beyond its border (`tiles.WHITE`).
WHITE = 255
#: Mean optical density of the least stained tissue: Macenko et al., ISBI (2009), 1107.
LEAST_DENSITY = 0.15
#: µm per pixel at which a nucleus is still several pixels wide.
_FIT_MPP = 2.0
#: Pixels looked at, and of those on tissue, fitted to.
_MOST_PIXELS, _MOST_FITTED = 2_000_000, 100_000
#: Side of the image in which tissue is told from glass.
_COARSE_PX = 2000
#: Tissue pixels that a fit needs: so many, and this share of the image.
_LEAST_PIXELS, _LEAST_SHARE = 200, 0.001
#: Background darker than this (mean of the 8-bit channels) is no glass.
_GLASS = 200


class DegenerateError(ValueError):
    """The stain of a section cannot be told."""

    def __init__(self, section: Section, reason: str) -> None:
        self.reason = reason
        super().__init__(
            f"the stain of section {section.name!r} cannot be told: {reason}. To leave such "
            'sections as they are: stp.pp.normalize_stain(..., degenerate="skip")'
        )


def tissue_pixels(
    section: Section, tissue: Tissue
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Sample pixels of stained tissue, (3, n), glass made white; and the colour of the glass."""
    level = section.levels[0]
    for coarser in section.levels[1:]:
        if section.mpp * section.shape_yx[1] / coarser.shape[2] <= _FIT_MPP:
            level = coarser
    apart = int(np.ceil(np.sqrt(level.shape[1] * level.shape[2] / _MOST_PIXELS)))
    last = section.levels[-1]
    skip = int(np.ceil(max(last.shape[1:]) / _COARSE_PX))
    grid, coarse = dask.compute(level[:, ::apart, ::apart], last[:, ::skip, ::skip])
    mask = _tissue_at(tissue, coarse.shape[1:], apart=skip * section.shape_yx[1] / last.shape[2])
    white = _glass(coarse, mask)
    balanced = np.rint(balance(grid, white)).astype(np.uint8)
    density = np.log(256 / (np.arange(256, dtype=np.float32) + 1))[balanced].mean(axis=0)
    ys, xs = (
        ((np.arange(n) + 0.5) * m / n).astype(int)
        for n, m in zip(grid.shape[1:], mask.shape, strict=True)
    )
    stained = mask[np.ix_(ys, xs)] & (density > LEAST_DENSITY)
    pixels = balanced[:, stained]
    n = pixels.shape[1]
    if n < max(_LEAST_PIXELS, _LEAST_SHARE * stained.size):
        share = n / stained.size
        raise DegenerateError(section, f"only {share:.2%} of its image is stained tissue")
    return pixels[:, np.linspace(0, n - 1, min(n, _MOST_FITTED)).astype(int)], white


def _tissue_at(tissue: Tissue, shape: tuple[int, ...], *, apart: float) -> NDArray[np.bool_]:
    """Tissue in the pixels of a coarse image, so many pixels of the finest level apart."""
    ys, xs = (np.arange(size) * apart for size in shape)
    return tissue.at(np.stack(np.meshgrid(xs, ys), axis=-1))


def _glass(image: NDArray[np.uint8], tissue: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Colour of the glass, (3,); white where none is seen."""
    glass = ~tissue & (image.mean(axis=0) >= _GLASS)
    if np.count_nonzero(glass) < _LEAST_PIXELS:
        return np.full(3, float(WHITE))
    return np.asarray(np.median(image[:, glass], axis=1), dtype=np.float64)


def balance(image: NDArray[np.uint8], white: NDArray[np.float64]) -> NDArray[np.float32]:
    """Scale the channels so that glass becomes white; what is brighter is glass, too."""
    values = (np.arange(256, dtype=np.float64) + 1) * (WHITE + 1) / (white[:, None] + 1) - 1
    table = np.minimum(values, WHITE).astype(np.float32)
    return np.stack([table[c][image[c]] for c in range(3)])
