"""Drawing shared by pictures of scores: colours, order of methods, titles and protocol."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy.stats import gaussian_kde

from stpredict import _validate
from stpredict.metrics import METRICS, Metric
from stpredict.pl._drawing import _axes
from stpredict.results import NEIGHBOR_MEAN, NOISE_CEILING, TRAINING_MEAN, TUNED_RIDGE

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

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
#: Marks of the means of sections.
SECTION_MARK: dict[str, Any] = {"color": "white", "markeredgecolor": "black", "markersize": 4.5}
#: Fewer genes are drawn as dots, not as a density.
_MIN_DENSITY_GENES = 12
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


def choose_method(
    method: str | None, methods: Sequence[str], available: Sequence[str], *, what: str
) -> str:
    """One of the available names: the given one, or the only method."""
    if method is None:
        if len(methods) != 1:
            raise ValueError(
                f"there are {len(methods)} methods with a {what}, choose one: "
                f"method={[*methods, *available][0]!r}"
            )
        return methods[0]
    if method not in available:
        raise KeyError(f"{method!r} has no {what}; methods with it: {_validate.listing(available)}")
    return method


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


@dataclass(frozen=True)
class ScoreRow:
    """Scores of a method: mean over sections of each gene, mean over genes of each section."""

    genes: pd.Series
    sections: pd.Series

    @classmethod
    def from_values(cls, values: pd.Series) -> ScoreRow:
        """Means of a column of `Scores.values`."""
        finite = values.dropna()
        means = (finite.groupby(level=key, sort=False).mean() for key in ("gene", "section"))
        return cls(*means)

    @property
    def mean(self) -> float:
        """Mean over genes, then over sections, as in `Scores.summary`."""
        return float(self.sections.mean())

    def draw(self, ax: Axes, position: int, markers: dict[str, str], color: str) -> None:
        """Draw the genes, the sections and the mean."""
        if set(self.genes.index) != {""}:  # metrics of whole sections have no gene
            _draw_distribution(ax, position, self.genes.to_numpy(), color)
        ax.plot(self.mean, position, "|", color="black", markersize=13, zorder=3.5)
        for section, mean in self.sections.items():
            mark: dict[str, Any] = {
                "marker": markers[str(section)],
                "markeredgewidth": 0.8,
                **SECTION_MARK,
            }
            ax.plot(mean, position, zorder=4, **mark)


def _draw_distribution(ax: Axes, position: int, values: NDArray[np.float64], color: str) -> None:
    """Draw a density, or dots for few genes, and the quartiles."""
    if len(values) < 2:
        return
    low, high = np.percentile(values, [1, 99])
    if len(values) >= _MIN_DENSITY_GENES and high > low:
        x = np.linspace(low, high, 200)
        density = gaussian_kde(values[(values >= low) & (values <= high)])(x)
        ax.fill_between(x, position - 0.4 * density / density.max(), position, color=color,
                        alpha=0.35, linewidth=0, zorder=1)  # fmt: skip
    else:
        ax.plot(values, np.full(len(values), position - 0.15), "o", color=color, alpha=0.6,
                markersize=3.5, markeredgewidth=0, zorder=2)  # fmt: skip
    ax.plot(np.percentile(values, [25, 75]), [position, position], color=color, linewidth=5,
            solid_capstyle="butt", zorder=3)  # fmt: skip


def label_rows(ax: Axes, labels: Sequence[str]) -> None:
    """Label rows from the top, without an axis line."""
    ax.set_yticks(range(len(labels)), [_axes.plain(label) for label in labels])
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(axis="y", length=0)


def set_title(
    ax: Axes, title: str, *, leaky: bool, loc: Literal["left", "center"] = "center"
) -> None:
    """Write the title, marked if a group is both in training and scored."""
    look: dict[str, Any] = {"color": LEAKY, "fontweight": "bold"} if leaky else {}
    ax.set_title(_axes.plain(f"LEAKY · {title}" if leaky else title), loc=loc, **look)


def write_protocol(ax: Axes, scores: Scores, *, below_pt: float = 38) -> None:
    """Write the summary of the protocol under the axes."""
    width_pt = ax.get_window_extent().width / ax.figure.dpi * 72
    n_letters = max(20, int(width_pt / _LETTER_PT))
    ax.annotate(
        _axes.plain(textwrap.fill(scores.protocol.summary, n_letters)),
        xy=(0, 0), xycoords="axes fraction", xytext=(0, -below_pt), textcoords="offset points",
        ha="left", va="top", fontsize=_FONT_PT, color=LEAKY if scores.leaky else "0.35",
    )  # fmt: skip
