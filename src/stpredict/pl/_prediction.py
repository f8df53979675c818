"""Genes on the tissue: H&E, measured and predicted values, and their uncertainty."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

from stpredict import _validate
from stpredict._sdata._spot_table import open_table
from stpredict.pl._drawing import _axes, _section
from stpredict.pl._drawing._panels import Panel, PanelName, row_panels, units_of
from stpredict.pl._drawing._style import SpotStyle

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from numpy.typing import NDArray
    from spatialdata import SpatialData

    from stpredict._sdata._spot_table import SpotTable
    from stpredict.pl._drawing._axes import Limits


def prediction(
    sdata: SpatialData,
    genes: str | Sequence[str],
    *,
    section: str | Sequence[str] | None = None,
    panels: Sequence[Literal["image", "measured", "predicted", "width", "familiarity"]]
    | None = None,
    cmap: str | Colormap = "viridis",
    vmin: float | None = None,
    vmax: float | None = None,
    spot_size: float | None = None,
    alpha: float = 1.0,
    table_name: str = "table",
    key: str | Sequence[str] = "predicted",
    axes: Sequence[Axes] | NDArray[Any] | None = None,
    save: str | Path | None = None,
) -> NDArray[Any]:
    """Draw genes on the tissue: H&E, measured values, and predictions on the same colour scale.

    Each section and gene is a row. Several tables of predictions can be compared, each in a panel
    of its own.

    Parameters
    ----------
    sdata
        Sections with predictions of :func:`stpredict.tl.predict`.
    genes
        Name of a predicted gene, or several.
    section
        Name of a section, or several; by default all.
    panels
        Panels from left to right: ``"image"``, ``"measured"``, ``"predicted"``, ``"width"``
        (``layers["upper"]`` minus ``layers["lower"]``) and ``"familiarity"``
        (``obs["familiarity"]``, 1 for tiles like those in training). By default the image, the
        measured values if there are any, and the prediction.
    cmap
        Colour map of the measured and predicted values.
    vmin, vmax
        Ends of their colour scale; by default the 1st and the 99th percentile of all values in the
        row.
    spot_size
        Diameter of the spots in µm; by default the one stored with the shapes.
    alpha
        Opacity of the spots, from 0 to 1.
    table_name
        Table with the measured values.
    key
        Table with the predictions, or several.
    axes
        Axes to draw on, one per panel, row by row; by default new ones.
    save
        File to save the figure to.

    Returns
    -------
    numpy.ndarray
        Array (n_rows, n_panels) of :class:`matplotlib.axes.Axes`, or (n_panels,) for a single row.
        Axes are in µm, with the origin at the upper left of the image.

    Raises
    ------
    KeyError
        If a gene was not predicted, or a panel needs values that are missing.
    ValueError
        If there is no such section or panel, a panel is repeated, the tables have different units,
        or the number of axes is wrong.

    Examples
    --------
    >>> import stpredict as stp
    >>> stp.settings.verbosity = 0
    >>> sdata = stp.datasets.phantom(2, size_px=600)
    >>> stp.pp.normalize(sdata)
    >>> stp.pp.embed(sdata, "texture", n_subtiles=1)
    >>> model = stp.tl.fit_ridge(sdata, genes=["morphology_001", "null_001"], context="spot")
    >>> stp.tl.predict(sdata, model)
    >>> stp.pl.prediction(sdata, "morphology_001", section="S1").shape
    (3,)
    >>> stp.pl.prediction(sdata, ["morphology_001", "null_001"], panels=["predicted"]).shape
    (4, 1)
    >>> stp.settings.verbosity = 1
    """
    _require_panels(panels)
    style = SpotStyle(cmap=cmap, vmin=vmin, vmax=vmax, spot_size=spot_size, alpha=alpha)
    genes = [genes] if isinstance(genes, str) else list(genes)
    measured = open_table(sdata, table_name).table
    tables = [open_table(sdata, name) for name in ([key] if isinstance(key, str) else key)]
    _require_comparable(tables, genes)
    rows = [
        row_panels(panels, measured, tables, name, gene, style)
        for name in _section.section_names(tables[0], section)
        for gene in genes
    ]
    corners = [_section.limits(row[0].section) for row in rows]
    grid = _axes.section_axes(axes, corners, max(map(len, rows)))
    for axes_of_row, row, within in zip(grid, rows, corners, strict=True):
        for ax in axes_of_row[len(row) :]:  # genes without measured values have one panel less
            ax.set_axis_off()
        for position, (ax, panel) in enumerate(zip(axes_of_row, row, strict=False)):
            # panels that share a scale have one colour bar, at the last of them
            has_bar = all(panel.norm is not later.norm for later in row[position + 1 :])
            _draw_panel(ax, panel, style, within, has_bar=has_bar)
    _axes.save_figure(grid, save)
    return _axes.without_single_row(grid)


def _require_panels(panels: Sequence[PanelName] | None) -> None:
    """Require known panels, each named once."""
    if panels is None:
        return
    choices = get_args(PanelName)
    if isinstance(panels, str) or not len(panels):
        raise ValueError(f"panels must be a list such as {list(choices)}: {panels!r}")
    for name in panels:
        _validate.one_of("panels", name, choices)
    _validate.unique_names(panels, what="panels")


def _require_comparable(tables: Sequence[SpotTable], genes: Sequence[str]) -> None:
    """Require that every table has the genes, in units that can share a colour scale."""
    for opened in tables:
        for gene in genes:
            if gene not in opened.table.var_names:
                raise KeyError(
                    f"{gene!r} was not predicted in tables[{opened.name!r}]; predicted genes: "
                    f"{_validate.listing(opened.table.var_names)}"
                )
    units = {opened.name: units_of(opened) for opened in tables}
    if len(set(units.values())) > 1:
        raise ValueError(f"the tables have different units: {units}. Draw them separately")


def _draw_panel(ax: Axes, panel: Panel, style: SpotStyle, within: Limits, *, has_bar: bool) -> None:
    ax.set_title(panel.title)
    if panel.values is None:
        _section.draw_image(ax, panel.section, within)
    else:
        spots = _section.draw_spots(
            ax, panel.section, style, panel.values, panel.norm, cmap=panel.cmap
        )
        if has_bar:
            ends = {} if panel.extend == "neither" else {"extendfrac": 0.03}
            _axes.draw_color_bar(ax, spots, panel.label, extend=panel.extend, **ends)
    _section.frame(ax, within)
