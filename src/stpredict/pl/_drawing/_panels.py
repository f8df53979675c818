"""Panels of a gene in a section, and the values that they show."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from matplotlib.colors import Normalize

from stpredict import _keys, metrics
from stpredict._sdata._provenance import recorded
from stpredict.pl._drawing._measured import measured_values

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.colors import Colormap
    from numpy.typing import NDArray

    from stpredict._sdata._sections import Section
    from stpredict._sdata._spot_table import SpotTable
    from stpredict.pl._drawing._style import SpotStyle

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
    #: Ends of the colour bar beyond which there are values.
    extend: Literal["neither", "both", "max"] = "both"


def units_of(opened: SpotTable) -> str:
    """Units of the predictions in a table."""
    return str(recorded(opened.table, "predict").get("units", ""))


def row_panels(
    panels: Sequence[PanelName] | None,
    measured_table: AnnData,
    tables: Sequence[SpotTable],
    section_name: str,
    gene: str,
    style: SpotStyle,
) -> list[Panel]:
    """Panels of one gene in one section, from left to right."""
    pairs = [(opened, opened.section(section_name)) for opened in tables]
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
            row.append(
                Panel(first, f"{gene} measured", measured_columns[0], norm, units, style.cmap)
            )
        elif name == "predicted":
            for (opened, section), values, truth in zip(pairs, predicted, measured, strict=True):
                title = f"{gene} predicted" if len(tables) == 1 else f"{gene}: {opened.name}"
                title += _score(truth, values)
                row.append(Panel(section, title, values, norm, units, style.cmap))
        else:
            make_panel = _width_panel if name == "width" else _familiarity_panel
            for opened, section in pairs:
                panel = make_panel(opened, section, gene)
                note = "" if len(tables) == 1 else f" ({opened.name})"
                row.append(replace(panel, title=panel.title + note))
    return row


def _column(matrix: Any, opened: SpotTable, section: Section, gene: str) -> NDArray[Any]:
    return np.asarray(matrix[section.rows, opened.table.var_names.get_loc(gene)])


def _score(measured: NDArray[np.float64] | None, predicted: NDArray[Any]) -> str:
    """PCC for a title, if it can be computed."""
    if measured is None or len(predicted) < 2:
        return ""
    return f" (PCC {metrics.pcc(measured, predicted[:, None])[0]:.2f})"


def _width_panel(opened: SpotTable, section: Section, gene: str) -> Panel:
    bounds = []
    for layer in (_keys.LOWER, _keys.UPPER):
        if layer not in opened.table.layers:
            raise KeyError(
                f"tables[{opened.name!r}] has no layers[{layer!r}]: predict with a model that "
                "stp.tl.calibrate has calibrated"
            )
        bounds.append(_column(opened.table.layers[layer], opened, section, gene))
    width = bounds[1] - bounds[0]
    norm = Normalize(0, np.percentile(width, 99))
    title = f"{gene} width of the interval"
    return Panel(section, title, width, norm, units_of(opened), "plasma", "max")


def _familiarity_panel(opened: SpotTable, section: Section, gene: str) -> Panel:
    if _keys.FAMILIARITY not in opened.table.obs:
        raise KeyError(
            f"tables[{opened.name!r}] has no obs[{_keys.FAMILIARITY!r}]: predict with a model that "
            "stp.tl.calibrate has calibrated"
        )
    values = opened.table.obs[_keys.FAMILIARITY].to_numpy(dtype=float)[section.rows]
    label = "1: as in training"
    return Panel(
        section, "familiarity of the tiles", values, Normalize(0, 1), label, "cividis", "neither"
    )
