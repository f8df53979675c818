"""Axes of a figure: one row per section, one column per panel."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import matplotlib.pyplot as plt
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    #: Low and high corner of what is shown, each (x, y) in µm.
    Limits = tuple[NDArray[np.float64], NDArray[np.float64]]
    #: Axes of the caller, row by row; None for new ones.
    AxesLike = Axes | Sequence[Axes] | NDArray[Any] | None

AxesType = TypeVar("AxesType", "Axes", "NDArray[Any]")

_SAVE_DPI = 150


def axes_grid(
    axes: AxesLike, figsize: tuple[float, float], shape: tuple[int, int], **options: Any
) -> NDArray[Any]:
    """Axes of the caller, whose number must match, or those of a new figure, in a shape."""
    if axes is None:
        options = {"layout": "constrained", "squeeze": False, **options}
        return np.asarray(plt.subplots(*shape, figsize=figsize, **options)[1])
    grid = np.asarray(axes)
    if grid.size != np.prod(shape):
        raise ValueError(f"{np.prod(shape)} axes are needed, {grid.size} given")
    return grid.reshape(shape)


def section_axes(
    axes: AxesLike, rows: Sequence[Limits], n_columns: int, *, width: float = 4.2
) -> NDArray[Any]:
    """Axes (n_rows, n_columns), each row as high as its section needs, unless ``axes`` is given."""
    extents = [high - low for low, high in rows]
    # half an inch for the title
    heights = [float(np.clip(0.95 * width * y / x, 2, 8)) + 0.5 for x, y in extents]
    figsize = width * n_columns + 0.8, sum(heights)
    return axes_grid(axes, figsize, (len(rows), n_columns), height_ratios=heights)


def tile_axes(
    axes: AxesLike, blocks: Sequence[Sequence[int]], *, width: float = 2.6
) -> tuple[NDArray[Any], list[tuple[Axes, Axes]]]:
    """Two rows of square axes per block of spots; upper and lower axes of each spot."""
    sizes = np.array([[len(rows)] for rows in blocks])
    n_rows, n_columns = 2 * len(blocks), int(sizes.max())
    grid = axes_grid(axes, (width * n_columns + 1.0, 2.8 * n_rows), (n_rows, n_columns))
    is_used = np.arange(n_columns) < sizes  # (n_blocks, n_columns)
    for ax in grid[~is_used.repeat(2, axis=0)]:
        ax.set_axis_off()
    return grid, list(zip(grid[::2][is_used], grid[1::2][is_used], strict=True))


def one_axes(ax: Axes | None, figsize: tuple[float, float]) -> Axes:
    """Axes of the caller, or those of a new figure."""
    return plt.subplots(figsize=figsize, layout="constrained")[1] if ax is None else ax


def finish(axes: AxesType, path: str | Path | None) -> AxesType:
    """Save the figure, if a path is given; a grid of one row loses its first dimension."""
    if path is not None:
        # axes may lie in a subfigure, which cannot be saved
        figure = np.ravel(np.asarray(axes))[0].figure.canvas.figure
        _check_file(str(path), figure.canvas.get_supported_filetypes())
        figure.savefig(path, dpi=_SAVE_DPI, bbox_inches="tight")
    return axes[0] if isinstance(axes, np.ndarray) and axes.ndim == 2 and len(axes) == 1 else axes


def _check_file(path: str, formats: Iterable[str]) -> None:
    """Require the name of a file in an existing folder, and a format of matplotlib."""
    if path.endswith(("/", os.sep)) or Path(path).is_dir():
        raise IsADirectoryError(f"save={path!r} is a folder: give the name of a file")
    if not Path(path).parent.is_dir():
        raise FileNotFoundError(f"save={path!r}: its folder does not exist, create it first")
    suffix = Path(path).suffix.lower().removeprefix(".")
    if suffix and suffix not in formats:
        raise ValueError(f"save={path!r} has an unknown format: use {', '.join(sorted(formats))}")


def plain(text: str) -> str:
    """Text that matplotlib draws as it is: a dollar sign would start a formula."""
    return text.replace("$", r"\$")


def draw_color_bar(ax: Axes, artist: Any, label: str, **options: Any) -> None:
    """Draw a colour bar as long as the panel, whatever its aspect ratio."""
    inset = ax.inset_axes((1.04, 0, 0.05, 1))
    ax.figure.colorbar(artist, cax=inset, label=plain(label), **options)
