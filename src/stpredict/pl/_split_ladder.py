"""Scores of one method under splits from the leakiest to the strictest."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from stpredict._arguments import checked
from stpredict.pl._drawing import _axes, _scores

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from stpredict.results import Rung, SplitLadder

#: Letters in a line of a label.
_LABEL_LETTERS = 30
#: Words for the rungs; others are drawn by their names.
_LABELS = {"random_spots": "random spots", "blocks": "blocks with a buffer"}


@checked
def split_ladder(
    ladder: SplitLadder, *, ax: Axes | None = None, save: str | Path | None = None
) -> Axes:
    """Draw the score of a method under each split, and what each leak is worth.

    A line is the mean of a split, and a dot that of one section. Splits that share something
    between training and test are drawn in the colour of leaks, with what they share. Between two
    splits is their difference with its 95 % interval.

    Parameters
    ----------
    ladder
        Result of :func:`stpredict.tl.split_ladder`.
    ax, save
        Axes to draw on, by default new ones; file to save the figure to.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If the file to save has an unknown format.

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom(2, size_px=800)
    >>> stp.pp.normalize(sdata)
    >>> stp.pp.select_genes(sdata, n_top_genes=5)
    >>> stp.pp.embed(sdata, "texture")
    >>> stp.pp.neighbors(sdata)
    >>> ladder = stp.tl.split_ladder(sdata, stp.tl.fit_ridge, n_folds=2)
    >>> stp.pl.split_ladder(ladder).get_xlabel()
    'PCC of a gene within a block of a section'
    """
    ax = _axes.one_axes(ax, (7.5, 1.7 + 0.95 * len(ladder.rungs)))
    sections = ladder.by_section()
    means = sections.mean()
    for position, rung in enumerate(ladder.rungs):
        color = _scores.LEAKY if rung.leaky else _scores.METHOD
        values = sections[rung.name]
        ax.plot(values, [position] * len(values), "o", color=color, alpha=0.45, markersize=6,
                markeredgewidth=0, zorder=2)  # fmt: skip
        ax.plot(means[rung.name], position, "|", color=color, markersize=24, markeredgewidth=3,
                zorder=3)  # fmt: skip
        ax.text(1.015, position, f"{means[rung.name]:.3f}", va="center", fontsize="small",
                color=color, transform=ax.get_yaxis_transform())  # fmt: skip
    for position, (what, price) in enumerate(ladder.prices().items()):
        low, high = means[price.reference], means[price.method]
        # an arrow from the stricter to the leakier split
        ax.annotate("", (high, position + 0.18), (low, position + 0.82),
                    arrowprops={"arrowstyle": "->", "color": "0.5"})  # fmt: skip
        has_interval = price.low == price.low  # NaN for a single group
        interval = f" [{price.low:+.3f}, {price.high:+.3f}]" if has_interval else ""
        text = f"{price.difference:+.3f}{interval} for sharing {what}"
        ax.annotate(_axes.plain(text), (max(low, high), position + 0.5), (10, 0),
                    textcoords="offset points", va="center", fontsize="small")  # fmt: skip
    # room for the prices to the right of the arrows
    low, high = min(0.0, sections.min(axis=None)), max(0.0, sections.max(axis=None))
    ax.set_xlim(low - 0.03 * (high - low), high + 1.45 * (high - low))
    ax.set_xticks([tick for tick in ax.get_xticks() if low <= tick <= high])
    ax.axvline(0, color="0.8", linewidth=0.8, zorder=0)
    _scores.label_rows(ax, [_label(rung) for rung in ladder.rungs])
    for label, rung in zip(ax.get_yticklabels(), ladder.rungs, strict=True):
        label.set_color(_scores.LEAKY if rung.leaky else "black")
    ax.set_ylim(len(ladder.rungs) - 0.5, -0.5)
    ax.set_xlabel("PCC of a gene within a block of a section")
    n_genes = ladder.table.index.get_level_values("gene").nunique()
    counts = _scores.count(n_genes, "gene"), _scores.count(len(sections), "section")
    _scores.set_title(ax, ", ".join(counts), leaky=False, loc="left")
    if ladder.impossible:
        reasons = "; ".join(f"{name}: {why}" for name, why in ladder.impossible.items())
        ax.annotate(_axes.plain(f"Not possible: {reasons}"), (0, 0), (0, -38),
                    xycoords="axes fraction", textcoords="offset points", va="top",
                    fontsize=7, color="0.35", wrap=True)  # fmt: skip
    return _axes.finish(ax, save)


def _label(rung: Rung) -> str:
    name = _LABELS.get(rung.name, rung.name)
    shared = f"LEAKY: shares {', '.join(rung.shared)}" if rung.leaky else "nothing shared"
    return f"{name}\n{textwrap.fill(shared, _LABEL_LETTERS)}"
