"""Axes of a figure: one row per section, one column per panel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    #: Low and high corner of what is shown, each (x, y) in µm.
    Limits = tuple[NDArray[np.float64], NDArray[np.float64]]

_SAVE_DPI = 150


def section_axes(
    axes: Axes | Sequence[Axes] | NDArray[Any] | None,
    rows: Sequence[Limits],
    n_columns: int,
    *,
    width: float = 4.2,
) -> NDArray[Any]:
    """Axes (n_rows, n_columns), each row as high as its section needs, unless ``axes`` is given."""
    if axes is not None:
        return require_axes(axes, len(rows) * n_columns).reshape(len(rows), n_columns)
    extents = [high - low for low, high in rows]
    heights = [float(np.clip(0.95 * width * y / x, 2, 8)) + 0.9 for x, y in extents]
    _, grid = plt.subplots(
        len(rows),
        n_columns,
        figsize=(width * n_columns + 0.8, sum(heights)),
        height_ratios=heights,
        layout="constrained",
        squeeze=False,
    )
    return np.asarray(grid)


def tile_axes(
    axes: Axes | Sequence[Axes] | NDArray[Any] | None,
    n_rows: int,
    n_columns: int,
    *,
    width: float = 2.6,
) -> NDArray[Any]:
    """Axes (n_rows, n_columns) of square panels, unless ``axes`` is given."""
    if axes is not None:
        return require_axes(axes, n_rows * n_columns).reshape(n_rows, n_columns)
    size = width * n_columns + 1.0, 2.8 * n_rows
    _, grid = plt.subplots(n_rows, n_columns, figsize=size, layout="constrained", squeeze=False)
    return np.asarray(grid)


def tile_pairs(grid: NDArray[Any], blocks: Sequence[Sequence[int]]) -> list[tuple[Axes, Axes]]:
    """Upper and lower axes of each spot; a block of spots has two rows, unused axes are hidden."""
    pairs = []
    for number, rows in enumerate(blocks):
        above, below = grid[2 * number], grid[2 * number + 1]
        pairs += list(zip(above[: len(rows)], below[: len(rows)], strict=True))
        for ax in [*above[len(rows) :], *below[len(rows) :]]:
            ax.set_axis_off()
    return pairs


def require_axes(axes: Axes | Sequence[Axes] | NDArray[Any], n: int) -> NDArray[Any]:
    """Axes given by the caller, whose number must match; (n,)."""
    flat = np.asarray(axes).ravel()
    if len(flat) != n:
        raise ValueError(f"{n} axes are needed, {len(flat)} given")
    return flat


def without_single_row(grid: NDArray[Any]) -> NDArray[Any]:
    """Drop the first dimension if it has one row, as `matplotlib.pyplot.subplots` does."""
    return grid[0] if len(grid) == 1 else grid


def save_figure(axes: Axes | NDArray[Any], path: str | Path | None) -> None:
    """Save the figure of the axes, if a path is given."""
    if path is not None:
        first = np.ravel(np.asarray(axes))[0]
        # axes may lie in a subfigure, which cannot be saved
        first.figure.canvas.figure.savefig(path, dpi=_SAVE_DPI, bbox_inches="tight")


def draw_color_bar(ax: Axes, artist: Any, label: str, **options: Any) -> None:
    """Draw a colour bar as long as the panel, whatever its aspect ratio."""
    inset = ax.inset_axes((1.04, 0, 0.05, 1))
    ax.figure.colorbar(artist, cax=inset, label=label, **options)
