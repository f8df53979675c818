"""Tiles as an encoder receives them, with their sub-tiles and neighbours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.patches import Rectangle

from stpredict import _keys, _validate
from stpredict._arguments import checked
from stpredict._sdata._inputs import recorded_inputs
from stpredict._sdata._spot_table import open_table
from stpredict.pl._drawing import _axes, _section

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from numpy.typing import NDArray
    from spatialdata import SpatialData

    from stpredict._sdata._sections import Section
    from stpredict._sdata._spot_table import SpotTable

_SPOT_COLOR, _NEIGHBOR_COLOR = "#ffd600", "#00c853"
#: Smallest side of the wider view, in tiles.
_MIN_VIEW_TILES = 2.0


@checked
def tiles(
    sdata: SpatialData,
    *,
    section: str | Sequence[str] | None = None,
    spots: str | Sequence[str] | None = None,
    n: int = 4,
    embedding: str | None = None,
    table_name: str = "table",
    axes: Sequence[Axes] | NDArray[Any] | None = None,
    save: str | Path | None = None,
) -> NDArray[Any]:
    """Draw the input of a model for a few spots.

    The upper row shows the tile as the encoder received it, with lines along which it is split
    into sub-tiles; of several fields, the first. The lower row shows where it lies, with its wider
    fields and the tiles of its spatial neighbours.

    Parameters
    ----------
    sdata
        Sections on which :func:`stpredict.pp.embed` was run, and :func:`stpredict.pp.neighbors`
        to show neighbours.
    section
        Name of a section, or several; by default all.
    spots
        Names of spots in ``obs_names``; by default some of each section, evenly spaced.
    n
        Number of spots per section if none are named.
    embedding
        Slot in ``obsm`` whose tiles are drawn; required if there are several.
    table_name
        Table of the spots.
    axes, save
        Axes to draw on, row by row, by default new ones; file to save the figure to.

    Returns
    -------
    numpy.ndarray
        Axes in µm, (2 × n_sections, n), or (2, n_spots) with ``spots``.

    Raises
    ------
    KeyError
        If there is no such spot or embedding.
    ValueError
        If there is no such section, one of several embeddings must be named, ``n`` is not a
        positive whole number, or the number of axes is wrong.

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom(size_px=600)
    >>> stp.pp.embed(sdata, "texture", n_subtiles=3)
    >>> stp.pl.tiles(sdata, n=3).shape
    (2, 3)
    """
    opened = open_table(sdata, table_name)
    step, _ = recorded_inputs(opened, embedding or _only_embedding(opened), neighbors=False)
    tile_um, mpp = next(iter(step.mpp_of_fields.items()), (None, None))
    if tile_um is None or mpp is None:
        raise ValueError("the record of the embedding has no size of its tiles")
    sections = _section.sections_to_draw(opened, section, normalized=step.stain is not None)
    _validate.whole_number("n", n)
    rows_by_section = [part.rows for part in sections]
    blocks = [_evenly_spaced(rows, min(n, len(rows))) for rows in rows_by_section]
    if spots is not None:
        blocks = [_section.rows_of_spots(opened.table.obs_names, spots, rows_by_section)]
    grid, pairs = _axes.tile_axes(axes, blocks, width=2.4)
    rows = [row for block in blocks for row in block]
    tile_px = max(1, round(tile_um / mpp))
    drawn = _section.read_tiles_of(sections, rows, tile_um=tile_um, tile_px=tile_px)
    for k, tile, extent in drawn:
        _draw_tile(pairs[k][0], tile, extent, step.n_subtiles or 1)
    for (above, below), row in zip(pairs, rows, strict=True):
        above.set_title(_axes.plain(opened.table.obs_names[row]))
        part = next(part for part in sections if row in part.rows)
        _draw_surroundings(below, opened, part, row, step.fields_um)
    return _axes.finish(grid, save)


def _only_embedding(opened: SpotTable) -> str:
    slots = [slot for slot in opened.steps.embed if slot in opened.table.obsm]
    if not slots:
        raise KeyError("obsm has no embedding: run stp.pp.embed first")
    if len(slots) > 1:
        raise ValueError(
            f"there are {len(slots)} embeddings ({_validate.listing(slots)}), choose one: "
            f"embedding={slots[0]!r}"
        )
    return slots[0]


def _evenly_spaced(rows: NDArray[np.intp], n: int) -> list[int]:
    """Rows from the middle of n equal runs."""
    return rows[((np.arange(n) + 0.5) * len(rows) / n).astype(int)].tolist()


def _draw_tile(ax: Axes, tile: NDArray[np.uint8], extent: _section.Extent, n_subtiles: int) -> None:
    ax.imshow(tile.transpose(1, 2, 0), extent=extent)
    left, right, _, top = extent
    # as encoders split it: pixels that the division leaves over are cut off at both borders
    subtile_px = tile.shape[-1] // n_subtiles
    start_px = (tile.shape[-1] - subtile_px * n_subtiles) // 2
    for k in range(1, n_subtiles):
        offset = (start_px + k * subtile_px) / tile.shape[-1] * (right - left)
        ax.axvline(left + offset, color=_SPOT_COLOR, linewidth=1)
        ax.axhline(top + offset, color=_SPOT_COLOR, linewidth=1)
    _section.frame_tile(ax, extent)


def _draw_surroundings(
    ax: Axes, opened: SpotTable, section: Section, row: int, fields_um: Sequence[float]
) -> None:
    """Draw the place of a tile, with its wider fields, and the tiles of linked neighbours."""
    tile_um = fields_um[0]
    spot, neighbors = int(np.searchsorted(section.rows, row)), np.empty(0, dtype=np.intp)
    if _keys.CONNECTIVITIES in opened.table.obsp:
        neighbors = np.flatnonzero(np.isin(section.rows, opened.graph[[row]].indices))
    center = section.centers_um[spot]
    reach = np.abs(section.centers_um[neighbors] - center).max(initial=0) + tile_um / 2
    half = 1.05 * max(reach, _MIN_VIEW_TILES * tile_um / 2, fields_um[-1] / 2)
    _section.draw_images([ax], [section], (center - half, center + half))
    squares = [(int(neighbor), tile_um, _NEIGHBOR_COLOR, 1.0) for neighbor in neighbors]
    squares += [(spot, side, _SPOT_COLOR, 2.0) for side in fields_um]
    for position, side, color, width in squares:
        corner = section.centers_um[position] - side / 2
        square = Rectangle(corner, side, side, fill=False, edgecolor=color, linewidth=width)
        ax.add_patch(square)
    ax.set_title(f"{len(neighbors)} neighbours" if len(neighbors) else "")
