"""Genes on the tissue: H&E, measured and predicted values, and their uncertainty."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from stpredict import _validate
from stpredict._arguments import checked
from stpredict._sdata._spot_table import open_table
from stpredict.pl._drawing import _axes, _panels, _section
from stpredict.pl._drawing._section import SpotStyle

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from numpy.typing import NDArray
    from spatialdata import SpatialData


@checked
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
    img_alpha: float = 0.5,
    table_name: str = "table",
    key: str | Sequence[str] = "predicted",
    axes: Sequence[Axes] | NDArray[Any] | None = None,
    save: str | Path | None = None,
) -> NDArray[Any]:
    """Draw genes on the tissue: H&E, measured values, and predictions on the same colour scale.

    Each section and gene is a row. Each of several tables of predictions has its own panel. The
    colour bar names the units, and a scale bar in the first panel of a row the size.

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
        of the interval and ``"familiarity"`` of the tile, 1 as in training. By default the image,
        the measured values if there are any, and the prediction.
    cmap, vmin, vmax
        Colour map of the measured and predicted values, and ends of their scale; by default the 1st
        and the 99th percentile of all values in the row.
    spot_size, alpha
        Diameter of the spots in µm, by default as stored, and their opacity from 0 to 1.
    img_alpha
        Opacity of the H&E under the spots, from 0 to 1.
    table_name, key
        Table with the measured values, and table with the predictions, or several.
    axes, save
        Axes to draw on, row by row, by default new ones; file to save the figure to.

    Returns
    -------
    numpy.ndarray
        Axes in µm, (n_rows, n_panels), or (n_panels,) for a single row.

    Raises
    ------
    KeyError
        If a gene was not predicted, or a panel needs values that are missing.
    TypeError
        If genes or tables are not names.
    ValueError
        If there is no such section or panel, a gene, table or panel is repeated, the units of
        tables or of the measured layer differ, or the number of axes is wrong.

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom(2, size_px=600)
    >>> stp.pp.normalize(sdata)
    >>> stp.pp.embed(sdata, "texture", n_subtiles=1)
    >>> model = stp.tl.fit_ridge(sdata, genes=["morphology_001", "null_001"], context="spot")
    >>> stp.tl.predict(sdata, model)
    >>> stp.pl.prediction(sdata, "morphology_001", section="S1").shape
    (3,)
    >>> stp.pl.prediction(sdata, ["morphology_001", "null_001"], panels=["predicted"]).shape
    (4, 1)
    """
    if panels is not None:
        _validate.name_list("panels", panels)
    style = SpotStyle(
        cmap=cmap, vmin=vmin, vmax=vmax, spot_size=spot_size, alpha=alpha, img_alpha=img_alpha
    )
    genes = _validate.name_list("genes", [genes] if isinstance(genes, str) else genes)
    keys = _validate.name_list("key", [key] if isinstance(key, str) else key)
    measured = open_table(sdata, table_name).table
    tables = [open_table(sdata, name) for name in keys]
    for opened in tables:
        _validate.present(genes, opened.table.var_names)
    units = {opened.name: _panels.units_of(opened) for opened in tables}
    if len(set(units.values())) > 1:
        raise ValueError(f"the tables have different units: {units}. Draw them separately")
    rows = [
        _panels.panels_of_gene(panels, measured, tables, part.name, gene, style)
        for part in _section.sections_to_draw(tables[0], section)
        for gene in genes
    ]
    return _axes.finish(_panels.draw_panels(rows, style, axes), save)
