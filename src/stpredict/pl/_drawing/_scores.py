"""Drawing shared by pictures of scores: colours, order of methods, titles and protocol."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Literal

from stpredict.metrics import METRICS, Metric
from stpredict.results import NEIGHBOR_MEAN, NOISE_CEILING, TRAINING_MEAN, TUNED_RIDGE

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from matplotlib.axes import Axes

    from stpredict.results import Scores

# Okabe and Ito (2008): colours that are distinct with any colour vision.
METHOD, PALE, BASELINE, CEILING = "#0072B2", "#8FC1E0", "#D98E00", "#009E73"
SHUFFLED, SPATIAL, REFERENCE = "0.62", "#CC79A7", "0.5"
LEAKY = "#C43E00"

#: Labels of baselines and references; methods have the names that the user gave them.
LABELS = {
    TRAINING_MEAN: "training mean",
    TUNED_RIDGE: "tuned ridge",
    NEIGHBOR_MEAN: "mean of measured\nneighbours",
    NOISE_CEILING: "noise ceiling",
}
#: Font size of the protocol, and mean width of its letters, in points.
_FONT_PT, _LETTER_PT = 7, 4.2


def record_of(metric: str) -> Metric:
    """Record of a metric; results may hold metrics that are not registered."""
    return METRICS.get(metric) or Metric(metric, label=metric)


def ranked(metric: str, means: pd.Series) -> list[str]:
    """Names by their mean, the best first."""
    return list(record_of(metric).cost(means).sort_values(kind="stable").index)


def direction(metric: str) -> str:
    """Note for an axis on which higher values are not better."""
    record = record_of(metric)
    notes = {"higher": "", "lower": ", lower is better", "closer": f", {record.best:g} is best"}
    return notes[record.better]


def label_of(name: str) -> str:
    """Label of a method, baseline or reference."""
    return LABELS.get(name, name)


def best_baseline(scores: Scores, metric: str, means: pd.Series) -> str | None:
    """Baseline with the best mean; None if none was scored."""
    baselines = [name for name in means.index if name in scores.baselines]
    return ranked(metric, means[baselines])[0] if baselines else None


def draw_chance(ax: Axes, metric: str) -> None:
    """Draw a line at the chance value, or at the best value of a metric with values around it."""
    record = record_of(metric)
    value = record.best if record.better == "closer" else record.chance
    if value is not None:
        ax.axvline(value, color="0.8", linewidth=0.8, zorder=0)


def count(n: int, noun: str) -> str:
    """Number of something, in words."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def by_gene(values: pd.Series) -> pd.Series:
    """Mean over sections for every gene."""
    return values.dropna().groupby(level="gene", sort=False).mean()


def by_section(values: pd.Series) -> pd.Series:
    """Mean over genes for every section."""
    return values.dropna().groupby(level="section", sort=False).mean()


def label_rows(ax: Axes, labels: Sequence[str]) -> None:
    """Label rows from the top, without an axis line."""
    ax.set_yticks(range(len(labels)), labels)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(axis="y", length=0)


def set_title(ax: Axes, scores: Scores, title: str) -> None:
    """Write the title, marked if the split leaks."""
    ax.set_title(title, loc="left")
    if scores.leaky:
        mark_leaky(ax, title, loc="left")


def mark_leaky(ax: Axes, title: str, *, loc: Literal["left", "center"] = "center") -> None:
    """Mark in the title that a group is both in training and scored."""
    ax.set_title(f"LEAKY · {title}", loc=loc, color=LEAKY, fontweight="bold")


def write_protocol(ax: Axes, scores: Scores, *, below_pt: float = 38) -> None:
    """Write the beginning of the protocol under the axes."""
    width_pt = ax.get_window_extent().width / ax.figure.dpi * 72
    n_letters = max(20, int(width_pt / _LETTER_PT))
    text = textwrap.shorten(str(scores.protocol), 2 * n_letters, placeholder=" …")
    ax.annotate(
        textwrap.fill(text, n_letters),
        xy=(0, 0), xycoords="axes fraction", xytext=(0, -below_pt), textcoords="offset points",
        ha="left", va="top", fontsize=_FONT_PT, color=LEAKY if scores.leaky else "0.35",
    )  # fmt: skip
