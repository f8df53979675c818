"""Panels of a gene in a section: the values that they show, and their drawing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import scipy.sparse as sp
from matplotlib.colors import Normalize

from stpredict import _keys, metrics
from stpredict._sdata._layer_steps import check_same_units
from stpredict._sdata._provenance import recorded, rows_to_score
from stpredict.pl._drawing import _axes, _section
from stpredict.targets._counts import COUNTS_UNITS, TARGET_SUM
from stpredict.targets._high import is_high

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.colors import Colormap
    from numpy.typing import NDArray

    from stpredict._sdata._sections import Section
    from stpredict._sdata._spot_table import SpotTable
    from stpredict.pl._drawing._axes import AxesLike
    from stpredict.pl._drawing._section import SpotStyle

PanelName = Literal["image", "measured", "predicted", "width", "familiarity"]


@dataclass(frozen=True)
class Panel:
    """Values of the spots of one section, and their colours; without values, the H&E."""

    section: Section
    title: str
    values: NDArray[np.floating] | None = None
    norm: Normalize | None = None
    label: str = ""
    cmap: str | Colormap = "viridis"
    extend: Literal["neither", "both", "max"] = "both"  # ends of the scale that values exceed


def measured_values(
    table: AnnData, predicted: AnnData, rows: NDArray[np.intp], genes: list[str]
) -> NDArray[np.float64] | None:
    """Measured values in the units of the predictions, (n_rows, n_genes), matched by name.

    None if the measured table lacks one of the spots or genes, or the layer; an error if the layer
    is in other units.
    """
    record = recorded(predicted, "predict")
    layer = record.get("layer")  # None is X
    spots = table.obs_names.get_indexer(predicted.obs_names[rows])
    columns = table.var_names.get_indexer(genes)
    layer_exists = layer is None or layer in table.layers
    if (spots < 0).any() or (columns < 0).any() or not layer_exists:
        return None
    check_same_units(table, record)
    all_genes: Any = (table.X if layer is None else table.layers[layer])[spots]
    values = all_genes[:, columns]
    values = np.asarray(values.toarray() if sp.issparse(values) else values, dtype=np.float64)
    if record.get("units") == COUNTS_UNITS:  # a model of counts predicts counts per 10,000
        library = np.asarray(all_genes.sum(axis=1), dtype=np.float64).reshape(-1, 1)
        # spots without counts have an expression of 0
        values = values * np.divide(TARGET_SUM, library, out=0 * library, where=library > 0)
    if _keys.THRESHOLD in predicted.var:  # predictions are probabilities of being above it
        values = is_high(values, predicted.var.loc[genes, _keys.THRESHOLD].to_numpy())
    return values


def units_of(opened: SpotTable) -> str:
    """Units of the predictions in a table."""
    return str(recorded(opened.table, "predict").get("units", ""))


def panels_of_gene(
    panels: Sequence[PanelName] | None,
    measured_table: AnnData,
    tables: Sequence[SpotTable],
    section_name: str,
    gene: str,
    style: SpotStyle,
) -> list[Panel]:
    """Panels of one gene in one section, from left to right."""
    pairs = [(opened, opened.section(section_name)) for opened in tables]
    notes = ["" if len(tables) == 1 else f" ({opened.name})" for opened in tables]
    predicted = [_column(opened.table.X, opened, section, gene) for opened, section in pairs]
    # matched to the rows of each table, which may differ in their order
    measured = [
        measured_values(measured_table, opened.table, section.rows, [gene])
        for opened, section in pairs
    ]
    measured_columns = [values[:, 0] for values in measured if values is not None]
    if panels is None:
        panels = ["image", "measured", "predicted"] if measured_columns else ["image", "predicted"]
    # percentiles, so that single spots do not stretch the scale
    norm = style.norm(*np.percentile(np.concatenate([*measured_columns, *predicted]), [1, 99]))
    first, units = pairs[0][1], units_of(tables[0])
    row: list[Panel] = []
    for name in panels:
        if name == "image":
            row.append(Panel(first, f"{first.name}: H&E"))
        elif name == "measured":
            if measured[0] is None:
                raise KeyError(f"measured values of {gene!r} are missing for these spots")
            values = measured[0][:, 0]
            row.append(Panel(first, f"{gene} measured", values, norm, units, style.cmap))
        elif name == "predicted":
            for (opened, section), values, truth in zip(pairs, predicted, measured, strict=True):
                title = f"{gene} predicted" if len(tables) == 1 else f"{gene}: {opened.name}"
                is_scored = rows_to_score(opened.table)[section.rows]
                if truth is not None and is_scored.sum() > 1:
                    pcc = metrics.pcc(truth[is_scored], values[is_scored, None])[0]
                    title += f" (PCC {pcc:.2f})"
                row.append(Panel(section, title, values, norm, units, style.cmap))
        else:
            make_panel = _width_panel if name == "width" else _familiarity_panel
            row += [make_panel(*pair, gene, note) for pair, note in zip(pairs, notes, strict=True)]
    return row


def _column(matrix: Any, opened: SpotTable, section: Section, gene: str) -> NDArray[Any]:
    return np.asarray(matrix[section.rows, opened.table.var_names.get_loc(gene)])


def _width_panel(opened: SpotTable, section: Section, gene: str, note: str) -> Panel:
    bounds = []
    for layer in (_keys.LOWER, _keys.UPPER):
        _require_calibrated(opened, "layers", layer)
        bounds.append(_column(opened.table.layers[layer], opened, section, gene))
    width = bounds[1] - bounds[0]
    finite = width[np.isfinite(width)]
    # single spots do not stretch the scale
    norm = Normalize(0, np.percentile(finite, 99) if len(finite) else 1)
    title = f"{gene} width of the interval{note}" if len(finite) else f"{gene}: no interval{note}"
    return Panel(section, title, width, norm, units_of(opened), "plasma", "max")


def _familiarity_panel(opened: SpotTable, section: Section, gene: str, note: str) -> Panel:
    _require_calibrated(opened, "obs", _keys.FAMILIARITY)
    values = opened.table.obs[_keys.FAMILIARITY].to_numpy(dtype=float)[section.rows]
    title, label = f"familiarity of the tiles{note}", "1: as in training"
    return Panel(section, title, values, Normalize(0, 1), label, "cividis", "neither")


def _require_calibrated(opened: SpotTable, slots: str, key: str) -> None:
    if key not in getattr(opened.table, slots):
        raise KeyError(
            f"tables[{opened.name!r}] has no {slots}[{key!r}]: predict with a model that "
            "stp.tl.calibrate has calibrated"
        )


def draw_panels(
    rows: Sequence[Sequence[Panel]], style: SpotStyle, axes: AxesLike, *, width: float = 4.2
) -> NDArray[Any]:
    """Draw rows of panels; those that share a scale have one colour bar, at the last of them."""
    corners = [_section.limits(row[0].section) for row in rows]
    grid = _axes.section_axes(axes, corners, max(map(len, rows)), width=width)
    for axes_of_row, row, within in zip(grid, rows, corners, strict=True):
        for ax in axes_of_row[len(row) :]:  # genes without measured values have one panel less
            ax.set_axis_off()
        pairs = list(zip(axes_of_row, row, strict=False))
        opacities = [1.0 if panel.values is None else style.img_alpha for panel in row]
        with_image = [
            (ax, panel.section, alpha)
            for (ax, panel), alpha in zip(pairs, opacities, strict=True)
            if alpha > 0
        ]
        if with_image:
            image_axes, sections, alphas = zip(*with_image, strict=True)
            _section.draw_images(image_axes, sections, within, alphas=alphas)
        else:
            _section.draw_scale_bar(axes_of_row[0])
        for position, (ax, panel) in enumerate(pairs):
            ax.set_title(_axes.plain(panel.title))
            if panel.values is None:
                continue
            spots = _section.draw_spots(
                ax, panel.section, style, panel.values, panel.norm, cmap=panel.cmap
            )
            _section.frame(ax, within)
            if all(panel.norm is not later.norm for later in row[position + 1 :]):
                ends = {} if panel.extend == "neither" else {"extendfrac": 0.03}
                _axes.draw_color_bar(ax, spots, panel.label, extend=panel.extend, **ends)
    return grid
