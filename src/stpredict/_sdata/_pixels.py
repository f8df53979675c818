"""Tiles of the sections of a SpatialData, for networks that learn from pixels."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm.auto import tqdm

from stpredict import _validate, encoders
from stpredict._sdata import _sections
from stpredict._sdata._recipe import stain_difference
from stpredict._settings import settings
from stpredict.encoders._embed import tile_side_px
from stpredict.tiles import read_tiles, resize, tile_windows
from stpredict.training import TileStream
from stpredict.training._pixels import cached, described

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import torch
    from anndata import AnnData
    from numpy.typing import NDArray
    from spatialdata import SpatialData

    from stpredict._sdata._sections import Section
    from stpredict.models import Model


#: The texture encoder takes no smaller tiles.
_TEXTURE_PX = 48


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
            windows = tile_windows(
                section.levels,
                section.centers,
                side=recipe["tile_um"] / section.mpp,
                tile_px=tile_px,
            )
            for places, tiles in read_tiles(windows, tile_px=tile_px, batch_size=batch_size):
                yield section.rows[places], tiles
                bar.update(len(places))


@contextmanager
def cached_tiles(
    found: Sequence[Section], recipe: dict[str, Any]
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float32]]]:
    """Read the tiles of all sections once into a temporary file, mapped into memory.

    Gives the tiles, (n, 3, tile_px, tile_px), and the baseline's embeddings of them, (n, d).
    """
    n = sum(len(section.rows) for section in found)
    baseline, center = _baseline(recipe, n)
    tiles = described(stream(found, recipe, description="read tiles"), baseline, center)
    with cached(tiles, n=n, tile_px=recipe["tile_px"]) as cache:
        yield cache, center


def _baseline(
    recipe: dict[str, Any], n: int
) -> tuple[Callable[[torch.Tensor], torch.Tensor], NDArray[np.float32]]:
    """What describes tiles for the ridge regression beside a network, and room for it."""
    encoder = encoders.load("texture")
    side = max(_TEXTURE_PX, tile_side_px(encoder, recipe["tile_um"]))

    def describe(tiles: torch.Tensor) -> torch.Tensor:
        return encoder(resize(tiles, side))

    return describe, np.empty((n, encoder.dimension), dtype=np.float32)


def model_tiles(sdata: SpatialData, model: Model) -> TileStream:
    """Tiles of all sections as a model on pixels wants them, read while they are predicted."""
    recipe, found = model.recipe["tiles"], model_sections(sdata, model)
    baseline, center = _baseline(recipe, _sections.table_of(sdata).n_obs)
    return TileStream(
        described(stream(found, recipe, description="predict"), baseline, center),
        center=center,
        symmetries=model.hyperparameters["average_symmetries"],
    )


def some_tiles(
    sdata: SpatialData, model: Model, rows: NDArray[np.intp], *, description: str, batch_size: int
) -> Iterator[tuple[NDArray[np.intp], torch.Tensor]]:
    """Tiles of some rows as a model on pixels wants them; checked before the first is read."""
    some = []
    for section in model_sections(sdata, model):
        kept = np.isin(section.rows, rows)
        if kept.any():
            parts = {name: getattr(section, name)[kept] for name in ("rows", "centers")}
            some.append(replace(section, **parts, radius_um=section.radius_um[kept]))
    recipe = model.recipe["tiles"]
    return stream(some, recipe, description=description, batch_size=batch_size)


def model_sections(sdata: SpatialData, model: Model) -> list[Section]:
    """All sections, on images whose stain is as the model's were, checked."""
    wanted = model.recipe["tiles"].get("stain")
    found = _sections.sections(sdata, normalized=wanted is not None)
    difference = stain_difference(_sections.stain_of(_sections.table_of(sdata), found), wanted)
    if difference:
        raise ValueError(f"{difference[0]}: run stp.pp.prepare(sdata, model)")
    check_tiles(found, model.recipe["tiles"]["tile_um"])
    return found
