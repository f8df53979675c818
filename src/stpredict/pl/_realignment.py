"""Spots before and after realignment, and why they were moved."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.collections import EllipseCollection

from stpredict import _keys, _provenance, _sections
from stpredict.alignment import apply
from stpredict.pl._prediction import _choose, _draw_image

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from numpy.typing import NDArray
    from spatialdata import SpatialData

#: Margin around the spots, in radii.
_MARGIN = 4


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
        estimated, the score of the coarse search by shift, with no shift and the chosen one.

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
    found = _choose(_sections.sections(sdata), section)
    record = _provenance.recorded(_sections.table_of(sdata), _keys.REALIGN).get(found.name)
    if record is None:
        raise KeyError(f"section {found.name!r} was not realigned: run stp.pp.realign first")
    matrix = np.asarray(record["matrix"], dtype=float)
    n_panels = 2 if "surface" in record else 1
    if axes is None:
        _, made = plt.subplots(1, n_panels, figsize=(5.5 * n_panels, 4.8), layout="constrained")
        drawn = np.atleast_1d(np.asarray(made))
    else:
        drawn = np.asarray(axes).ravel()
        if len(drawn) != n_panels:
            raise ValueError(f"{n_panels} axes are needed, {len(drawn)} given")
    _draw_spots(drawn[0], found, matrix, moved=bool(record["moved"]))
    if n_panels == 2:
        _draw_surface(drawn[1], found, record, matrix)
    return drawn


def _draw_spots(
    ax: Axes, section: _sections.Section, matrix: NDArray[np.float64], *, moved: bool
) -> None:
    _draw_image(ax, section)
    after = section.centers_um
    before = apply(_inverse(matrix), after)
    width = 2 * section.radius_um
    drawn = [("after", after, "solid", "black")]
    if moved:
        drawn.insert(0, ("before", before, "dashed", "tab:red"))
    for label, centers, style, color in drawn:
        ax.add_collection(
            EllipseCollection(
                width, width, np.zeros(len(width)), units="xy", offsets=centers,
                offset_transform=ax.transData, facecolors="none", edgecolors=color,
                linestyles=style, linewidths=0.8, label=label,
            )
        )  # fmt: skip
    both = np.concatenate([before, after])
    rim = _MARGIN * section.radius_um.max()
    (left, top), (right, bottom) = both.min(axis=0) - rim, both.max(axis=0) + rim
    ax.set(xlim=(left, right), ylim=(bottom, top), aspect="equal", xlabel="µm")
    if moved:
        ax.plot([], [], color="tab:red", linestyle="dashed", label="before")
        ax.plot([], [], color="black", label="after")
        handles = ax.get_legend_handles_labels()[0][-2:]
        ax.legend(handles=handles, loc="best")
    distance = np.linalg.norm(after - before, axis=1)
    ax.set_title(
        f"{section.name}: moved by {np.median(distance):.0f} µm (median)"
        if moved
        else f"{section.name}: left alone"
    )


def _draw_surface(
    ax: Axes, section: _sections.Section, record: dict[str, Any], matrix: NDArray[np.float64]
) -> None:
    shifts = np.asarray(record["shifts_um"], dtype=float)
    half = (shifts[1] - shifts[0]) / 2
    extent = (shifts[0] - half, shifts[-1] + half, shifts[-1] + half, shifts[0] - half)
    picture = ax.imshow(np.asarray(record["surface"]), extent=extent, cmap="viridis")
    before = apply(_inverse(matrix), section.centers_um)
    dx, dy = (section.centers_um - before).mean(axis=0)
    ax.plot(0, 0, "o", markerfacecolor="none", color="tab:red", label="no shift")
    if record["moved"]:
        ax.plot(dx, dy, "x", color="black", label="chosen")
    ax.legend(loc="best")
    ax.set(xlabel="shift in x (µm)", ylabel="shift in y (µm)")
    ax.set_title(f"gain {record['gain']:.2f}, by chance up to {record['noise']:.2f}")
    bar = ax.inset_axes((1.04, 0, 0.05, 1))
    ax.figure.colorbar(picture, cax=bar, label="score (½ tissue contrast + explained variance)")


def _inverse(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.linalg.inv(matrix), dtype=np.float64)
