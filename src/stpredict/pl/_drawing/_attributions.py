"""Drawing of attributions: by part of the context, by neighbour, and by pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stpredict.pl._drawing import _axes, _section

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    import scipy.sparse as sp
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from numpy.typing import NDArray

    from stpredict._sdata._sections import Section
    from stpredict.pl._drawing._style import SpotStyle

#: Percentile of the absolute contributions at which colours end, so that single pixels do not
#: stretch the scale.
_SCALE_PERCENTILE = 99.5


@dataclass(frozen=True, eq=False)
class Attributions:
    """What `tl.attribute` wrote for a gene.

    Attributes
    ----------
    gene, units
        Name of the gene, and the units of its prediction.
    obs_names, rows
        Names of the spots, and whether they were attributed, (n_obs,) bool.
    shares
        For models on embeddings, a column per part of the context; for models on pixels, maps,
        (n_obs, tile_px²) CSR.
    neighbor_shares
        Contribution of each neighbour (columns) of each spot (rows), (n_obs, n_obs) CSR, or None.
    tile_um, tile_px
        Side of the tiles; None for models on embeddings.
    normalized
        Whether the images are those of `pp.normalize_stain`.
    """

    gene: str
    units: str
    obs_names: pd.Index
    rows: NDArray[np.bool_]
    shares: pd.DataFrame | sp.csr_matrix
    neighbor_shares: sp.csr_matrix | None
    tile_um: float | None
    tile_px: int | None
    normalized: bool


def draw_context(
    attributions: Attributions,
    sections: Sequence[Section],
    style: SpotStyle,
    axes: Sequence[Axes] | NDArray[Any] | None,
) -> NDArray[Any]:
    """Draw spots coloured by the contribution of each part of the context."""
    shares = attributions.shares
    parts = {"own tile": shares["spot"].to_numpy()}
    subtiles = shares.columns.difference(["spot", "neighbors"])
    if len(subtiles):
        parts["sub-tiles"] = shares[subtiles].sum(axis=1, skipna=False).to_numpy()
    if "neighbors" in shares:
        parts["neighbours"] = shares["neighbors"].to_numpy()
    corners = [_section.limits(section) for section in sections]
    grid = _axes.section_axes(axes, corners, 1 + len(parts))
    drawn_rows = np.concatenate([section.rows for section in sections])
    norm = _symmetric_norm(style, *(values[drawn_rows] for values in parts.values()))
    for axes_of_row, section, within in zip(grid, sections, corners, strict=True):
        _section.draw_image(axes_of_row[0], section, within)
        axes_of_row[0].set_title(f"{section.name}: H&E")
        size = {name: np.nanmean(np.abs(values[section.rows])) for name, values in parts.items()}
        for ax, (name, values) in zip(axes_of_row[1:], parts.items(), strict=True):
            artist = _section.draw_spots(ax, section, style, values[section.rows], norm)
            percentage = size[name] / (sum(size.values()) or 1)
            ax.set_title(f"{attributions.gene}: {name} ({percentage:.0%})")
            ax.set_facecolor("0.85")  # contributions near 0 are white
        for ax in axes_of_row:
            _section.frame(ax, within)
        _draw_color_bar(axes_of_row[-1], artist, attributions)
    return _axes.without_single_row(grid)


def draw_neighborhoods(
    attributions: Attributions,
    sections: Sequence[Section],
    rows: Sequence[int],
    style: SpotStyle,
    axes: Sequence[Axes] | NDArray[Any] | None,
) -> NDArray[Any]:
    """Draw some spots with their neighbours, each coloured by its contribution."""
    located = [next(part for part in sections if row in part.rows) for row in rows]
    spots = [int(np.searchsorted(part.rows, row)) for part, row in zip(located, rows, strict=True)]
    shares = [_around(attributions, part, row) for part, row in zip(located, rows, strict=True)]
    # all panels have the size that the widest neighbourhood needs
    margin = 3 * max(part.radius_um.max() for part in located)
    half = margin + max(
        np.abs(part.centers_um[~np.isnan(values)] - part.centers_um[spot]).max()
        for part, spot, values in zip(located, spots, shares, strict=True)
    )
    square = np.zeros(2), np.ones(2)
    (grid,) = _axes.section_axes(axes, [square], len(rows))
    norm = _symmetric_norm(style, *shares)
    for ax, row, part, spot, values in zip(grid, rows, located, spots, shares, strict=True):
        within = part.centers_um[spot] - half, part.centers_um[spot] + half
        _section.draw_image(ax, part, within)
        widths = np.where(np.isnan(values), 0, np.where(np.arange(len(values)) == spot, 2, 0.8))
        artist = _section.draw_spots(
            ax, part, style, values, norm, edgecolors="black", linewidths=widths
        )
        _section.frame(ax, within)
        ax.set_title(f"{attributions.gene}: {attributions.obs_names[row]}")
    _draw_color_bar(grid[-1], artist, attributions)
    return np.asarray(grid)


def draw_tiles(
    attributions: Attributions,
    sections: Sequence[Section],
    blocks: Sequence[Sequence[int]],
    style: SpotStyle,
    axes: Sequence[Axes] | NDArray[Any] | None,
) -> NDArray[Any]:
    """Draw tiles, and below them the contribution of their pixels; two rows of axes per block."""
    tile_um, tile_px = float(attributions.tile_um or 0), int(attributions.tile_px or 0)
    rows = np.concatenate(blocks)
    maps = attributions.shares[rows].toarray().reshape(len(rows), tile_px, tile_px)
    norm = _symmetric_norm(style, maps)
    grid = _axes.tile_axes(axes, 2 * len(blocks), max(map(len, blocks)))
    pairs = _axes.tile_pairs(grid, blocks)
    tiles = _section.read_tiles_of(sections, rows, tile_um=tile_um, tile_px=tile_px)
    for k, tile, extent in tiles:
        above, below = pairs[k]
        _section.draw_pixels(above, tile, extent)
        above.set_title(attributions.obs_names[rows[k]])
        below.imshow(tile.mean(0), extent=extent, cmap="gray", vmin=-255, vmax=255)
        # pixels that contribute nothing are transparent
        opacity = style.alpha * np.clip(np.abs(maps[k]) / norm.vmax, 0, 1)
        artist = below.imshow(maps[k], extent=extent, cmap=style.cmap, norm=norm, alpha=opacity)
        below.set_title(f"{attributions.gene}: {maps[k].sum():+.2f}")
        below.set_xlabel("µm")
    widest = int(np.argmax([len(block) for block in blocks]))
    _draw_color_bar(grid[2 * widest + 1, -1], artist, attributions)
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


def _draw_color_bar(ax: Axes, artist: Any, attributions: Attributions) -> None:
    label = f"contribution to the prediction\n({attributions.units})"
    _axes.draw_color_bar(ax, artist, label, extend="both", extendfrac=0.03)
