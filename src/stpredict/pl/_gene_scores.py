"""Scores of genes, from the best predicted to the worst."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.transforms import offset_copy
from pandas.api.types import is_bool_dtype

from stpredict import _validate
from stpredict._arguments import checked
from stpredict.pl._drawing import _axes, _scores
from stpredict.results import NOISE_CEILING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from stpredict.results import Scores

#: Font size and line height of gene names, in points.
_FONT_PT, _LINE_PT = 7.0, 9.0
#: More genes are drawn small, and references with a moving mean.
_MANY_GENES = 100


@checked
def gene_scores(
    scores: Scores,
    *,
    method: str | None = None,
    reliable: pd.Series | Sequence[str] | None = None,
    n_names: int = 10,
    ax: Axes | None = None,
    save: str | Path | None = None,
) -> Axes:
    """Draw the PCC of every gene, with the best baseline and the noise ceiling.

    A dot is the mean of a gene over the sections in which it was predicted; its line extends from
    the worst section to the best. With more than 100 genes, references have a moving mean. Genes
    are sorted by the method's own scores, which favours it at the top: compare means with
    `metrics`.

    Parameters
    ----------
    scores
        Scores of :func:`stpredict.tl.cross_validate` or :func:`stpredict.tl.evaluate`.
    method
        Name of a method; required if there are several.
    reliable
        Genes that are drawn dark: names, or a boolean series such as ``predicted.var["reliable"]``.
    n_names
        Number of the best and of the worst genes that are named; fewer if the axes are too low.
    ax, save
        Axes to draw on, by default new ones; file to save the figure to.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    KeyError
        If there is no such method, or no PCC.
    TypeError
        If ``reliable`` is a single name, or a series that is not boolean.
    ValueError
        If one of several methods must be named, the method has no finite PCC, ``reliable`` has none
        of the genes or is missing for one, or ``n_names`` is negative.

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom(2, size_px=800)
    >>> stp.pp.normalize(sdata)
    >>> stp.pp.select_genes(sdata, n_top_genes=5)
    >>> stp.pp.embed(sdata, "texture")
    >>> stp.pp.neighbors(sdata)
    >>> scores = stp.tl.cross_validate(sdata, {"ridge": stp.tl.fit_ridge})
    >>> stp.pl.gene_scores(scores).get_xlabel()
    'PCC: mean over sections, line from worst to best'
    """
    if n_names < 0:
        raise ValueError(f"n_names must be at least 0: {n_names}")
    wide = scores.values("pcc")
    available = [name for name in wide if name != NOISE_CEILING]
    methods = [name for name in scores.methods if name in available]
    method = _scores.choose_method(method, methods, available, what="PCC")
    by_gene = wide[method].dropna().groupby(level="gene")
    genes = by_gene.agg(["mean", "min", "max"]).sort_values("mean", ascending=False, kind="stable")
    if genes.empty:
        raise ValueError(f"{method} has no finite pcc")
    is_reliable = _reliable_genes(genes.index, reliable)
    height = 1.6 + min(4.6, 0.16 * max(len(genes), 4))
    ax = _axes.one_axes(ax, (7.5, height))
    _draw_genes(ax, genes, is_reliable, method)
    baseline = _scores.best_baseline(scores, "pcc", wide.mean().dropna())
    for name, color in ((baseline, _scores.BASELINE), (NOISE_CEILING, _scores.CEILING)):
        if name is not None and name in wide and name != method:
            values = wide[name].groupby(level="gene").mean().reindex(genes.index)
            _draw_reference(ax, values, color, _axes.plain(_scores.label_of(name)))
    _scores.draw_chance(ax, "pcc")
    ax.set_ylim(len(genes) - 0.5, -0.5)
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_xlabel("PCC: mean over sections, line from worst to best")
    ax.legend(loc="upper left", bbox_to_anchor=(1.02, 1), frameon=False, fontsize="small",
              borderaxespad=0)  # fmt: skip
    n_sections = wide[method].dropna().index.get_level_values("section").nunique()
    counts = _scores.count(len(genes), "gene"), _scores.count(n_sections, "section")
    _scores.set_title(ax, f"{method}: {', '.join(counts)}", leaky=scores.leaky, loc="left")
    _scores.write_protocol(ax, scores)
    _name_genes(ax, list(genes.index), n_names)
    return _axes.finish(ax, save)


def _reliable_genes(
    genes: pd.Index, reliable: pd.Series | Sequence[str] | None
) -> NDArray[np.bool_] | None:
    """Whether each gene is reliable; None if it is not known."""
    if reliable is None:
        return None
    if isinstance(reliable, str):
        raise TypeError(f"reliable must be a series or a list of genes, not one name: {reliable!r}")
    is_series = isinstance(reliable, pd.Series)
    flags: Any = reliable if is_series else pd.Series(True, index=list(reliable), dtype=bool)
    if not is_bool_dtype(flags.dtype):
        raise TypeError(f"reliable must be a boolean series by gene, not {flags.dtype}")
    if flags.isna().any():
        raise ValueError(
            f"reliable is missing for {int(flags.isna().sum())} genes, as in predictions of "
            "unfamiliar sections: leave it out"
        )
    listed = flags.index
    if len(listed) and not genes.isin(listed).any():
        raise ValueError(
            f"reliable has none of the scored genes: {_validate.listing(listed)}; scored genes: "
            f"{_validate.listing(genes)}" + _validate.why_absent(listed, genes)
        )
    return np.asarray(genes.isin(listed[flags.to_numpy(dtype=bool)]))


def _draw_genes(
    ax: Axes, genes: pd.DataFrame, is_reliable: NDArray[np.bool_] | None, method: str
) -> None:
    """Draw a dot per gene, dark if it is reliable, and a line over its sections."""
    n, position = len(genes), np.arange(len(genes))
    groups = [(np.ones(n, dtype=bool), _scores.METHOD, method)]
    if is_reliable is not None:
        groups = [
            (is_reliable, _scores.METHOD, f"{method}, reliable"),
            (~is_reliable, _scores.PALE, f"{method}, not reliable"),
        ]
    many = n > _MANY_GENES  # drawn small, and as pixels in vector graphics
    for in_group, color, label in groups:
        part = genes[in_group]
        ax.hlines(position[in_group], part["min"], part["max"], colors=color, zorder=2,
                  alpha=min(0.8, 150 / n), linewidth=0.5 if many else 1.2,
                  rasterized=many)  # fmt: skip
        label = _axes.plain(f"{label} ({len(part):,})")
        ax.scatter(part["mean"], position[in_group], s=6 if many else 18, color=color, linewidths=0,
                   label=label, rasterized=many, zorder=3)  # fmt: skip


def _draw_reference(ax: Axes, values: pd.Series, color: str, label: str) -> None:
    """Draw a baseline or the ceiling: marks, or for many genes pale dots and a moving mean."""
    n, position = len(values), np.arange(len(values))
    if n <= _MANY_GENES:
        ax.scatter(values, position, s=40, color=color, marker="|", linewidths=1.5, label=label)
        return
    ax.scatter(values, position, s=3, color=color, alpha=min(0.6, 500 / n), linewidths=0, zorder=1,
               rasterized=True)  # fmt: skip
    smooth = values.rolling(n // 20, center=True, min_periods=1).mean()
    ax.plot(smooth, position, color=color, linewidth=1.5, label=f"{label}: moving mean", zorder=4)


def _name_genes(ax: Axes, genes: list[str], n_names: int) -> None:
    """Name the first and the last genes, in two columns with leaders that do not overlap."""
    figure = ax.figure.canvas.figure  # the figure itself, also for axes in a subfigure
    figure.draw_without_rendering()  # the layout decides how high the axes are
    height_pt = ax.get_window_extent().height / figure.dpi * 72
    n = min(n_names, len(genes), int(height_pt / _LINE_PT / 2))
    if len(genes) <= 2 * n_names and len(genes) * _LINE_PT <= height_pt:
        ax.set_yticks(range(len(genes)), map(_axes.plain, genes), fontsize=_FONT_PT)
        return
    ax.set_yticks([])
    order = range(len(genes))
    # the best from the upper edge downwards, the worst from the lower edge upwards
    for positions, edge, sign in ((order[:n], 1, -1), (order[::-1][:n], 0, 1)):
        for line, position in enumerate(positions):
            y_pt = sign * (line + 0.5) * _LINE_PT
            text_transform = offset_copy(ax.transAxes, figure, x=-16, y=y_pt, units="points")
            ax.annotate(
                _axes.plain(genes[position]), (0, position), (0, edge), ("axes fraction", "data"),
                text_transform, fontsize=_FONT_PT, ha="right", va="center",
                arrowprops={"arrowstyle": "-", "color": "0.7", "linewidth": 0.5, "shrinkA": 1,
                            "shrinkB": 0, "relpos": (1, 0.5)},
            )  # fmt: skip
