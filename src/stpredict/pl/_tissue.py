"""Detected tissue, and how much of each spot it covers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stpredict import _keys, _validate
from stpredict._arguments import checked
from stpredict._sdata._images import without_spots
from stpredict._sdata._spot_table import open_table
from stpredict._sdata._tissue import stored_tissue_mask
from stpredict._sdata._wsi import attach_slide
from stpredict.pl._drawing import _axes, _section
from stpredict.pl._drawing._section import SpotStyle

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from numpy.typing import NDArray
    from spatialdata import SpatialData

    from stpredict._sdata._sections import Section
    from stpredict._sdata._tissue import TissueMask

#: A green that is visible on haematoxylin, on eosin and on glass.
_OUTLINE_COLOR = "#00c853"


@checked
def tissue(
    sdata: SpatialData,
    *,
    section: str | Sequence[str] | None = None,
    cmap: str | Colormap = "viridis",
    vmin: float | None = None,
    vmax: float | None = None,
    spot_size: float | None = None,
    alpha: float = 0.7,
    table_name: str = "table",
    ax: Axes | None = None,
    save: str | Path | None = None,
) -> Axes | NDArray[Any]:
    """Draw the H&E with the outline of the tissue, and the share of each spot that it covers.

    Parameters
    ----------
    sdata
        Object on which :func:`stpredict.pp.detect_tissue` was run.
    section
        Name of a section or of an image, or several; by default all sections, or all images if
        there is no table.
    cmap, vmin, vmax
        Colour map of the spots, and ends of its scale; by default 0 and 1.
    spot_size, alpha
        Diameter of the spots in µm, by default as stored, and their opacity from 0 to 1.
    table_name
        Table of the spots.
    ax, save
        Axes to draw a single section on, by default new ones; file to save the figure to.

    Returns
    -------
    matplotlib.axes.Axes | numpy.ndarray
        Axes in µm; an array (n_sections,) for several sections. Spots are coloured by
        ``obs["tissue_fraction"]``, or outlined if it is unknown.

    Raises
    ------
    KeyError
        If there is no such section or image, or no tissue was detected in it.
    ValueError
        If the µm per pixel of an image are unknown, or ``ax`` is given for several sections.

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom(size_px=600)
    >>> stp.pp.detect_tissue(sdata)
    >>> stp.pl.tissue(sdata, section="S1").get_title()
    'S1: 0.23 mm² of tissue'
    """
    style = SpotStyle(cmap=cmap, vmin=vmin, vmax=vmax, spot_size=spot_size, alpha=alpha)
    attach_slide(sdata)
    table = sdata.tables.get(table_name)
    sections = _sections_and_images(sdata, table_name, section)
    masks = [stored_tissue_mask(sdata, part.image, part.shape_yx) for part in sections]
    missing = [
        _keys.tissue(part.image) for part, mask in zip(sections, masks, strict=True) if mask is None
    ]
    if len(missing) == len(sections) or (section is not None and missing):
        raise KeyError(
            f"no labels {_validate.listing(map(repr, missing))}; labels: "
            f"{_validate.listing(sdata.labels)}: run stp.pp.detect_tissue first"
        )
    pairs = [(part, mask) for part, mask in zip(sections, masks, strict=True) if mask is not None]
    corners = [_section.limits(part, _mask_corners(mask) * part.mpp) for part, mask in pairs]
    grid = _axes.section_axes(ax, corners, 1, width=6.0)[:, 0]
    for panel, (part, mask), within in zip(grid, pairs, corners, strict=True):
        _section.draw_images([panel], [part], within)
        # padded with glass, so that outlines are closed where tissue meets the border of the image
        padded = np.pad(mask.mask, 1).astype(float)
        x, y = (
            (np.arange(size) - 0.5) * scale * part.mpp
            for size, scale in zip(padded.shape[::-1], mask.scale, strict=True)
        )
        panel.contour(x, y, padded, levels=[0.5], colors=_OUTLINE_COLOR, linewidths=1.2)
        if len(part.rows):
            _draw_fractions(panel, part, table, style)
        area = mask.mask.mean() * np.prod(np.array(part.shape_yx) * part.mpp / 1000)
        panel.set_title(f"{part.name}: {area:.2g} mm² of tissue")
    grid = _axes.finish(grid, save)
    return grid[0] if len(grid) == 1 else grid


def _sections_and_images(
    sdata: SpatialData, table_name: str, section: str | Sequence[str] | None
) -> list[Section]:
    """Sections, and images without spots, by name; by default all of one kind."""
    # the default table may be absent: slides have tissue before they have spots
    has_table = table_name in sdata.tables or table_name != _keys.TABLE
    sections = list(open_table(sdata, table_name).sections) if has_table else []
    if section is None and sections:
        return sections
    images = list(sdata.images)
    names = images if section is None else [section] if isinstance(section, str) else section
    names = _validate.name_list("section", names)
    selected = []
    for name in names:
        matching = [part for part in sections if name in (part.name, part.image)]
        if not matching and name not in images:
            raise KeyError(
                f"no section or image {name!r}; sections: "
                f"{_validate.listing(part.name for part in sections)}; images: "
                f"{_validate.listing(images)}"
            )
        selected += matching or [without_spots(sdata, name, _keys.section_of(name))]
    return selected


def _mask_corners(mask: TissueMask) -> NDArray[np.float64]:
    """Upper left and lower right corner of the tissue, in pixels of the image's finest level."""
    y, x = (np.flatnonzero(mask.mask.any(axis=axis)) for axis in (1, 0))
    ends = [[x[0], y[0]], [x[-1] + 1, y[-1] + 1]] if len(y) else np.empty((0, 2))
    return np.asarray(ends) * mask.scale


def _draw_fractions(ax: Axes, section: Section, table: AnnData, style: SpotStyle) -> None:
    """Draw spots coloured by their share of tissue, or outlined if it is unknown."""
    column = table.obs.get(_keys.TISSUE_FRACTION)
    fraction = None if column is None else column.to_numpy(dtype=float)[section.rows]
    if fraction is None or np.isnan(fraction).any():
        outline: dict[str, Any] = {"facecolors": "none", "edgecolors": "black", "linewidths": 0.6}
        _section.draw_spots(ax, section, style, **outline)
        return
    spots = _section.draw_spots(ax, section, style, fraction, style.norm(0, 1), linewidths=0)
    _axes.draw_color_bar(ax, spots, "tissue under the spot (share)")
