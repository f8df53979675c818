"""Tiles of the sections of a SpatialData, for networks that learn from pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from stpredict import _sections, _validate
from stpredict._settings import settings
from stpredict.tiles import place, read_tiles

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    import torch
    from anndata import AnnData
    from numpy.typing import NDArray

    from stpredict._sections import Section


def check_tiles(found: Sequence[Section], tile_um: float) -> None:
    """Require that spots lie in their images, and that a tile is no larger than any of them."""
    for section in found:
        _validate.inside_image(section.centers, section.shape_yx, section=section.name)
        side = tile_um / section.mpp
        height, width = section.shape_yx
        if side > min(height, width):
            raise ValueError(
                f"a tile of {tile_um:g} µm is {side:.0f} px at {section.mpp:.3g} µm per pixel, "
                f"larger than the image of section {section.name!r} ({width} × {height} px)"
            )


def tiles_recipe(
    table: AnnData, found: Sequence[Section], *, tile_um: float, tile_px: int
) -> dict[str, Any]:
    """How tiles are cut: their side, and the stain of the images."""
    recipe: dict[str, Any] = {"tile_um": float(tile_um), "tile_px": int(tile_px)}
    stain = _sections.stain_of(table, list(found))
    if stain is not None:
        recipe["stain"] = stain
    return recipe


def stream(
    found: Sequence[Section], recipe: dict[str, Any], *, description: str, batch_size: int = 64
) -> Iterator[tuple[NDArray[np.intp], torch.Tensor]]:
    """Read the tiles of all sections, each once, in spatial order.

    Gives rows of the table and their tiles, (b, 3, tile_px, tile_px) uint8.
    """
    total = sum(len(section.rows) for section in found)
    tile_px = recipe["tile_px"]
    with tqdm(total=total, desc=description, unit="tile", disable=settings.verbosity < 1) as bar:
        for section in found:
            windows = place(
                section.levels,
                section.centers,
                side=recipe["tile_um"] / section.mpp,
                tile_px=tile_px,
            )
            for places, tiles in read_tiles(windows, tile_px=tile_px, batch_size=batch_size):
                yield section.rows[places], tiles
                bar.update(len(places))
