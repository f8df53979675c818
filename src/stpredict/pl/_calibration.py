"""Coverage of prediction intervals against their level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stpredict import _validate
from stpredict._arguments import checked
from stpredict._sdata._provenance import recorded
from stpredict._sdata._spot_table import open_table
from stpredict.pl._drawing import _axes, _coverage, _scores

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData
    from matplotlib.axes import Axes
    from numpy.typing import NDArray
    from spatialdata import SpatialData

    from stpredict.pl._drawing._coverage import Coverage

#: Level at which each fold is drawn.
_FOLD_LEVEL = 0.9
#: Panels of folds and sections extend at least this far below the level.
_MIN_RANGE = 0.15


@checked
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

    A cross-validation has two panels: the coverage of intervals that are computed from the errors
    in all other folds (pale lines for the folds, a dark one for their mean), and each fold at the
    90 % level. At most 60 genes, and 1,000 spots per fold, are used. Predictions of a calibrated
    model have one panel: the coverage in each measured section at the calibrated level. Training
    sections are marked, because their coverage does not carry over to new ones. Dots are means over
    genes; thick and thin lines contain 50 and 90 % of the genes.

    Parameters
    ----------
    sdata
        Sections with tables of :func:`stpredict.tl.cross_validate` or :func:`stpredict.tl.predict`.
    method
        Method of the cross-validation; required if there are several.
    table_name
        Table with the measured values.
    key
        Table of a cross-validation or of predictions, or several; missing ones are left out.
    axes, save
        Axes to draw on, one per panel, by default new ones; file to save the figure to.

    Returns
    -------
    numpy.ndarray
        Array (n_panels,) of :class:`matplotlib.axes.Axes`.

    Raises
    ------
    KeyError
        If no table has coverage to draw, or there is no such method.
    ValueError
        If one of several methods must be named, the folds are too few or too small for intervals,
        the measured layer is in other units, or the number of axes is wrong.

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom(2, size_px=800)
    >>> stp.pp.normalize(sdata)
    >>> stp.pp.select_genes(sdata, n_top_genes=5)
    >>> stp.pp.embed(sdata, "texture")
    >>> stp.pp.neighbors(sdata)
    >>> scores = stp.tl.cross_validate(sdata, {"ridge": stp.tl.fit_ridge})
    >>> stp.pl.calibration(sdata).shape
    (2,)
    """
    keys = _validate.name_list("key", [key] if isinstance(key, str) else key)
    tables = [open_table(sdata, name) for name in keys if name in sdata.tables]
    panels: list[_Panel] = []
    for opened in tables:
        if recorded(opened.table, "cross_validate"):
            panels += _fold_panels(opened.table, method)
        elif table_name in sdata.tables:
            coverage = _coverage.interval_coverage(opened, open_table(sdata, table_name).table)
            if coverage is not None:
                title = f"{100 * coverage.level:g} % intervals of predictions"
                panels.append(_Panel(title, [coverage]))
    if not panels or (method is not None and not any(panel.is_curve for panel in panels)):
        with_method = "" if method is None else f" with method={method!r}"
        raise KeyError(
            f"no cross-validation{with_method} and no intervals in measured spots in the tables "
            f"{_validate.listing(map(repr, keys))}; tables: {_validate.listing(sdata.tables)}: run "
            "stp.tl.cross_validate, or predict with a model of stp.tl.calibrate"
        )
    n_rows = max(len(panel.coverages[0].names) for panel in panels if not panel.is_curve)
    figsize = 4.4 * len(panels), max(3.9, 1.2 + 0.25 * n_rows)
    drawn = _axes.axes_grid(axes, figsize, (1, len(panels)))[0]
    for ax, panel in zip(drawn, panels, strict=True):
        draw = _draw_curve if panel.is_curve else _draw_rows
        draw(ax, panel.coverages)
        _scores.set_title(ax, panel.title, leaky=panel.leaky)
    return _axes.finish(drawn, save)


@dataclass(frozen=True)
class _Panel:
    """Coverage by level, drawn as a curve, or of folds or sections, drawn as rows."""

    title: str
    coverages: list[Coverage]
    is_curve: bool = False
    leaky: bool = False


def _fold_panels(table: AnnData, method: str | None) -> list[_Panel]:
    method = _coverage.method_of(table, method)
    leaky = bool(recorded(table, "cross_validate").get("leaky"))
    coverages, n_genes = _coverage.out_of_fold_coverage(table, method)
    genes = "" if n_genes == table.n_vars else f" ({n_genes} of {table.n_vars:,} genes)"
    by_fold = min(coverages, key=lambda coverage: abs(coverage.level - _FOLD_LEVEL))
    return [
        _Panel(f"{method}, out of fold{genes}", coverages, is_curve=True, leaky=leaky),
        _Panel(f"{100 * by_fold.level:g} % intervals", [by_fold], leaky=leaky),
    ]


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
    ax.set(xlabel="level of the intervals", ylabel="share of measured values inside")
    ax.legend(loc="upper left", frameon=False, fontsize="small")
    ax.spines[["top", "right"]].set_visible(False)


def _draw_rows(ax: Axes, coverages: list[Coverage]) -> None:
    (coverage,) = coverages
    ax.axvline(coverage.level, color="0.6", linestyle="--", linewidth=1)
    # x as a share of the width of the axes
    text_options: dict[str, Any] = {"transform": ax.get_yaxis_transform(), "va": "center"}
    for row, (by_gene, mean) in enumerate(zip(coverage.by_gene, coverage.means, strict=True)):
        values = by_gene[~np.isnan(by_gene)]
        if not len(values):
            ax.text(0.5, row, "no intervals", ha="center", color="0.5", **text_options)
            continue
        for percent, width in ((90, 1), (50, 4)):
            ends = np.percentile(values, [50 - percent / 2, 50 + percent / 2])
            ax.plot(ends, [row, row], color=_scores.PALE, linewidth=width, solid_capstyle="butt")
        ax.plot(mean, row, "o", color=_scores.METHOD, markersize=5)
        ax.text(1.02, row, f"{mean:.2f}", fontsize="small", **text_options)
    ax.set_xlim(min(ax.get_xlim()[0], coverage.level - _MIN_RANGE), 1)
    _scores.label_rows(ax, coverage.names)
    ax.set_ylim(len(coverage.names) - 0.4, -0.6)
    ax.set_xlabel("share of measured values inside")
