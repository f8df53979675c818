"""Levels of a slide that one of wsidata's readers has opened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from wsidata.reader import OpenSlideReader, ReaderBase, to_datatree

if TYPE_CHECKING:
    import dask.array as da
    from numpy.typing import NDArray


def slide_levels(reader: ReaderBase) -> tuple[da.Array, ...]:
    """Levels of a slide, finest first, each lazy (3, y, x) uint8; they can be sent to processes."""
    if type(reader) is OpenSlideReader:
        reader = _OnWhite(reader.file)
    return tuple(scale.ds["image"].data for scale in to_datatree(reader).children.values())


class _OnWhite(OpenSlideReader):
    """Areas that the scanner left out are white; OpenSlide has them as transparent black."""

    def get_region(
        self, x: int, y: int, width: int, height: int, level: int = 0, **_: Any
    ) -> NDArray[np.uint8]:
        try:
            region = self.reader.read_region((int(x), int(y)), level, (width, height))
        except Exception as error:
            raise ValueError(
                f"{self.file} cannot be read ({error}). Check that it is complete"
            ) from error
        glass = Image.new("RGB", region.size, "white")
        glass.paste(region, mask=region.getchannel("A"))
        return np.asarray(glass)
