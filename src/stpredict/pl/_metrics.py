"""Scores of all methods, with the nulls and the noise ceiling."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stpredict._arguments import checked
from stpredict.pl._drawing import _axes, _scores
from stpredict.pl._drawing._scores import ScoreRow
from stpredict.results import NOISE_CEILING

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from stpredict.results import Scores

#: One marker shape per section, unless there are too many to distinguish.
_MARKERS = "osD^vP"
#: Nulls of a metric: end of their name, label, colour, distance below the row.
_NULLS = (
    ("shuffled", "shuffled predictions", _scores.SHUFFLED, 0.16),
    ("spatial_null", "spatial null", _scores.SPATIAL, 0.29),
)


@checked
def metrics(
    scores: Scores, *, metric: str = "pcc", ax: Axes | None = None, save: str | Path | None = None
) -> Axes:
    """Draw a metric of all methods over the genes, with the nulls and the noise ceiling.

    One row per method, the best on top, and baselines and references below. A row shows the
    density of the genes (means over sections; fewer than 12 genes are dots), their quartiles as a
    bar, the mean of each section as a marker, and the mean over sections as a number. Below each
    method are its nulls: shuffled predictions, and predictions that were moved within the section.
    The mean of the best baseline is a dashed line. The noise ceiling is a line at its mean, and a
    band between the quartiles of its genes.

    Parameters
    ----------
    scores
        Scores of :func:`stpredict.tl.cross_validate` or :func:`stpredict.tl.evaluate`.
    metric
        Name of a metric of genes or of whole sections.
    ax, save
        Axes to draw on, by default new ones; file to save the figure to.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    KeyError
        If there is no such metric.
    ValueError
        If it has no finite value.

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom(2, size_px=800)
    >>> stp.pp.normalize(sdata)
    >>> stp.pp.select_genes(sdata, n_top_genes=5)
    >>> stp.pp.embed(sdata, "texture")
    >>> stp.pp.neighbors(sdata)
    >>> scores = stp.tl.cross_validate(sdata, {"ridge": stp.tl.fit_ridge})
    >>> stp.pl.metrics(scores).get_xlabel()
    'PCC of a gene, mean over sections'
    """
    wide = scores.values(metric)
    rows = {name: ScoreRow.from_values(wide[name]) for name in wide if wide[name].notna().any()}
    if not rows:
        raise ValueError(f"{metric} has no finite value")
    means = pd.Series({name: row.mean for name, row in rows.items() if name != NOISE_CEILING})
    ranked = _scores.ranked(metric, means)
    methods = [name for name in ranked if name in scores.methods]
    methods += [name for name in scores.methods if name not in rows]
    names = [*methods, *(name for name in ranked if name not in methods)]
    baseline = _scores.best_baseline(scores, metric, means)
    ax = _axes.one_axes(ax, (7.5, 1.6 + 0.5 * len(names)))
    markers = _section_markers(ax, wide)
    colors = dict.fromkeys(scores.baselines, _scores.BASELINE)
    colors |= dict.fromkeys(scores.methods, _scores.METHOD)
    for position, name in enumerate(names):
        if name in rows:
            rows[name].draw(ax, position, markers, colors.get(name, _scores.REFERENCE))
        else:
            failed = any(failure.method == name for failure in scores.failures)
            text = "failed in every fold" if failed else "not scored"
            ax.text(0.5, position, text, ha="center", va="center", color=_scores.LEAKY,
                    transform=ax.get_yaxis_transform())  # fmt: skip
    _draw_nulls(ax, scores, metric, methods)
    _draw_references(ax, rows, baseline)
    _scores.draw_chance(ax, metric)
    _label(ax, rows, names, len(methods))
    ax.legend(loc="upper left", bbox_to_anchor=(1.13, 1), frameon=False, fontsize="small",
              borderaxespad=0)  # fmt: skip
    _describe(ax, scores, metric, wide)
    return _axes.finish(ax, save)


def _describe(ax: Axes, scores: Scores, metric: str, wide: pd.DataFrame) -> None:
    """Write the title, the axis label and the protocol."""
    genes, sections = (set(wide.index.get_level_values(level)) for level in ("gene", "section"))
    per_gene = genes != {""}  # metrics of whole sections have no gene
    note = " of a gene, mean over sections" if per_gene else ", by section"
    label = _scores.record_of(metric).label
    ax.set_xlabel(f"{label}{note}{_scores.direction(metric)}")
    counts = [_scores.count(len(genes), "gene")] if per_gene else []
    counts.append(_scores.count(len(sections), "section"))
    _scores.set_title(ax, ", ".join(counts), leaky=scores.leaky, loc="left")
    _scores.write_protocol(ax, scores)


def _section_markers(ax: Axes, wide: pd.DataFrame) -> dict[str, str]:
    """Marker shape of each section, with an entry in the legend."""
    sections = list(dict.fromkeys(wide.index.get_level_values("section")))
    if len(sections) <= len(_MARKERS):
        markers = dict(zip(sections, _MARKERS, strict=False))
        labels = {f"mean of {section}": shape for section, shape in markers.items()}
    else:
        markers = dict.fromkeys(sections, "o")
        labels = {f"mean of one of {len(sections)} sections": "o"}
    for label, shape in labels.items():
        ax.plot([], [], shape, label=label, **_scores.SECTION_MARK)  # only for the legend
    return markers


def _draw_nulls(ax: Axes, scores: Scores, metric: str, methods: list[str]) -> None:
    """Draw the nulls of every method below it."""
    for kind, label, color, below in _NULLS:
        null = f"{metric}_{kind}"
        if null not in scores.metrics:
            continue
        wide = scores.values(null)
        look: dict[str, Any] = {"color": color, "markersize": 7, "markeredgewidth": 1.6}
        for position, name in enumerate(methods):
            if name in wide and wide[name].notna().any():
                row = ScoreRow.from_values(wide[name])
                low, high = np.percentile(row.genes, [5, 95])
                ax.plot([low, high], [position + below] * 2, color=color, linewidth=1, alpha=0.7)
                ax.plot(row.mean, position + below, "|", **look)
        label = f"{label}:\n5–95 % of genes, mean"
        ax.plot([], [], marker="|", linewidth=1, label=label, **look)


def _draw_references(ax: Axes, rows: dict[str, ScoreRow], baseline: str | None) -> None:
    """Draw the baseline and the noise ceiling through all rows."""
    if baseline is not None:
        label = _axes.plain(f"{_scores.label_of(baseline)}: mean")
        ax.axvline(rows[baseline].mean, color=_scores.BASELINE, linestyle="--", linewidth=1,
                   zorder=0.5, label=label)  # fmt: skip
    if NOISE_CEILING in rows:
        mean, genes = rows[NOISE_CEILING].mean, rows[NOISE_CEILING].genes
        ax.axvline(mean, color=_scores.CEILING, linewidth=1, zorder=0.5,
                   label=f"noise ceiling: mean {mean:.2f}")  # fmt: skip
        ax.axvspan(*np.percentile(genes, [25, 75]), color=_scores.CEILING, alpha=0.13, linewidth=0,
                   zorder=0, label="noise ceiling:\nquartiles of genes")  # fmt: skip


def _label(ax: Axes, rows: dict[str, ScoreRow], names: list[str], n_methods: int) -> None:
    """Write the names of the rows on the left, and their means on the right."""
    n_sections = max(len(row.sections) for row in rows.values())
    labels = []
    for position, name in enumerate(names):
        label = _scores.label_of(name)
        if name in rows:
            n = len(rows[name].sections)
            label += f"\n({n} of {n_sections} sections)" if n < n_sections else ""
            ax.text(1.015, position, f"{rows[name].mean:.2f}", va="center", fontsize="small",
                    transform=ax.get_yaxis_transform())  # fmt: skip
        labels.append(label)
    ax.annotate("mean", (1.015, 1), xycoords="axes fraction", xytext=(0, 3),
                textcoords="offset points", fontsize="small", color="0.35")  # fmt: skip
    _scores.label_rows(ax, labels)
    if 0 < n_methods < len(names):
        ax.axhline(n_methods - 0.5, color="0.7", linewidth=0.6)
    ax.set_ylim(len(names) - 0.45, -0.6)
