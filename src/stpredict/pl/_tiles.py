"""What a model sees: tiles, their sub-tiles, and the tiles of the neighbours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle

from stpredict import _keys, _validate
from stpredict._sdata import _provenance, _recipe, _sections
from stpredict.pl._drawing import _section

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from numpy.typing import NDArray
    from spatialdata import SpatialData

_OWN, _NEIGHBOR = "#ffd600", "#00c853"
#: The wider view shows at least this many tiles side by side.
_LEAST_VIEW = 2.0


def tiles(
    sdata: SpatialData,
    section: str | None = None,
    *,
    spots: Sequence[str] | None = None,
    n: int = 4,
    embedding: str | None = None,
    axes: Sequence[Axes] | None = None,
) -> NDArray[Any]:
    """Draw what a model sees of a few spots.

    Above, the tile as it was read for the encoder, with the lines along which it is split into
    sub-tiles; below, where it lies, with the tiles of its spatial neighbours.

    Parameters
    ----------
    sdata
        Sections on which :func:`stpredict.pp.embed` was run, and :func:`stpredict.pp.neighbors`,
        if neighbours are to be shown.
    section
        Which section; needed where there are several.
    spots
        Names of spots in ``tables["table"].obs_names``; by default some of the whole section.
    n
        Number of spots, where none are named.
    embedding
        Slot in ``obsm`` whose tiles are drawn; needed where there are several.
    axes
        Axes to draw on, two per spot: all upper ones first. By default new ones.

    Returns
    -------
    Array of :class:`matplotlib.axes.Axes`, (2, n). Axes are in µm, the origin at the upper left of
    the image.

    Raises
    ------
    KeyError
        If there is no such section, spot or embedding, or none was made.
    ValueError
        If there are several sections or embeddings and none is named, or the number of axes is
        wrong.

    Examples
    --------
    >>> import stpredict as stp
    >>> axes = stp.pl.tiles(sdata, "C5", n=3)  # doctest: +SKIP
    """
    table = _sections.table_of(sdata)
    recipe = _recipe.embed_recipe(table, _embedding(table, embedding))
    seen = _sections.sections(sdata, normalized=recipe.get("stain") is not None)
    found = _section.choose(seen, section)
    chosen = _spots(table, found, spots, n)
    if axes is None:
        size = 2.4 * len(chosen) + 0.4, 5.4
        _, drawn = plt.subplots(2, len(chosen), figsize=size, layout="constrained", squeeze=False)
    else:
        drawn = _section.given_axes(axes, 2 * len(chosen)).reshape(2, -1)

    tile_um = recipe["tile_um"]
    tile_px = max(1, round(tile_um / recipe["mpp"]))
    for k, tile, extent in _section.tiles_of(found, chosen, tile_um=tile_um, tile_px=tile_px):
        _draw_tile(drawn[0, k], tile, extent, recipe["n_subtiles"])
    for k, spot in enumerate(chosen):
        drawn[0, k].set_title(table.obs_names[found.rows[spot]])
        _draw_around(drawn[1, k], table, found, spot, tile_um)
    return np.asarray(drawn)


def _embedding(table: AnnData, name: str | None) -> str:
    if name is not None:
        return name
    made = [key for key in _provenance.recorded(table, "embed") if key in table.obsm]
    if not made:
        raise KeyError("there is no embedding whose tiles could be drawn: run stp.pp.embed first")
    if len(made) > 1:
        raise ValueError(
            f"there are {len(made)} embeddings ({_validate.listing(made)}), choose one: "
            f"embedding={made[0]!r}"
        )
    return made[0]


def _spots(
    table: AnnData, section: _sections.Section, names: Sequence[str] | None, n: int
) -> list[int]:
    """Positions of the spots within the section."""
    if names is None:
        if not isinstance(n, int) or n < 1:
            raise ValueError(f"n must be a whole number of at least 1: {n!r}")
        size = len(section.rows)
        # in the middle of n equal runs of rows
        return [int((k + 0.5) * size / min(n, size)) for k in range(min(n, size))]
    here = table.obs_names[section.rows]
    absent = [name for name in names if name not in here]
    if absent or not len(names):
        raise KeyError(
            f"no spots {_validate.listing(map(repr, absent))} in section {section.name!r}; spots: "
            f"{_validate.listing(here, most=4)}"
        )
    return [int(here.get_loc(name)) for name in names]


def _draw_tile(ax: Axes, tile: NDArray[np.uint8], extent: _section.Extent, n_subtiles: int) -> None:
    _section.show(ax, tile, extent)
    left, right, _, top = extent
    side = right - left
    # as encoders split it: what the division leaves over is cut off at the borders
    part = tile.shape[-1] // n_subtiles
    start = (tile.shape[-1] - part * n_subtiles) // 2
    for k in range(1, n_subtiles):
        share = (start + k * part) / tile.shape[-1]
        ax.axvline(left + share * side, color=_OWN, linewidth=1)
        ax.axhline(top + share * side, color=_OWN, linewidth=1)
    ax.set_xlabel("µm")


def _draw_around(
    ax: Axes, table: AnnData, section: _sections.Section, spot: int, tile_um: float
) -> None:
    center = section.centers_um[spot]
    around = _neighbors(table, section, spot)
    reach = np.abs(section.centers_um[around] - center).max(initial=0) + tile_um / 2
    half = 1.05 * max(reach, _LEAST_VIEW * tile_um / 2)
    edge = np.array(section.shape_yx[::-1]) * section.mpp
    _section.draw_image(
        ax, section, (np.clip(center - half, 0, edge), np.clip(center + half, 0, edge))
    )
    squares = [(position, _NEIGHBOR, 1.0) for position in around] + [(spot, _OWN, 2.0)]
    for position, color, width in squares:
        corner = section.centers_um[position] - tile_um / 2
        ax.add_patch(
            Rectangle(corner, tile_um, tile_um, fill=False, edgecolor=color, linewidth=width)
        )
    _section.frame(ax, (center - half, center + half))
    ax.set_title(f"{len(around)} neighbours" if len(around) else "")


def _neighbors(table: AnnData, section: _sections.Section, spot: int) -> NDArray[np.intp]:
    """Positions within the section of a spot's neighbours; none without a graph."""
    if _keys.CONNECTIVITIES not in table.obsp:
        return np.empty(0, dtype=np.intp)
    rows = table.obsp[_keys.CONNECTIVITIES][[section.rows[spot]]].nonzero()[1]
    return np.flatnonzero(np.isin(section.rows, rows))
