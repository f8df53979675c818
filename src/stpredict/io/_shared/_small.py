"""Small images of slides, for figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stpredict import tiles

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stpredict._sdata._sections import Section

#: Largest side of an image.
_MAX_PX = 1500


def small_image(section: Section) -> tuple[NDArray[np.uint8], float]:
    """Image of a section (3, y, x), and pixels of the finest level per pixel of it."""
    level, factor = tiles.pick_level(
        section.levels, max(section.shape_yx) / _MAX_PX, rounding="coarser"
    )
    # without a level that is coarse enough, pixels are skipped
    step = int(np.ceil(max(level.shape[1:]) / _MAX_PX))
    return np.asarray(level[:, ::step, ::step]), factor * step
