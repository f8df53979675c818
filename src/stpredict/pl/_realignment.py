"""Spots before and after realignment, and why they were moved."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.lines import Line2D

from stpredict import _keys
from stpredict._sdata import _provenance, _sections
from stpredict.alignment import move_points
from stpredict.pl._drawing import _section

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from numpy.typing import NDArray
    from spatialdata import SpatialData


def realignment(
    sdata: SpatialData, *, section: str | None = None, axes: Sequence[Axes] | None = None
) -> NDArray[Any]:
    """Draw the spots of a section before and after realignment, and the score of every shift.

    Parameters
    ----------
    sdata
        Sections that :func:`stpredict.pp.realign` was run on.
    section
        Name of the section; may be left out where there is one.
    axes
        Axes to draw into: one, or two where the motion was estimated.

    Returns
    -------
    numpy.ndarray
        The axes: H&E with the spots before (dashed) and after (solid) in µm; where the motion was
        estimated, the score of the coarse search by shift, with no shift and the chosen one, and
        how much of a gain it took to move the spots.

    Raises
    ------
    KeyError
        If there is no such section, or it was not realigned.
    ValueError
        If there are several sections and none is named, or the number of axes is wrong.

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom(misalignment_um=(80, -60))
    >>> stp.settings.verbosity = 0
    >>> stp.pp.realign(sdata)
    >>> axes = stp.pl.realignment(sdata)
    >>> stp.settings.verbosity = 1
    """
    found = _section.choose(_sections.sections(sdata), section)
    record = _provenance.recorded(_sections.table_of(sdata), _keys.REALIGN).get(found.name)
    if record is None:
        raise KeyError(f"section {found.name!r} was not realigned: run stp.pp.realign first")
    matrix = np.asarray(record["matrix"], dtype=float)
    n_panels = 2 if "surface" in record else 1
    before = move_points(_inverse(matrix), found.centers_um)
    within = _section.limits(found, more=[before])
    drawn = (
        _section.new_axes(n_panels, within, width=4.8)
        if axes is None
        else _section.given_axes(axes, n_panels)
    )
    _section.draw_image(drawn[0], found, within)
    _draw_spots(drawn[0], found, before)
    _section.frame(drawn[0], within)
    if n_panels == 2:
        _draw_surface(drawn[1], record, (found.centers_um - before).mean(axis=0))
    return drawn


def _draw_spots(ax: Axes, section: _sections.Section, before: NDArray[np.float64]) -> None:
    distance = np.linalg.norm(section.centers_um - before, axis=1)
    look: dict[str, Any] = {"facecolors": "none", "linewidths": 0.8}
    _section.draw_spots(ax, section, edgecolors="black", **look)
    if not distance.any():
        ax.set_title(f"{section.name}: left alone")
        return
    spots = _section.draw_spots(ax, section, edgecolors="tab:red", linestyles="dashed", **look)
    spots.set_offsets(before)
    ax.set_title(f"{section.name}: moved by {np.median(distance):.0f} µm (median)")
    handles = [
        Line2D([], [], color="tab:red", linestyle="dashed", label="before"),
        Line2D([], [], color="black", label="after"),
    ]
    ax.legend(handles=handles, loc="best")


def _draw_surface(ax: Axes, record: dict[str, Any], shift: NDArray[np.float64]) -> None:
    shifts = np.asarray(record["shifts_um"], dtype=float)
    half = (shifts[1] - shifts[0]) / 2
    low, high = shifts[0] - half, shifts[-1] + half
    shown = ax.imshow(np.asarray(record["surface"]), extent=(low, high, high, low))
    ax.plot(0, 0, "o", markerfacecolor="none", color="tab:red", label="no shift")
    if record["moved"]:
        ax.plot(*shift, "x", color="black", label="chosen")
    ax.legend(loc="best")
    ax.set(xlabel="shift in x (µm)", ylabel="shift in y (µm)")
    gain, required, noise = (f"{record[name]:.3f}" for name in ("gain", "required", "noise"))
    ax.set_title(f"gain {gain}, required {required}\nby chance up to {noise}")
    _section.draw_bar(ax, shown, "score (½ tissue contrast + explained variance)")


def _inverse(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.linalg.inv(matrix), dtype=np.float64)
