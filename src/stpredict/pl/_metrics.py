"""Methods side by side, with what their scores are to be read by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from scipy.stats import gaussian_kde

from stpredict.pl._drawing import _scores
from stpredict.results import NOISE_CEILING, TUNED_RIDGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from stpredict.results import CrossValidation

#: Fewer genes are drawn one by one, not as a density.
_DENSITY = 12
#: One shape per section, as long as they can be told apart.
_MARKERS = "osD^vP"
#: Nulls of each method: suffix of the metric, words, colour, how far below the row.
_OWN_NULLS = (
    ("shuffled", "shuffled embeddings", _scores.SHUFFLED, 0.16),
    ("spatial_null", "spatial null", _scores.SPATIAL, 0.29),
)


@dataclass(frozen=True)
class _Row:
    """Scores of a method: mean over sections of each gene, mean over genes of each section."""

    genes: pd.Series
    sections: pd.Series

    @classmethod
    def of(cls, values: pd.Series) -> _Row:
        return cls(_scores.by_gene(values), _scores.by_section(values))

    @property
    def mean(self) -> float:
        """As in the result's summary."""
        return float(self.sections.mean())


def metrics(result: CrossValidation, *, metric: str = "pcc", ax: Axes | None = None) -> Axes:
    """Draw a metric of all methods over the genes, with the nulls and the noise ceiling.

    One row per method, the best on top, the references below. The hill is the density of the
    genes (means over sections, between their first and 99th percentile; fewer than 12 genes are
    drawn as dots), the bar under it their quartiles, the marks the mean of each section, the
    number at the right the mean over sections. Pale under the row lie the nulls of the method:
    predictions of shuffled embeddings, and of embeddings that were moved within the section. The
    mean of tuned ridge (on several embeddings: of the best) is a dashed line through all rows, the
    noise ceiling a band: the quartiles of its genes, a line at its mean.

    Parameters
    ----------
    result
        Of :func:`stpredict.tl.cross_validate`.
    metric
        One that the result has, of genes or of whole sections.
    ax
        Axes to draw on, by default new ones.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    KeyError
        If the result has no such metric.
    ValueError
        If it has no finite value.

    Examples
    --------
    >>> import stpredict as stp
    >>> result = stp.tl.cross_validate(sdata, {"ridge": stp.tl.fit_ridge})  # doctest: +SKIP
    >>> ax = stp.pl.metrics(result)  # doctest: +SKIP
    """
    wide = result.values(metric)
    rows = {name: _Row.of(wide[name]) for name in wide if wide[name].notna().any()}
    if not rows:
        raise ValueError(f"no {metric} of the result is a number")
    means = pd.Series({name: row.mean for name, row in rows.items() if name != NOISE_CEILING})
    ranked = _scores.better(metric, means)
    methods = [name for name in ranked if name in result.methods]
    methods += [name for name in result.methods if name not in rows]
    names = [*methods, *(name for name in ranked if name not in methods)]
    ridge = _scores.best_ridge(metric, means)
    if ax is None:
        _, ax = plt.subplots(figsize=(7.5, 1.6 + 0.5 * len(names)), layout="constrained")
    markers = _markers(wide)
    for at, name in enumerate(names):
        if name in rows:
            _draw(ax, at, rows[name], markers, _colour(name, methods))
        else:
            failed = any(failure.method == name for failure in result.failures)
            ax.annotate("failed in every fold" if failed else "not scored", (0.5, at),
                        xycoords=("axes fraction", "data"), ha="center", va="center",
                        color=_scores.LEAKY)  # fmt: skip
    handles = _draw_nulls(ax, result, metric, methods)
    _draw_levels(ax, rows, ridge)
    _scores.draw_chance(ax, metric)
    _label(ax, rows, names, len(methods))
    ax.legend(handles=_handles(rows, markers, handles, ridge), loc="upper left", frameon=False,
              bbox_to_anchor=(1.09, 1), fontsize="small", borderaxespad=0)  # fmt: skip
    _tell(ax, result, metric, wide)
    return ax


def _tell(ax: Axes, result: CrossValidation, metric: str, wide: pd.DataFrame) -> None:
    """Write what is drawn, and how it came about."""
    genes, sections = (set(wide.index.get_level_values(level)) for level in ("gene", "section"))
    of_genes = genes != {""}
    what = " of a gene, mean over sections" if of_genes else ", by section"
    ax.set_xlabel(f"{_scores.title(metric)}{what}{_scores.direction(metric)}")
    words = [_scores.counted(len(genes), "gene")] if of_genes else []
    _scores.head(ax, result, ", ".join([*words, _scores.counted(len(sections), "section")]))
    _scores.foot(ax, result)


def _markers(wide: pd.DataFrame) -> dict[str, str]:
    """Shape of each section's mark."""
    sections = list(dict.fromkeys(wide.index.get_level_values("section")))
    shapes = _MARKERS if len(sections) <= len(_MARKERS) else "o" * len(sections)
    return dict(zip(sections, shapes, strict=False))


def _colour(name: str, methods: list[str]) -> str:
    if name in methods:
        return _scores.METHOD
    return _scores.RIDGE if name.startswith(TUNED_RIDGE) else _scores.REFERENCE


