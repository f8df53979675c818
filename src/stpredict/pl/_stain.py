"""H&E before and after stain normalisation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stpredict._arguments import checked
from stpredict._sdata._spot_table import open_table
from stpredict.pl._drawing import _axes, _section
from stpredict.pl._drawing._panels import Panel, draw_panels

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from numpy.typing import NDArray
    from spatialdata import SpatialData


@checked
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
    axes, save
        Axes to draw on, two per section, by default new ones; file to save the figure to.

    Returns
    -------
    numpy.ndarray
        Axes in µm, (n_sections, 2), or (2,) for a single section: left raw, right normalised.

    Raises
    ------
    ValueError
        If there is no such section, no stain was normalised, or the number of axes is wrong.

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom(3, size_px=800, stain_variation=1.0)
    >>> stp.pp.normalize_stain(sdata)
    >>> stp.pl.stain(sdata, section=["S1", "S3"]).shape
    (2, 2)
    """
    opened = open_table(sdata, table_name)
    raw = _section.sections_to_draw(opened, section)
    normalized = _section.sections_to_draw(opened, section, normalized=True)
    if opened.stain is None:
        raise ValueError("no stain was normalised: run stp.pp.normalize_stain(sdata) first")
    panels = []
    for before, after in zip(raw, normalized, strict=True):
        title = f"{after.name}: {'normalised' if after.normalized else 'unchanged'}"
        panels.append([Panel(before, f"{before.name}: raw"), Panel(after, title)])
    return _axes.finish(draw_panels(panels, _section.SpotStyle(), axes, width=3.6), save)
