"""Precision-recall and ROC curves of high expression."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps
from sklearn import metrics

from stpredict import _validate
from stpredict._arguments import checked
from stpredict._sdata._spot_table import open_table
from stpredict.pl._drawing import _axes, _scores
from stpredict.pl._drawing._pairs import paired_sections, units_of
from stpredict.pl._drawing._section import section_names
from stpredict.targets._high import HIGH_UNITS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from numpy.typing import NDArray
    from spatialdata import SpatialData

    from stpredict.pl._drawing._pairs import PairedSection

#: One line style per table.
_STYLES = ("-", "--", ":", "-.")


@checked
def precision_recall(
    sdata: SpatialData,
    genes: str | Sequence[str],
    *,
    section: str | Sequence[str] | None = None,
    method: str | None = None,
    table_name: str = "table",
    key: str | Sequence[str] = "predicted",
    axes: Sequence[Axes] | NDArray[Any] | None = None,
    save: str | Path | None = None,
) -> NDArray[Any]:
    """Draw precision-recall and ROC curves of high expression, by gene and section.

    Each gene is a row, with precision-recall curves on the left and ROC curves on the right, one
    colour per section, and one line style per table. Spots are high above the threshold of training
    (``targets="high"``). Thin lines are chance: the share of high spots in a section, and the
    diagonal. Legends have the average precision with its chance level, and the area under the ROC
    curve. Sections that were in training are marked.

    Parameters
    ----------
    sdata
        Sections with probabilities of :func:`stpredict.tl.predict` and measured expression, or of
        :func:`stpredict.tl.cross_validate`.
    genes
        Name of a predicted gene, or several.
    section
        Name of a section, or several; by default all.
    method
        Method of a cross-validation; required if there are several.
    table_name, key
        Table with the measured values, and table with the predictions (``"out_of_fold"`` for those
        of a cross-validation), or up to four of them.
    axes, save
        Axes to draw on, row by row, by default new ones; file to save the figure to.

    Returns
    -------
    numpy.ndarray
        Array (n_genes, 2) of :class:`matplotlib.axes.Axes`, or (2,) for a single gene.

    Raises
    ------
    KeyError
        If a table, a gene, a method or measured values are missing.
    ValueError
        If a table does not hold probabilities of high expression, there is no such section, one of
        several methods must be named, there are more than four tables, or the number of axes is
        wrong.

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom(2, size_px=600)
    >>> stp.pp.normalize(sdata)
    >>> stp.pp.embed(sdata, "texture", n_subtiles=1)
    >>> options = {"genes": ["morphology_001"], "context": "spot", "targets": "high"}
    >>> stp.tl.predict(sdata, stp.tl.fit_ridge(sdata, **options))
    >>> stp.pl.precision_recall(sdata, "morphology_001").shape
    (2,)
    """
    genes = _validate.name_list("genes", [genes] if isinstance(genes, str) else genes)
    keys = _validate.name_list("key", [key] if isinstance(key, str) else key)
    if len(keys) > len(_STYLES):
        raise ValueError(f"key has {len(keys)} tables, at most {len(_STYLES)} can be distinguished")
    measured = open_table(sdata, table_name).table
    tables = [open_table(sdata, name) for name in keys]
    for opened in tables:
        if not units_of(opened.table).startswith(HIGH_UNITS):
            raise ValueError(
                f"tables[{opened.name!r}] holds no probabilities of high expression: predict or "
                'cross-validate with models of targets="high"'
            )
    names = section_names(tables[0], section)
    options: dict[str, Any] = {"measured_table": measured, "method": method}
    parts = [paired_sections(opened, genes, names, **options) for opened in tables]
    shown = _axes.axes_grid(axes, (9.4, 4.2 * len(genes)), (len(genes), 2))
    for gene, (name, row) in enumerate(zip(genes, shown, strict=True)):
        curves = [
            (part, colormaps["tab10"](place % 10), style)
            for of_table, style in zip(parts, _STYLES, strict=False)
            for place, part in enumerate(of_table)
        ]
        for part, color, style in curves:
            label = part.section if len(keys) == 1 else f"{part.section}, {part.source}"
            _draw_curves(row, part, gene, label + part.note, color=color, linestyle=style)
        _label(row, name, leaky=any(part.leaky for part, *_ in curves))
    return _axes.finish(shown, save)


def _draw_curves(
    axes: NDArray[Any], part: PairedSection, gene: int, label: str, **look: Any
) -> None:
    """Draw both curves of a gene in a section, with chance; only a note where there is none."""
    is_high, score = part.measured[:, gene], part.predicted[:, gene]
    share = float(is_high.mean())
    if np.isnan(score).any() or share in (0, 1):
        reason = "not predicted" if np.isnan(score).any() else f"all {'high' if share else 'low'}"
        for ax in axes:
            ax.plot([], [], label=_axes.plain(f"{label}: {reason}"), **look)
        return
    precision, recall, _ = metrics.precision_recall_curve(is_high, score)
    average = metrics.average_precision_score(is_high, score)
    text = _axes.plain(f"{label}: {average:.2f} (chance {share:.2f})")
    # precision does not change between two thresholds as a straight line does
    axes[0].plot(recall, precision, drawstyle="steps-post", label=text, **look)
    axes[0].axhline(share, color=look["color"], linewidth=0.7, alpha=0.7, zorder=0.5)
    false_rate, true_rate, _ = metrics.roc_curve(is_high, score)
    text = _axes.plain(f"{label}: {metrics.roc_auc_score(is_high, score):.2f}")
    axes[1].plot(false_rate, true_rate, label=text, **look)


def _label(axes: NDArray[Any], gene: str, *, leaky: bool) -> None:
    axes[1].plot([0, 1], [0, 1], color="0.6", linewidth=0.7, zorder=0.5, label="chance: 0.50")
    labels = (
        ("precision and recall", "recall", "precision", "average precision"),
        ("ROC", "false positive rate", "true positive rate", "area"),
    )
    for ax, (curve, x, y, legend) in zip(axes, labels, strict=True):
        ax.set(xlim=(0, 1), ylim=(0, 1.02), aspect="equal", xlabel=x, ylabel=y)
        _scores.set_title(ax, f"{gene}: {curve}", leaky=leaky)
        ax.legend(title=legend, loc="lower left" if ax is axes[0] else "lower right",
                  frameon=False, fontsize="small", title_fontsize="small")  # fmt: skip
        ax.spines[["top", "right"]].set_visible(False)
