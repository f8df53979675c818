"""Rows of `pl.metrics`: the distribution of a method's scores over genes and sections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import gaussian_kde

from stpredict.pl._drawing import _scores

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

#: Fewer genes are drawn as dots, not as a density.
_MIN_DENSITY_GENES = 12


@dataclass(frozen=True)
class ScoreRow:
    """Scores of a method: mean over sections of each gene, mean over genes of each section."""

    genes: pd.Series
    sections: pd.Series

    @classmethod
    def from_values(cls, values: pd.Series) -> ScoreRow:
        """Means of a column of `Scores.values`."""
        return cls(_scores.by_gene(values), _scores.by_section(values))

    @property
    def mean(self) -> float:
        """Mean over genes, then over sections, as in `Scores.summary`."""
        return float(self.sections.mean())


def draw_row(ax: Axes, position: int, row: ScoreRow, markers: dict[str, str], color: str) -> None:
    """Draw the genes of a row, its sections and its mean."""
    if set(row.genes.index) != {""}:
        _draw_distribution(ax, position, row.genes.to_numpy(), color)
    ax.plot(row.mean, position, "|", color="black", markersize=13, zorder=3.5)
    for section, mean in row.sections.items():
        ax.plot(mean, position, markers[str(section)], color="white", markeredgecolor="black",
                markersize=4.5, markeredgewidth=0.8, zorder=4)  # fmt: skip


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
