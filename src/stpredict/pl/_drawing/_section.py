"""Drawing of a section: its image, its spots and its tiles, in µm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dask
import matplotlib
import numpy as np
from matplotlib.collections import EllipseCollection
from matplotlib.colors import Normalize
from matplotlib_scalebar.scalebar import ScaleBar

from stpredict import _validate, tiles

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import dask.array as da
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from numpy.typing import NDArray

    from stpredict._sdata._sections import Section
    from stpredict._sdata._spot_table import SpotTable
    from stpredict.pl._drawing._axes import Limits

    #: Left, right, bottom, top in µm.
    Extent = tuple[float, float, float, float]
    Crop = tuple[da.Array, Extent]

#: Largest side of an image that is drawn: sharp in a panel of a few inches.
_MAX_PX = 1500
#: Margin around the spots, as a share of their extent.
_MARGIN = 0.06


@dataclass(frozen=True)
class SpotStyle:
    """Look of the spots, as the caller chose it."""

    cmap: str | Colormap = "viridis"
    vmin: float | None = None  # None: the scale fits the values
    vmax: float | None = None
    spot_size: float | None = None  # diameter in µm; None: as stored with the shapes
    alpha: float = 1.0
    img_alpha: float = 0.0  # of the H&E under the spots

    def __post_init__(self) -> None:
        if self.spot_size is not None:
            _validate.positive("spot_size", self.spot_size, unit="µm")
        _validate.share("alpha", self.alpha)
        _validate.share("img_alpha", self.img_alpha)
        if isinstance(self.cmap, str) and self.cmap not in matplotlib.colormaps:
            raise ValueError(f"cmap={self.cmap!r} is not the name of a colormap of matplotlib")

    def norm(self, low: float, high: float) -> Normalize:
        """Colour scale between two values, unless the caller chose other ends."""
        return Normalize(
            low if self.vmin is None else self.vmin, high if self.vmax is None else self.vmax
        )


def section_names(opened: SpotTable, section: str | Sequence[str] | None) -> list[str]:
    """Names of the sections that a picture is to show; all by default."""
    names = opened.section_names if section is None else section
    names = _validate.name_list("section", [names] if isinstance(names, str) else names)
    for name in names:
        _validate.one_of("section", name, opened.section_names)
    return names


def sections_to_draw(
    opened: SpotTable, section: str | Sequence[str] | None, *, normalized: bool = False
) -> list[Section]:
    """Sections by name, in that order, on raw or normalised images; all by default."""
    names = section_names(opened, section)
    sections = opened.normalized_sections if normalized else opened.sections
    return [sections[opened.section_names.index(name)] for name in names]


def limits(section: Section, *points_um: NDArray[np.floating]) -> Limits:
    """Corners of the spots and further points, with a margin; without any, of the image; in µm."""
    edge = np.array(section.shape_yx[::-1]) * section.mpp
    points = np.concatenate([section.centers_um, *points_um])
    if not len(points):
        return np.zeros(2), edge
    low, high = points.min(axis=0), points.max(axis=0)
    margin = _MARGIN * (high - low).max() + section.radius_um.max(initial=0)
    return np.maximum(low - margin, 0), np.minimum(high + margin, edge)


def crop(section: Section, corners: Limits) -> Crop:
    """Image between two corners, lazy (3, y, x), from the finest level that is not too large."""
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


def draw_images(
    axes: Sequence[Axes],
    sections: Sequence[Section],
    corners: Limits,
    *,
    alphas: Sequence[float] | None = None,
) -> None:
    """Draw images of one place, between two corners in µm, which become the limits of the axes.

    The first of the axes has a scale bar.
    """
    alphas = [1.0] * len(axes) if alphas is None else alphas
    pixels, extents = zip(*(crop(section, corners) for section in sections), strict=True)
    # computed together, because a normalised image is computed from the raw one
    images = dask.compute(*pixels)
    for ax, image, extent, alpha in zip(axes, images, extents, alphas, strict=True):
        ax.imshow(image.transpose(1, 2, 0), extent=extent, alpha=alpha)
        frame(ax, corners)
    draw_scale_bar(axes[0])


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
    """Set axes in µm, with the origin at the upper left as in images, and without ticks."""
    (left, top), (right, bottom) = corners
    ax.set(xlim=(left, right), ylim=(bottom, top), aspect="equal", xticks=[], yticks=[])


def frame_tile(ax: Axes, extent: Extent) -> None:
    """Set axes of a tile in µm, with a scale bar."""
    left, right, bottom, top = extent
    frame(ax, (np.array([left, top]), np.array([right, bottom])))
    draw_scale_bar(ax)


def draw_scale_bar(ax: Axes) -> None:
    """Draw the length of a round number of µm or mm into axes in µm."""
    look = {"location": "lower left", "length_fraction": 0.25, "box_alpha": 0.7, "border_pad": 0.5}
    ax.add_artist(ScaleBar(1, "µm", **look))


def read_tiles_of(
    sections: Sequence[Section], rows: Sequence[int], *, tile_um: float, tile_px: int
) -> Iterator[tuple[int, NDArray[np.uint8], Extent]]:
    """Index among ``rows``, tile (3, y, x) and extent of some spots, in any order.

    Tiles are read as networks receive them.
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
    obs_names: pd.Index, names: str | Sequence[str], candidates: Sequence[NDArray[np.intp]]
) -> list[int]:
    """Rows of spots by name; each must be one of the candidate rows, by section."""
    names = [names] if isinstance(names, str) else list(names)
    available = obs_names[np.concatenate(candidates)]
    absent = [name for name in names if name not in available]
    if absent or not names:
        raise KeyError(
            f"no spots {_validate.listing(map(repr, absent))} to draw; available: "
            f"{_validate.listing(available, most=4)}"
        )
    return obs_names.get_indexer(names).tolist()
