"""Multiscale images of SpatialData from the levels of a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import dask.array as da
import numpy as np
from spatialdata.models import Image2DModel
from spatialdata.transformations import set_transformation
from spatialdata.transformations.transformations import BaseTransformation
from xarray import DataArray, Dataset, DataTree

from stpredict._sdata._elements import pyramid_of

#: Side of the chunks of images.
CHUNK_PX = 1024
#: The pyramid ends at the first level whose shorter side is below this number of pixels.
COARSEST_PX = 1024
#: Scanners store every second or fourth resolution; larger steps are filled, so that a tile is
#: never read with more than about four times its pixels along a side.
_MOST_STEP = 4.0


def multiscale_image(
    levels: Sequence[da.Array],  # finest first, each (3, y, x) uint8
    transformations: Mapping[str, BaseTransformation],
) -> DataTree:
    """Multiscale image of a file's levels, and of more where they are far apart or all large."""
    scales = {}
    for k, level in enumerate(_completed(levels)):
        # spatialdata's coordinates: centres of the pixels, in pixels of the finest level
        sizes = zip(("y", "x"), level.shape[1:], levels[0].shape[1:], strict=True)
        coords = {axis: (np.arange(n) + 0.5) * n_finest / n for axis, n, n_finest in sizes}
        array = DataArray(level, dims=("c", "y", "x"), coords={"c": ["r", "g", "b"], **coords})
        scales[f"scale{k}"] = Dataset({"image": array})
    image = DataTree.from_dict(scales)
    set_transformation(image, dict(transformations), set_all=True)
    Image2DModel().validate(image)
    return image


def _completed(levels: Sequence[da.Array]) -> list[da.Array]:
    completed: list[da.Array] = []
    levels = [level for level in levels if _is_coarser(level, levels[0]) or level is levels[0]]
    for level, coarser in zip(levels, [*levels[1:], None], strict=True):
        shape = level.shape[1:]
        if coarser is not None:
            step = max(shape) / max(coarser.shape[1:])
            n_missing = int(np.ceil(np.log2(step / _MOST_STEP) - 0.1))  # sizes are rounded
        else:
            n_missing = n_coarser_levels(shape, at_least=int(len(levels) == 1))
        completed += [level, *_halved(level, n_missing)]
    return completed


def n_coarser_levels(shape: tuple[int, ...], *, at_least: int = 1) -> int:
    """Halvings until the shorter side is below `COARSEST_PX`; every image has at least one."""
    return max(at_least, int(np.ceil(np.log2(min(shape) / COARSEST_PX))))


def _is_coarser(level: da.Array, finest: da.Array) -> bool:
    """Whether a level shows all of the image at a lower resolution, up to rounding of its size."""
    steps = np.divide(finest.shape[1:], level.shape[1:])
    rounding = 0.01 + 1 / min(level.shape[1:])
    return steps.min() > 1 and bool(np.ptp(steps) < rounding * steps.max())


def _halved(level: da.Array, n: int) -> list[da.Array]:
    """The next n coarser levels, each with half the resolution, computed when they are read."""
    if n < 1:
        return []
    chunks = (3, CHUNK_PX, CHUNK_PX)
    halved = Image2DModel.parse(level, dims=("c", "y", "x"), scale_factors=[2] * n, chunks=chunks)
    return [array.data for array in pyramid_of(halved)[1:]]
