"""Coverage of prediction intervals against their level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np

from stpredict import _validate
from stpredict._sdata._provenance import recorded
from stpredict._sdata._spot_table import open_table, require_spatialdata
from stpredict.pl._drawing import _axes, _scores
from stpredict.pl._drawing._coverage import (
    Coverage,
    choose_method,
    interval_coverage,
    out_of_fold_coverage,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData
    from matplotlib.axes import Axes
    from numpy.typing import NDArray
    from spatialdata import SpatialData

    from stpredict._sdata._spot_table import SpotTable

#: Level at which each fold is drawn.
_FOLD_LEVEL = 0.9
#: Panels of folds and sections extend at least this far below the level.
_MIN_RANGE = 0.15


def calibration(
    sdata: SpatialData,
    *,
    method: str | None = None,
    table_name: str = "table",
    key: str | Sequence[str] = ("out_of_fold", "predicted"),
    axes: Sequence[Axes] | NDArray[Any] | None = None,
    save: str | Path | None = None,
) -> NDArray[Any]:
    """Draw the share of measured values inside their intervals against the level of the intervals.

    For a cross-validation, two panels. The first shows the coverage of intervals that are computed
    from the errors in all other folds: a pale line for each fold, and the mean over folds. The
    second shows each fold at the 90 % level. At most 60 genes, and 1,000 spots per fold, are used.

    For predictions of a calibrated model in measured spots, one panel: the coverage in each section
    at the level of the calibration. Sections that the model was trained on are marked, because
    their coverage does not carry over to new sections.

    In panels of folds or sections, the dot is the mean over genes; the thick and thin lines contain
    50 and 90 % of the genes.

    Parameters
    ----------
    sdata
        Sections with tables of :func:`stpredict.tl.cross_validate`, or of
        :func:`stpredict.tl.predict` with a calibrated model.
    method
        Method of the cross-validation; required if there are several.
    table_name
        Table with the measured values.
    key
        Table of a cross-validation or of predictions, or several; those that are missing are left
        out.
    axes
        Axes to draw on, one per panel; by default new ones.
    save
        File to save the figure to.

    Returns
    -------
    numpy.ndarray
        Array (n_panels,) of :class:`matplotlib.axes.Axes`.

    Raises
    ------
    KeyError
        If no table has coverage to draw, or there is no such method.
    ValueError
        If there are several methods and none is named, the folds are too few or too small for
        intervals, or the number of axes is wrong.

    Examples
    --------
    >>> import stpredict as stp
    >>> stp.settings.verbosity = 0
    >>> sdata = stp.datasets.phantom(2, size_px=800)
    >>> stp.pp.normalize(sdata)
    >>> stp.pp.select_genes(sdata, n_top_genes=5)
    >>> stp.pp.embed(sdata, "texture")
    >>> stp.pp.neighbors(sdata)
    >>> scores = stp.tl.cross_validate(sdata, {"ridge": stp.tl.fit_ridge})
    >>> stp.pl.calibration(sdata).shape
    (2,)
    >>> stp.settings.verbosity = 1
    """
    require_spatialdata(sdata)
    keys = [key] if isinstance(key, str) else list(key)
    tables = [open_table(sdata, name) for name in keys if name in sdata.tables]
    panels: list[_Panel] = []
    for opened in tables:
        if recorded(opened.table, "cross_validate"):
            panels += _fold_panels(opened.table, method)
        elif table_name in sdata.tables:
            panels += _section_panels(opened, open_table(sdata, table_name).table)
    if not panels or (method is not None and not any(panel.is_curve for panel in panels)):
        with_method = "" if method is None else f" with method={method!r}"
        raise KeyError(
            f"no cross-validation{with_method} and no intervals in measured spots in the tables "
            f"{_validate.listing(keys)}; tables: {_validate.listing(sdata.tables)}: run "
            "stp.tl.cross_validate, or predict with a model of stp.tl.calibrate"
        )
    drawn = _new_axes(panels) if axes is None else _axes.require_axes(axes, len(panels))
    for ax, panel in zip(drawn, panels, strict=True):
        if panel.is_curve:
            _draw_curve(ax, panel.coverages)
        else:
            _draw_rows(ax, panel.coverages[0])
        ax.set_title(panel.title)
        if panel.leaky:
            _scores.mark_leaky(ax, panel.title)
    _axes.save_figure(drawn, save)
    return drawn


@dataclass(frozen=True)
class _Panel:
    """Coverage by level, drawn as a curve, or of folds or sections, drawn as rows."""

    title: str
    coverages: list[Coverage]
    is_curve: bool = False
    leaky: bool = False


def _fold_panels(table: AnnData, method: str | None) -> list[_Panel]:
    method = choose_method(table, method)
    leaky = bool(recorded(table, "cross_validate").get("leaky"))
    coverages, n_genes = out_of_fold_coverage(table, method)
    genes = "" if n_genes == table.n_vars else f" ({n_genes} of {table.n_vars:,} genes)"
    by_fold = min(coverages, key=lambda coverage: abs(coverage.level - _FOLD_LEVEL))
    return [
        _Panel(f"{method}, out of fold{genes}", coverages, is_curve=True, leaky=leaky),
        _Panel(f"{100 * by_fold.level:g} % intervals", [by_fold], leaky=leaky),
    ]


def _section_panels(opened: SpotTable, measured_table: AnnData) -> list[_Panel]:
    coverage = interval_coverage(opened, measured_table)
    if coverage is None:
        return []
    return [_Panel(f"{100 * coverage.level:g} % intervals of predictions", [coverage])]


def _new_axes(panels: list[_Panel]) -> NDArray[Any]:
    n_rows = max(len(panel.coverages[0].names) for panel in panels if not panel.is_curve)
    size = 4.4 * len(panels), max(3.9, 1.2 + 0.25 * n_rows)
    _, grid = plt.subplots(1, len(panels), figsize=size, layout="constrained", squeeze=False)
    return np.asarray(grid[0])


def _draw_curve(ax: Axes, coverages: list[Coverage]) -> None:
    levels = [coverage.level for coverage in coverages]
    folds = np.array([coverage.means for coverage in coverages])  # (n_levels, n_folds)
    predicted = folds[:, ~np.isnan(folds).any(axis=0)]
    low = min(levels[0], float(predicted.min(initial=1))) - 0.05
    ax.plot([low, 1], [low, 1], color="0.6", linestyle="--", linewidth=1, label="ideal")
    for number, fold in enumerate(predicted.T):
        ax.plot(levels, fold, color=_scores.PALE, linewidth=1,
                label=None if number else f"a fold (of {predicted.shape[1]})")  # fmt: skip
    ax.plot(levels, predicted.mean(axis=1), "o-", color=_scores.METHOD, markersize=4.5,
            label="mean over folds")  # fmt: skip
    ax.set(xlim=(low, 1), ylim=(low, 1), aspect="equal")
    ax.set_xlabel("level of the intervals")
    ax.set_ylabel("share of measured values inside")
    ax.legend(loc="upper left", frameon=False, fontsize="small")
    ax.spines[["top", "right"]].set_visible(False)


def _draw_rows(ax: Axes, coverage: Coverage) -> None:
    ax.axvline(coverage.level, color="0.6", linestyle="--", linewidth=1)
    for row, (by_gene, mean) in enumerate(zip(coverage.by_gene, coverage.means, strict=True)):
        values = by_gene[~np.isnan(by_gene)]
        if not len(values):
            ax.annotate("not predicted", (0.5, row), xycoords=("axes fraction", "data"),
                        ha="center", va="center", color="0.5")  # fmt: skip
            continue
        for percent, width in ((90, 1), (50, 4)):
            ends = np.percentile(values, [50 - percent / 2, 50 + percent / 2])
            ax.plot(ends, [row, row], color=_scores.PALE, linewidth=width, solid_capstyle="butt")
        ax.plot(mean, row, "o", color=_scores.METHOD, markersize=5)
        ax.annotate(f"{mean:.2f}", (1.02, row), va="center", fontsize="small",
                    xycoords=("axes fraction", "data"))  # fmt: skip
    ax.set_xlim(min(ax.get_xlim()[0], coverage.level - _MIN_RANGE), 1)
    _scores.label_rows(ax, coverage.names)
    ax.set_ylim(len(coverage.names) - 0.4, -0.6)
    ax.set_xlabel("share of measured values inside")
