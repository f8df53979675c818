"""Genes by how well they are predicted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.transforms import offset_copy

from stpredict import _validate
from stpredict.pl._drawing import _scores
from stpredict.results import NOISE_CEILING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from stpredict.results import CrossValidation

_FONT_PT, _LINE_PT = 7.0, 9.0
#: More genes than these are drawn small, and with a moving mean of what stands beside.
_MANY = 100


def gene_scores(
    result: CrossValidation,
    *,
    method: str | None = None,
    reliable: pd.Series | Sequence[str] | None = None,
    n_names: int = 10,
    ax: Axes | None = None,
) -> Axes:
    """Draw the out-of-fold PCC of every gene, the best on top, beside tuned ridge and the ceiling.

    A dot is a gene's mean over the sections in which it was predicted, its line reaches from the
    worst section to the best. Of tuned ridge on several embeddings, the best is drawn. Of more than
    100 genes, the moving mean of ridge and of the noise ceiling is drawn over their dots. The order
    is the method's own: its luckiest genes stand on top, so there it looks better beside ridge than
    it is; the means of `metrics` compare them.

    Parameters
    ----------
    result
        Of :func:`stpredict.tl.cross_validate`.
    method
        Which; needed where there are several.
    reliable
        Genes that the method can be trusted on, drawn dark: their names, or a boolean series by
        gene such as ``predicted.var["reliable"]``.
    n_names
        How many of the best genes, and of the worst, are named; fewer where the axes are too low.
    ax
        Axes to draw on, by default new ones.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    KeyError
        If there is no such method, or the result has no ``"pcc"``.
    TypeError
        If ``reliable`` is a series that is not boolean.
    ValueError
        If there are several methods and none is named, no PCC of it is a number, none of the
        genes said to be reliable was predicted, or ``n_names`` is negative.

    Examples
    --------
    >>> import stpredict as stp
    >>> result = stp.tl.cross_validate(sdata, {"ridge": stp.tl.fit_ridge})  # doctest: +SKIP
    >>> ax = stp.pl.gene_scores(result)  # doctest: +SKIP
    """
    if n_names < 0:
        raise ValueError(f"n_names must be at least 0: {n_names}")
    wide = result.values("pcc")
    method = _choose(result, wide, method)
    by_gene = wide[method].dropna().groupby(level="gene")
    scores = by_gene.agg(["mean", "min", "max"]).sort_values("mean", ascending=False, kind="stable")
    if scores.empty:
        raise ValueError(f"no pcc of {method} is a number")
    trusted = _trusted(scores.index, reliable)
    if ax is None:
        height = 1.6 + min(4.6, 0.16 * max(len(scores), 4))
        _, ax = plt.subplots(figsize=(7.5, height), layout="constrained")
    _draw_genes(ax, scores, trusted, method)
    ridge = _scores.best_ridge("pcc", wide.mean().dropna())
    for name, colour in ((ridge, _scores.RIDGE), (NOISE_CEILING, _scores.CEILING)):
        if name is not None and name in wide and name != method:
            values = _scores.by_gene(wide[name]).reindex(scores.index)
            _draw_beside(ax, values, colour, _scores.words(name))
    _scores.draw_chance(ax, "pcc")
    ax.set_ylim(len(scores) - 0.5, -0.5)
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_xlabel("PCC: mean over sections, line from worst to best")
    ax.legend(loc="upper left", bbox_to_anchor=(1.02, 1), frameon=False, fontsize="small",
              borderaxespad=0)  # fmt: skip
    n_sections = wide[method].dropna().index.get_level_values("section").nunique()
    counts = _scores.counted(len(scores), "gene"), _scores.counted(n_sections, "section")
    _scores.head(ax, result, f"{method}: {', '.join(counts)}")
    _scores.foot(ax, result)
    _name(ax, list(scores.index), n_names)
    return ax


def _choose(result: CrossValidation, wide: pd.DataFrame, method: str | None) -> str:
    known = [name for name in wide if name != NOISE_CEILING]
    if method is None:
        scored = [name for name in result.methods if name in known]
        if len(scored) != 1:
            raise ValueError(
                f"there are {len(scored)} methods with a PCC, choose one: method={known[0]!r}, …"
            )
        return scored[0]
    if method not in known:
        raise KeyError(f"no PCC of {method!r}; there is of: {_validate.listing(known)}")
    return method


def _trusted(
    genes: pd.Index, reliable: pd.Series | Sequence[str] | None
) -> NDArray[np.bool_] | None:
    """Which genes are reliable; None where it was not told."""
    if reliable is None:
        return None
    if isinstance(reliable, str):
        raise TypeError(f"reliable must be a series or a list of genes, not one name: {reliable!r}")
    if isinstance(reliable, pd.Series):
        if reliable.dtype != bool:
            raise TypeError(f"reliable must be a boolean series by gene, not {reliable.dtype}")
        known, names = reliable.index, reliable.index[reliable]
    else:
        known = names = pd.Index(list(reliable), dtype=object)
    if len(known) and not genes.isin(known).any():
        raise ValueError(
            f"reliable has none of the genes of the scores: {_validate.listing(known)}; scores are "
            f"of {_validate.listing(genes)}" + _validate.why_absent(known, genes)
        )
    return np.asarray(genes.isin(names))


def _draw_genes(
    ax: Axes, scores: pd.DataFrame, trusted: NDArray[np.bool_] | None, method: str
) -> None:
    """Draw a dot per gene, dark where it is reliable, and a line over its sections."""
    n, at = len(scores), np.arange(len(scores))
    if trusted is None:
        groups = [(np.ones(n, dtype=bool), _scores.METHOD, method)]
    else:
        groups = [
            (trusted, _scores.METHOD, f"{method}, reliable"),
            (~trusted, _scores.PALE, f"{method}, not reliable"),
        ]
    for chosen, colour, words in groups:
        some = scores[chosen]
        ax.hlines(at[chosen], some["min"], some["max"], colors=colour, zorder=2,
                  alpha=min(0.8, 150 / n), linewidth=0.5 if n > _MANY else 1.2,
                  rasterized=n > _MANY)  # fmt: skip
        ax.scatter(some["mean"], at[chosen], s=6 if n > _MANY else 18, color=colour, linewidths=0,
                   label=f"{words} ({len(some):,})", rasterized=n > _MANY, zorder=3)  # fmt: skip


def _draw_beside(ax: Axes, values: pd.Series, colour: str, words: str) -> None:
    """Draw what the genes are to be read by: of many genes pale, with its moving mean."""
    n, at = len(values), np.arange(len(values))
    if n <= _MANY:
        ax.scatter(values, at, s=40, color=colour, marker="|", linewidths=1.5, label=words)
        return
    ax.scatter(values, at, s=3, color=colour, alpha=min(0.6, 500 / n), linewidths=0, zorder=1,
               rasterized=True)  # fmt: skip
    smooth = values.rolling(n // 20, center=True, min_periods=1).mean()
    ax.plot(smooth, at, color=colour, linewidth=1.5, label=f"{words}: moving mean", zorder=4)


def _name(ax: Axes, genes: list[str], n_names: int) -> None:
    """Name the first and the last genes, in two columns that do not overlap, with leaders."""
    figure = ax.figure.canvas.figure  # also of axes in a subfigure
    figure.draw_without_rendering()  # lays out what is there: how high are the axes?
    height = ax.get_window_extent().height / figure.dpi * 72
    n = min(n_names, len(genes), int(height / _LINE_PT / 2))
    if len(genes) <= 2 * n_names and len(genes) * _LINE_PT <= height:
        ax.set_yticks(range(len(genes)), genes, fontsize=_FONT_PT)
        return
    ax.set_yticks([])
    for ends, edge, sign in (
        (range(n), 1, -1),
        (range(len(genes) - 1, len(genes) - n - 1, -1), 0, 1),
    ):
        for line, at in enumerate(ends):
            place = offset_copy(ax.transAxes, figure, x=-16,
                                y=sign * (line + 0.5) * _LINE_PT, units="points")  # fmt: skip
            ax.annotate(
                genes[at], (0, at), (0, edge), ("axes fraction", "data"), place,
                fontsize=_FONT_PT, ha="right", va="center",
                arrowprops={"arrowstyle": "-", "color": "0.7", "linewidth": 0.5, "shrinkA": 1,
                            "shrinkB": 0, "relpos": (1, 0.5)},
            )  # fmt: skip
