"""H&E before and after stain normalisation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dask

from stpredict._sdata._spot_table import open_table
from stpredict.pl._drawing import _axes, _section

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from numpy.typing import NDArray
    from spatialdata import SpatialData


def stain(
    sdata: SpatialData,
    *,
    section: str | Sequence[str] | None = None,
    table_name: str = "table",
    axes: Sequence[Axes] | NDArray[Any] | None = None,
    save: str | Path | None = None,
) -> NDArray[Any]:
    """Draw sections before and after stain normalisation, side by side.

    Only a coarse pyramid level of the images is read.

    Parameters
    ----------
    sdata
        Sections on which :func:`stpredict.pp.normalize_stain` was run.
    section
        Name of a section, or several; by default all.
    table_name
        Table of the spots.
    axes
        Axes to draw on, two per section; by default new ones.
    save
        File to save the figure to.

    Returns
    -------
    numpy.ndarray
        Array (n_sections, 2) of :class:`matplotlib.axes.Axes`, or (2,) for a single section: left
        the raw image, right the normalised one. Axes are in µm, with the origin at the upper left
        of the image.

    Raises
    ------
    ValueError
        If there is no such section, no stain was normalised, or the number of axes is wrong.

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom(3, size_px=800, stain_variation=1.0)
    >>> stp.pp.normalize_stain(sdata)
    normalize_stain: 3 sections to the stain of S1, S2, S3 (macenko)
    >>> stp.pl.stain(sdata, section=["S1", "S3"]).shape
    (2, 2)
    """
    opened = open_table(sdata, table_name)
    if not any(part.normalized for part in opened.normalized_sections):
        raise ValueError(
            "the stain of no section was normalised: run stp.pp.normalize_stain(sdata) first"
        )
    normalized = {part.name: part for part in opened.normalized_sections}
    names = _section.section_names(opened, section)
    corners = [_section.limits(opened.section(name)) for name in names]
    grid = _axes.section_axes(axes, corners, 2, width=3.6)
    for (left, right), name, within in zip(grid, names, corners, strict=True):
        left.set_title(f"{name}: raw")
        right.set_title(f"{name}: {'normalised' if normalized[name].normalized else 'unchanged'}")
        pixels, extents = zip(
            *(_section.crop(part, within) for part in (opened.section(name), normalized[name])),
            strict=True,
        )
        # computed together, because the normalised image is computed from the raw one
        arrays = dask.compute(*pixels)
        for ax, array, extent in zip((left, right), arrays, extents, strict=True):
            _section.draw_pixels(ax, array, extent)
            _section.frame(ax, within)
    _axes.save_figure(grid, save)
    return _axes.without_single_row(grid)
