"""What pictures of scores share: colours, the order of methods, and the protocol."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Literal

from stpredict.metrics import METRICS, Metric
from stpredict.results import NEIGHBOR_MEAN, NOISE_CEILING, TRAINING_MEAN, TUNED_RIDGE

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from stpredict.results import CrossValidation

# Colours of Okabe and Ito, which the colour-blind tell apart.
METHOD, PALE, RIDGE, CEILING = "#0072B2", "#8FC1E0", "#D98E00", "#009E73"
SHUFFLED, SPATIAL, REFERENCE = "0.62", "#CC79A7", "0.5"
LEAKY = "#C43E00"

#: What stands beside the methods.
WORDS = {
    TRAINING_MEAN: "training mean",
    TUNED_RIDGE: "tuned ridge",
    NEIGHBOR_MEAN: "mean of measured\nneighbours",
    NOISE_CEILING: "noise ceiling",
}
#: Size of small print, and width of a letter of it.
_FONT_PT, _LETTER_PT = 7, 4.2


def record_of(metric: str) -> Metric:
    """Record of a metric; results may hold metrics that are not registered."""
    return METRICS.get(metric) or Metric(metric, label=metric)


def title(metric: str) -> str:
    """Label of a metric."""
    return record_of(metric).label


def better(metric: str, means: pd.Series) -> list[str]:
    """Names by their mean, the best first."""
    return list(record_of(metric).cost(means).sort_values(kind="stable").index)


def direction(metric: str) -> str:
    """Note for an axis on which higher values are not better."""
    record = record_of(metric)
    notes = {"higher": "", "lower": ", lower is better", "closer": f", {record.best:g} is best"}
    return notes[record.better]


def words(name: str) -> str:
    """What a reference is called; methods have their own names."""
    if name.startswith(f"{TUNED_RIDGE}_"):  # of several embeddings
        return f"{WORDS[TUNED_RIDGE]} on\n{name.removeprefix(f'{TUNED_RIDGE}_')}"
    return WORDS.get(name, name)


def best_ridge(metric: str, means: pd.Series) -> str | None:
    """Tuned ridge, of several embeddings the best; None where there is none."""
    ridges = [name for name in means.index if name.startswith(TUNED_RIDGE)]
    return better(metric, means[ridges])[0] if ridges else None


def draw_chance(ax: Axes, metric: str) -> None:
    """Draw a line at the chance value, or at the best value of a metric with values around it."""
    record = record_of(metric)
    value = record.best if record.better == "closer" else record.chance
    if value is not None:
        ax.axvline(value, color="0.8", linewidth=0.8, zorder=0)


def counted(n: int, what: str) -> str:
    """So many of something, in words."""
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"


def by_gene(values: pd.Series) -> pd.Series:
    """Mean over sections of every gene."""
    return values.dropna().groupby(level="gene", sort=False).mean()


def by_section(values: pd.Series) -> pd.Series:
    """Mean over genes of every section."""
    return values.dropna().groupby(level="section", sort=False).mean()


def head(ax: Axes, result: CrossValidation, text: str) -> None:
    """Write the title, and plainly whether the split leaks."""
    ax.set_title(text, loc="left")
    if result.leaky:
        mark_leaky(ax, text, loc="left")


def mark_leaky(ax: Axes, title: str, *, loc: Literal["left", "center"] = "center") -> None:
    """Write plainly that a group stood on both sides of a split."""
    ax.set_title(f"LEAKY · {title}", loc=loc, color=LEAKY, fontweight="bold")


def foot(ax: Axes, result: CrossValidation, *, below: float = 38) -> None:
    """Write the first words of the protocol under the axes, that many points below them."""
    width = ax.get_window_extent().width / ax.figure.dpi * 72
    line = max(20, int(width / _LETTER_PT))
    words = textwrap.shorten(result.protocol, 2 * line, placeholder=" …")
    ax.annotate(
        textwrap.fill(words, line),
        xy=(0, 0), xycoords="axes fraction", xytext=(0, -below), textcoords="offset points",
        ha="left", va="top", fontsize=_FONT_PT, color=LEAKY if result.leaky else "0.35",
    )  # fmt: skip
