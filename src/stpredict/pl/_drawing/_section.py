"""Drawing of a section: its image, its spots and its tiles, in µm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.collections import EllipseCollection

from stpredict import _validate, tiles

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import dask.array as da
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from numpy.typing import NDArray

    from stpredict._sdata._sections import Section
    from stpredict._sdata._spot_table import SpotTable
    from stpredict.pl._drawing._axes import Limits
    from stpredict.pl._drawing._style import SpotStyle

    #: Left, right, bottom, top in µm.
    Extent = tuple[float, float, float, float]
    Crop = tuple[da.Array, Extent]

#: Largest side of an image that is drawn: sharp in a panel of a few inches.
_MAX_PX = 1500
#: Margin around the spots, as a share of their extent.
_MARGIN = 0.06


def section_names(opened: SpotTable, section: str | Sequence[str] | None) -> list[str]:
    """Names of the sections to draw; all by default."""
    if section is None:
        return opened.section_names
    names = [section] if isinstance(section, str) else list(section)
    return [opened.section(name).name for name in names]


def select(sections: Sequence[Section], names: Sequence[str]) -> tuple[Section, ...]:
    """Sections by name, in the order of the names."""
    by_name = {part.name: part for part in sections}
    return tuple(by_name[name] for name in names)


def limits(section: Section, *, points_um: NDArray[np.floating] | None = None) -> Limits:
    """Corners of the spots, and of further points, with a margin and within the image, in µm.

    A section without spots and points is shown in full.
    """
    edge = np.array(section.shape_yx[::-1]) * section.mpp
    points = section.centers_um
    if points_um is not None:
        points = np.concatenate([points, points_um])
    if not len(points):
        return np.zeros(2), edge
    low, high = points.min(axis=0), points.max(axis=0)
    margin = _MARGIN * (high - low).max() + section.radius_um.max(initial=0)
    return np.maximum(low - margin, 0), np.minimum(high + margin, edge)


def crop(section: Section, corners: Limits) -> Crop:
    """Image between two corners, from the finest level that is not too large.

    Returns a lazy array (3, y, x) and its extent in µm: left, right, bottom, top.
    """
    edge = np.array(section.shape_yx[::-1]) * section.mpp
    low, high = (np.clip(corner, 0, edge) for corner in corners)
    needed = (high - low).max() / section.mpp / _MAX_PX
    level, factor = tiles.pick_level(section.levels, needed, rounding="coarser")
    mpp = section.mpp * factor
    # without a level that is coarse enough, pixels are skipped, chunk by chunk
    step = max(1, int(np.ceil((high - low).max() / mpp / _MAX_PX)))
    (x0, y0), (x1, y1) = np.floor(low / mpp).astype(int), np.ceil(high / mpp).astype(int)
    y1, x1 = min(y1, level.shape[1]), min(x1, level.shape[2])
    return level[:, y0:y1:step, x0:x1:step], (x0 * mpp, x1 * mpp, y1 * mpp, y0 * mpp)


def draw_image(ax: Axes, section: Section, corners: Limits) -> None:
    """Draw the image between two corners in µm."""
    pixels, extent = crop(section, corners)
    draw_pixels(ax, np.asarray(pixels), extent)


def draw_pixels(ax: Axes, pixels: NDArray[np.uint8], extent: Extent) -> None:
    """Draw pixels (3, y, x) at their place in µm."""
    ax.imshow(pixels.transpose(1, 2, 0), extent=extent)


def draw_spots(
    ax: Axes,
    section: Section,
    style: SpotStyle,
    values: NDArray[np.floating] | None = None,
    norm: Normalize | None = None,
    **options: Any,
) -> EllipseCollection:
    """Draw the spots at their true size, coloured by values or as the options say."""
    diameter = 2 * section.radius_um
    if style.spot_size is not None:
        diameter = np.full(len(diameter), style.spot_size)
    options = {"cmap": style.cmap, "alpha": style.alpha, **options}
    # one collection with sizes in µm: spots keep their size at any zoom
    spots = EllipseCollection(
        diameter, diameter, np.zeros(len(diameter)), units="xy", offsets=section.centers_um,
        offset_transform=ax.transData, array=values, norm=norm, **options,
    )  # fmt: skip
    ax.add_collection(spots)
    return spots


def frame(ax: Axes, corners: Limits) -> None:
    """Set axes in µm, with the origin at the upper left as in images."""
    low, high = corners
    ax.set_xlim(low[0], high[0])
    ax.set_ylim(high[1], low[1])
    ax.set_aspect("equal")
    ax.set_xlabel("µm")


def read_tiles_of(
    sections: Sequence[Section],
    rows: Sequence[int] | NDArray[np.intp],
    *,
    tile_um: float,
    tile_px: int,
) -> Iterator[tuple[int, NDArray[np.uint8], Extent]]:
    """Read the tiles of some rows of the table, as networks receive them, in any order.

    Yields the index among ``rows``, the tile (3, y, x) and its extent in µm.
    """
    for section in sections:
        indices = np.flatnonzero(np.isin(rows, section.rows))
        if not len(indices):
            continue
        spots = np.searchsorted(section.rows, np.asarray(rows)[indices])
        windows = tiles.tile_windows(
            section.levels, section.centers[spots], side=tile_um / section.mpp, tile_px=tile_px
        )
        mpp = section.mpp * section.shape_yx[1] / windows.level.shape[2]
        for order, pixels in tiles.read_tiles(windows, tile_px=tile_px):
            for k, tile in zip(order, pixels.numpy(), strict=True):
                left, top = (float(edge) for edge in windows.corners[k] * mpp)
                side = windows.side * mpp
                yield int(indices[k]), tile, (left, left + side, top + side, top)


def rows_of_spots(
    obs_names: pd.Index, names: str | Sequence[str], candidates: NDArray[np.intp]
) -> list[int]:
    """Rows of spots by name; each must be one of the candidate rows."""
    names = [names] if isinstance(names, str) else list(names)
    available = obs_names[candidates]
    absent = [name for name in names if name not in available]
    if absent or not names:
        raise KeyError(
            f"no spots {_validate.listing(map(repr, absent))} to draw; available: "
            f"{_validate.listing(available, most=4)}"
        )
    return [int(candidates[available.get_loc(name)]) for name in names]
