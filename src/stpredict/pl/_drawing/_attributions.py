"""Drawing of attributions: by part of the context, by neighbour, and by pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stpredict.pl._drawing import _axes, _section
from stpredict.pl._drawing._panels import Panel, draw_panels

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    import scipy.sparse as sp
    from matplotlib.colors import Normalize
    from numpy.typing import NDArray

    from stpredict._sdata._sections import Section
    from stpredict.pl._drawing._axes import AxesLike
    from stpredict.pl._drawing._section import SpotStyle

#: Percentile of the absolute contributions at which colours end, so that single pixels do not
#: stretch the scale.
_SCALE_PERCENTILE = 99.5


@dataclass(frozen=True, eq=False)
class Attributions:
    """What `tl.attribute` wrote for a gene."""

    gene: str
    label: str  # of the colour bar, with the units of the prediction
    obs_names: pd.Index
    rows: NDArray[np.bool_]  # (n_obs,) spots that were attributed
    # a column per part of the context; for models on pixels, maps, (n_obs, tile_px²) CSR
    shares: pd.DataFrame | sp.csr_matrix
    neighbor_shares: sp.csr_matrix | None  # (n_obs, n_obs): neighbours (columns) of spots (rows)
    tile_um: float | None  # None for models on embeddings
    tile_px: int | None
    normalized: bool  # whether the images are those of `pp.normalize_stain`


def draw_context(
    attributions: Attributions, sections: Sequence[Section], style: SpotStyle, axes: AxesLike
) -> NDArray[Any]:
    """Draw spots coloured by the contribution of each part of the context."""
    shares = attributions.shares
    parts = {"own tile": shares["spot"].to_numpy()}
    subtiles = shares.columns.difference(["spot", "neighbors"])
    if len(subtiles):
        parts["sub-tiles"] = shares[subtiles].sum(axis=1, skipna=False).to_numpy()
    if "neighbors" in shares:
        parts["neighbours"] = shares["neighbors"].to_numpy()
    drawn_rows = np.concatenate([section.rows for section in sections])
    norm = _symmetric_norm(style, *(values[drawn_rows] for values in parts.values()))
    rows = []
    for section in sections:
        row = [Panel(section, f"{section.name}: H&E")]
        values_of_parts = [values[section.rows] for values in parts.values()]
        sizes = np.nanmean(np.abs(values_of_parts), axis=1)
        percentages = sizes / (sizes.sum() or 1)
        for name, values, percentage in zip(parts, values_of_parts, percentages, strict=True):
            title = f"{attributions.gene}: {name} ({percentage:.0%})"
            row.append(Panel(section, title, values, norm, attributions.label, style.cmap))
        rows.append(row)
    grid = draw_panels(rows, style, axes)
    for ax in grid[:, 1:].flat:
        ax.set_facecolor("0.85")  # contributions near 0 are white
    return grid


def draw_neighborhoods(
    attributions: Attributions,
    sections: Sequence[Section],
    rows: Sequence[int],
    style: SpotStyle,
    axes: AxesLike,
) -> NDArray[Any]:
    """Draw some spots with their neighbours, each coloured by its contribution."""
    spots = []
    for row in rows:
        section = next(section for section in sections if row in section.rows)
        center = section.centers_um[section.rows == row][0]
        spots.append((row, section, center, _around(attributions, section, row)))
    # all panels have the size that the widest neighbourhood needs
    half = 3 * max(section.radius_um.max() for _, section, _, _ in spots) + max(
        np.abs(section.centers_um[~np.isnan(values)] - center).max()
        for _, section, center, values in spots
    )
    grid = _axes.section_axes(axes, [(np.zeros(2), np.ones(2))], len(rows))
    norm = _symmetric_norm(style, *(values for *_, values in spots))
    for ax, (row, section, center, values) in zip(grid[0], spots, strict=True):
        _section.draw_images([ax], [section], (center - half, center + half))
        # the spot itself has a wide outline, spots without a contribution have none
        widths = np.where(np.isnan(values), 0, np.where(section.rows == row, 2, 0.8))
        outline = {"edgecolors": "black", "linewidths": widths}
        artist = _section.draw_spots(ax, section, style, values, norm, **outline)
        ax.set_title(_axes.plain(f"{attributions.gene}: {attributions.obs_names[row]}"))
    _axes.draw_color_bar(grid[0, -1], artist, attributions.label, extend="both", extendfrac=0.03)
    return grid


def draw_tiles(
    attributions: Attributions,
    sections: Sequence[Section],
    blocks: Sequence[Sequence[int]],
    style: SpotStyle,
    axes: AxesLike,
) -> NDArray[Any]:
    """Draw tiles, and below them the contribution of their pixels; two rows of axes per block."""
    tile_um, tile_px = float(attributions.tile_um or 0), int(attributions.tile_px or 0)
    rows = [row for block in blocks for row in block]
    maps = attributions.shares[rows].toarray().reshape(len(rows), tile_px, tile_px)
    norm = _symmetric_norm(style, maps)
    grid, pairs = _axes.tile_axes(axes, blocks)
    tiles = _section.read_tiles_of(sections, rows, tile_um=tile_um, tile_px=tile_px)
    for k, tile, extent in tiles:
        above, below = pairs[k]
        above.imshow(tile.transpose(1, 2, 0), extent=extent)
        above.set_title(_axes.plain(attributions.obs_names[rows[k]]))
        _section.frame_tile(above, extent)
        below.imshow(tile.mean(0), extent=extent, cmap="gray", vmin=-255, vmax=255)
        # pixels that contribute nothing are transparent
        opacity = style.alpha * np.clip(np.abs(maps[k]) / norm.vmax, 0, 1)
        artist = below.imshow(maps[k], extent=extent, cmap=style.cmap, norm=norm, alpha=opacity)
        below.set_title(_axes.plain(f"{attributions.gene}: {maps[k].sum():+.2f}"))
        _section.frame_tile(below, extent)
    widest = int(np.argmax([len(block) for block in blocks]))
    last = grid[2 * widest + 1, -1]
    _axes.draw_color_bar(last, artist, attributions.label, extend="both", extendfrac=0.03)
    return grid


def _around(attributions: Attributions, section: Section, row: int) -> NDArray[np.float64]:
    """Contribution of a spot and of its neighbours to its prediction, NaN for all others."""
    values = np.full(len(section.rows), np.nan)
    if attributions.neighbor_shares is not None:
        neighbors = attributions.neighbor_shares[[row]]
        values[np.searchsorted(section.rows, neighbors.indices)] = neighbors.data
    values[np.searchsorted(section.rows, row)] = attributions.shares["spot"].iloc[row]
    return values


def _symmetric_norm(style: SpotStyle, *values: NDArray[np.floating]) -> Normalize:
    """One scale for all panels, symmetric around 0."""
    sizes = np.abs(np.concatenate([np.ravel(part) for part in values]))
    end = float(np.nanpercentile(sizes, _SCALE_PERCENTILE)) or float(np.nanmax(sizes)) or 1.0
    return style.norm(-end, end)
