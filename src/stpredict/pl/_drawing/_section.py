"""What pictures of a section share: its image, its spots, its axes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.collections import EllipseCollection

from stpredict import _validate, tiles

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import dask.array as da
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from numpy.typing import NDArray

    from stpredict._sdata._sections import Section

    Limits = tuple[NDArray[np.float64], NDArray[np.float64]]
    #: Left, right, bottom, top in µm.
    Extent = tuple[float, float, float, float]
    Crop = tuple[da.Array, Extent]

#: Sharp enough for a panel of a few inches.
_MOST_PX = 1500
#: Empty rim around what is shown, as a share of its extent.
_MARGIN = 0.06


def choose(found: Sequence[Section], name: str | None) -> Section:
    """One of several sections, by its name."""
    names = [section.name for section in found]
    if name is None and len(found) > 1:
        raise ValueError(f"there are {len(found)} sections, choose one: section={names[0]!r}, …")
    if name is not None and name not in names:
        raise KeyError(f"no section {name!r}; sections: {_validate.listing(names)}")
    return found[0 if name is None else names.index(name)]


def limits(section: Section, *, more: Sequence[NDArray[np.floating]] = ()) -> Limits:
    """Extent of the spots, and of further points, with a rim, within the image, in µm.

    Low and high corner, x and y; of a section without either, the image.
    """
    edge = np.array(section.shape_yx[::-1]) * section.mpp
    points = np.concatenate([section.centers_um, *more])
    if not len(points):
        return np.zeros(2), edge
    low, high = points.min(axis=0), points.max(axis=0)
    rim = _MARGIN * (high - low).max() + section.radius_um.max(initial=0)
    return np.maximum(low - rim, 0), np.minimum(high + rim, edge)


def new_axes(n: int, within: Limits, *, width: float = 4.2) -> NDArray[Any]:
    """Axes side by side, as high as what is shown needs."""
    extent = within[1] - within[0]
    height = float(np.clip(0.95 * width * extent[1] / extent[0], 2, 8)) + 0.9
    _, made = plt.subplots(1, n, figsize=(width * n + 0.8, height), layout="constrained")
    return np.atleast_1d(np.asarray(made))


def given_axes(axes: Sequence[Axes], n: int) -> NDArray[Any]:
    """Axes of the caller, which must be as many as are needed."""
    given = np.asarray(axes).ravel()
    if len(given) != n:
        raise ValueError(f"{n} axes are needed, {len(given)} given")
    return given


def crop(section: Section, within: Limits) -> Crop:
    """Choose the image between two corners in µm, from the finest level that is not too large.

    Lazy (3, y, x); and its extent in µm: left, right, bottom, top.
    """
    low, high = within
    for level in section.levels:
        mpp = section.mpp * section.shape_yx[1] / level.shape[2]
        if (high - low).max() / mpp <= _MOST_PX:
            break
    # of an image without a coarse level, every so many pixels, chunk by chunk
    step = max(1, int(np.ceil((high - low).max() / mpp / _MOST_PX)))
    (x0, y0), (x1, y1) = np.floor(low / mpp).astype(int), np.ceil(high / mpp).astype(int)
    y1, x1 = min(y1, level.shape[1]), min(x1, level.shape[2])
    return level[:, y0:y1:step, x0:x1:step], (x0 * mpp, x1 * mpp, y1 * mpp, y0 * mpp)


def draw_image(ax: Axes, section: Section, within: Limits) -> None:
    """Draw the image between two corners in µm."""
    pixels, extent = crop(section, within)
    show(ax, np.asarray(pixels), extent)


def tiles_of(
    section: Section, spots: Sequence[int], *, tile_um: float, tile_px: int
) -> Iterator[tuple[int, NDArray[np.uint8], Extent]]:
    """Tiles of some spots of a section, as networks are given them, in any order.

    Gives the place among the spots, the tile (3, y, x), and where it lies.
    """
    windows = tiles.tile_windows(
        section.levels, section.centers[spots], side=tile_um / section.mpp, tile_px=tile_px
    )
    mpp = section.mpp * section.shape_yx[1] / windows.level.shape[2]
    for order, pixels in tiles.read_tiles(windows, tile_px=tile_px):
        for k, tile in zip(order, pixels.numpy(), strict=True):
            left, top = (float(edge) for edge in windows.corners[k] * mpp)
            side = windows.side * mpp
            yield int(k), tile, (left, left + side, top + side, top)


def show(ax: Axes, pixels: NDArray[np.uint8], extent: Extent) -> None:
    """Draw pixels (3, y, x) where they lie, in µm."""
    ax.imshow(pixels.transpose(1, 2, 0), extent=extent)


def draw_spots(
    ax: Axes,
    section: Section,
    values: NDArray[np.floating] | None = None,
    norm: Normalize | None = None,
    **options: Any,
) -> EllipseCollection:
    """Draw the spots as large as they are, coloured by values or as the options say."""
    width = 2 * section.radius_um
    spots = EllipseCollection(
        width, width, np.zeros(len(width)), units="xy", offsets=section.centers_um,
        offset_transform=ax.transData, array=values, norm=norm, **options,
    )  # fmt: skip
    ax.add_collection(spots)
    return spots


def frame(ax: Axes, within: Limits) -> None:
    """Axes in µm, the image the right way up."""
    low, high = within
    ax.set_xlim(low[0], high[0])
    ax.set_ylim(high[1], low[1])  # rows of an image count downwards
    ax.set_aspect("equal")
    ax.set_xlabel("µm")


def draw_bar(ax: Axes, shown: Any, label: str, **options: Any) -> None:
    """Draw a colour bar as long as the panel, whatever its aspect."""
    bar = ax.inset_axes((1.04, 0, 0.05, 1))
    ax.figure.colorbar(shown, cax=bar, label=label, **options)