def _draw(ax: Axes, at: int, row: _Row, markers: dict[str, str], colour: str) -> None:
    values = row.genes.to_numpy()
    if set(row.genes.index) != {""}:
        _draw_genes(ax, at, values, colour)
    ax.plot(row.mean, at, "|", color="black", markersize=13, zorder=3.5)
    for section, mean in row.sections.items():
        ax.plot(mean, at, markers[str(section)], color="white", markeredgecolor="black",
                markersize=4.5, markeredgewidth=0.8, zorder=4)  # fmt: skip


def _draw_genes(ax: Axes, at: int, values: NDArray[np.float64], colour: str) -> None:
    low, high = np.percentile(values, [1, 99])
    if len(values) >= _DENSITY and high > low:
        x = np.linspace(low, high, 200)
        density = gaussian_kde(values[(values >= low) & (values <= high)])(x)
        ax.fill_between(x, at - 0.4 * density / density.max(), at, color=colour, alpha=0.35,
                        linewidth=0, zorder=1)  # fmt: skip
    elif len(values) > 1:
        ax.plot(values, np.full(len(values), at - 0.15), "o", color=colour, alpha=0.6,
                markersize=3.5, markeredgewidth=0, zorder=2)  # fmt: skip
    if len(values) > 1:
        ax.plot(np.percentile(values, [25, 75]), [at, at], color=colour, linewidth=5,
                solid_capstyle="butt", zorder=3)  # fmt: skip


def _draw_nulls(ax: Axes, result: CrossValidation, metric: str, methods: list[str]) -> list[Line2D]:
    """Draw the nulls of every method under it; legend entries of those that there are."""
    there = set(result.scores["metric"])
    handles = []
    for suffix, words, colour, below in _OWN_NULLS:
        if f"{metric}_{suffix}" not in there:
            continue
        wide = result.values(f"{metric}_{suffix}")
        for at, name in enumerate(methods):
            if name not in wide or wide[name].isna().all():
                continue
            row = _Row.of(wide[name])
            low, high = np.percentile(row.genes, [5, 95])
            ax.plot([low, high], [at + below] * 2, color=colour, linewidth=1, alpha=0.7)
            ax.plot(row.mean, at + below, "|", color=colour, markersize=7, markeredgewidth=1.6)
        handles.append(Line2D([], [], color=colour, linewidth=1, marker="|", markersize=7,
                              markeredgewidth=1.6,
                              label=f"{words}:\n5–95 % of genes, mean"))  # fmt: skip
    return handles


def _draw_levels(ax: Axes, rows: dict[str, _Row], ridge: str | None) -> None:
    """Draw what goes through all rows: tuned ridge, and the noise ceiling."""
    if ridge is not None:
        ax.axvline(rows[ridge].mean, color=_scores.RIDGE, linestyle="--", linewidth=1,
                   zorder=0.5)  # fmt: skip
    if NOISE_CEILING in rows:
        row = rows[NOISE_CEILING]
        ax.axvspan(*np.percentile(row.genes, [25, 75]), color=_scores.CEILING, alpha=0.13,
                   linewidth=0, zorder=0)  # fmt: skip
        ax.axvline(row.mean, color=_scores.CEILING, linewidth=1, zorder=0.5)


def _label(ax: Axes, rows: dict[str, _Row], names: list[str], n_methods: int) -> None:
    """Write the names of the rows, and the means beside them."""
    most = max(len(row.sections) for row in rows.values())
    labels = []
    for at, name in enumerate(names):
        words = _scores.words(name)
        if name in rows:
            n = len(rows[name].sections)
            words += f"\n({n} of {most} sections)" if n < most else ""
            ax.annotate(f"{rows[name].mean:.2f}", (1.015, at), va="center",
                        xycoords=("axes fraction", "data"), fontsize="small")  # fmt: skip
        labels.append(words)
    ax.annotate("mean", (1.015, 1), xycoords="axes fraction", xytext=(0, 3),
                textcoords="offset points", fontsize="small", color="0.35")  # fmt: skip
    ax.set_yticks(range(len(names)), labels)
    if 0 < n_methods < len(names):
        ax.axhline(n_methods - 0.5, color="0.7", linewidth=0.6)
    ax.set_ylim(len(names) - 0.45, -0.6)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(axis="y", length=0)


def _handles(
    rows: dict[str, _Row], markers: dict[str, str], nulls: list[Line2D], ridge: str | None
) -> list[Any]:
    look: dict[str, Any] = {"color": "white", "markeredgecolor": "black", "linestyle": "none"}
    shapes = {f"mean of {section}": shape for section, shape in markers.items()}
    if len(set(markers.values())) < len(markers):
        shapes = {f"mean of one of {len(markers)} sections": "o"}
    handles: list[Any] = [
        Line2D([], [], marker=shape, markersize=4.5, label=words, **look)
        for words, shape in shapes.items()
    ]
    handles += nulls
    if ridge is not None:
        handles.append(Line2D([], [], color=_scores.RIDGE, linestyle="--", linewidth=1,
                              label=f"{_scores.words(ridge)}: mean"))  # fmt: skip
    if NOISE_CEILING in rows:
        mean = f"noise ceiling: mean {rows[NOISE_CEILING].mean:.2f}"
        handles.append(Line2D([], [], color=_scores.CEILING, linewidth=1, label=mean))
        handles.append(Patch(facecolor=_scores.CEILING, alpha=0.13,
                             label="noise ceiling:\nquartiles of genes"))  # fmt: skip
    return handles
