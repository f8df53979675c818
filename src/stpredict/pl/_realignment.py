"""Spots before and after realignment, and the evidence for moving them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stpredict import _keys, _validate
from stpredict._arguments import checked
from stpredict._sdata._provenance import recorded
from stpredict._sdata._spot_table import open_table
from stpredict.alignment import move_points
from stpredict.pl._drawing import _axes, _section
from stpredict.pl._drawing._section import SpotStyle

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from numpy.typing import NDArray
    from spatialdata import SpatialData

    from stpredict._sdata._sections import Section


@checked
def realignment(
    sdata: SpatialData,
    *,
    section: str | Sequence[str] | None = None,
    cmap: str | Colormap = "viridis",
    spot_size: float | None = None,
    alpha: float = 1.0,
    table_name: str = "table",
    axes: Sequence[Axes] | NDArray[Any] | None = None,
    save: str | Path | None = None,
) -> NDArray[Any]:
    """Draw the spots of sections before and after realignment, and the score of every shift.

    Parameters
    ----------
    sdata
        Sections on which :func:`stpredict.pp.realign` was run.
    section
        Name of a section, or several; by default all that were realigned.
    cmap
        Colour map of the scores.
    spot_size, alpha
        Diameter of the spots in µm, by default as stored, and their opacity from 0 to 1.
    table_name
        Table of the spots.
    axes, save
        Axes to draw on, row by row, by default new ones; file to save the figure to.

    Returns
    -------
    numpy.ndarray
        Array (n_sections, n_panels) of :class:`matplotlib.axes.Axes`, or (n_panels,) for a single
        section. The first panel shows the H&E with the spots before (dashed) and after (solid), in
        µm; the second, if the motion was estimated, the score by shift and the required gain.

    Raises
    ------
    KeyError
        If a section was not realigned.
    ValueError
        If there is no such section, or the number of axes is wrong.

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom(misalignment_um=(80, -60))
    >>> stp.pp.realign(sdata)
    >>> axes = stp.pl.realignment(sdata)
    """
    style = SpotStyle(cmap=cmap, spot_size=spot_size, alpha=alpha)
    opened = open_table(sdata, table_name)
    records = recorded(opened.table, _keys.REALIGN)
    sections = _section.sections_to_draw(opened, section)
    missing = [part.name for part in sections if part.name not in records]
    if len(missing) == len(sections) or (section is not None and missing):
        raise KeyError(
            f"sections that were not realigned: {_validate.listing(missing)}: "
            "run stp.pp.realign first"
        )
    sections = [part for part in sections if part.name in records]
    before = [
        move_points(np.linalg.inv(np.asarray(records[part.name]["matrix"], float)), part.centers_um)
        for part in sections
    ]
    corners = [_section.limits(*pair) for pair in zip(sections, before, strict=True)]
    n_panels = 1 + any("surface" in records[part.name] for part in sections)
    grid = _axes.section_axes(axes, corners, n_panels, width=4.8)
    for (first, *others), part, points, within in zip(grid, sections, before, corners, strict=True):
        _section.draw_images([first], [part], within)
        _draw_motion(first, part, points, style)
        record = records[part.name]
        for ax in others:
            if "surface" in record:
                _draw_surface(ax, record, (part.centers_um - points).mean(axis=0), style)
            else:  # a given motion has no scores
                ax.set_axis_off()
    return _axes.finish(grid, save)


def _draw_motion(ax: Axes, section: Section, before: NDArray[np.float64], style: SpotStyle) -> None:
    distance = np.linalg.norm(section.centers_um - before, axis=1)
    outline: dict[str, Any] = {"facecolors": "none", "linewidths": 0.8}
    _section.draw_spots(ax, section, style, edgecolors="black", **outline)
    if not distance.any():
        ax.set_title(f"{section.name}: not moved")
        return
    outline |= {"edgecolors": "tab:red", "linestyles": "dashed"}
    _section.draw_spots(ax, section, style, **outline).set_offsets(before)
    ax.set_title(f"{section.name}: moved by {np.median(distance):.0f} µm (median)")
    # empty lines, because matplotlib has no legend entries for ellipses
    ax.plot([], [], color="tab:red", linestyle="dashed", label="before")
    ax.plot([], [], color="black", label="after")
    ax.legend(loc="best")


def _draw_surface(
    ax: Axes, record: dict[str, Any], shift: NDArray[np.float64], style: SpotStyle
) -> None:
    shifts = np.asarray(record["shifts_um"], dtype=float)
    half = (shifts[1] - shifts[0]) / 2
    low, high = shifts[0] - half, shifts[-1] + half
    image = ax.imshow(np.asarray(record["surface"]), extent=(low, high, high, low), cmap=style.cmap)
    ax.plot(0, 0, "o", markerfacecolor="none", color="tab:red", label="no shift")
    if record["moved"]:
        ax.plot(*shift, "x", color="black", label="selected shift")
    ax.legend(loc="best")
    ax.set(xlabel="shift in x (µm)", ylabel="shift in y (µm)")
    gain, required, noise = (f"{record[name]:.3f}" for name in ("gain", "required", "noise"))
    ax.set_title(f"gain {gain}, required {required}\nby chance up to {noise}")
    _axes.draw_color_bar(ax, image, "score (½ tissue contrast + explained variance)")
