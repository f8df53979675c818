"""Tiles of the sections of a table, for networks that learn from pixels."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from stpredict import _validate, encoders
from stpredict._log import bar_over
from stpredict._sdata._reference_stain import stain_differences
from stpredict.encoders._embed import tile_side_px
from stpredict.tiles import read_tiles, resize, tile_windows
from stpredict.training._pixels import cached

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import torch
    from numpy.typing import NDArray

    from stpredict._sdata._sections import Section
    from stpredict._sdata._spot_table import SpotTable
    from stpredict._sdata._steps import TilesStep


def check_tiles(sections: Sequence[Section], sides_um: Iterable[float]) -> None:
    """Require spots inside their images, and images that are at least as large as all tiles."""
    sides_um = sorted(sides_um)
    for section in sections:
        _validate.inside_image(section.centers, section.shape_yx, section=section.name)
        height, width = section.shape_yx
        for tile_um in sides_um:
            side = tile_um / section.mpp
            if side > min(height, width):
                raise ValueError(
                    f"a tile of {tile_um:g} µm is {side:.0f} px at {section.mpp:.3g} µm per pixel, "
                    f"larger than the image of section {section.name!r} ({width} × {height} px)"
                )


def stream_tiles(
    sections: Sequence[Section], step: TilesStep, *, description: str, batch_size: int = 64
) -> Iterator[tuple[NDArray[np.intp], torch.Tensor]]:
    """Rows of the table and their tiles, (b, 3, tile_px, tile_px) uint8, in spatial order."""
    n_tiles = sum(len(section.rows) for section in sections)
    tile_px = step.tile_px
    with bar_over(n_tiles, description, unit="tile") as bar:
        for section in sections:
            side = step.tile_um / section.mpp
            windows = tile_windows(section.levels, section.centers, side=side, tile_px=tile_px)
            for places, tiles in read_tiles(windows, tile_px=tile_px, batch_size=batch_size):
                yield section.rows[places], tiles
                bar.update(len(places))


@contextmanager
def cached_tiles(sections: Sequence[Section], step: TilesStep) -> Iterator[NDArray[np.uint8]]:
    """All tiles, (n, 3, tile_px, tile_px), in a temporary file that is mapped into memory."""
    n_tiles = sum(len(section.rows) for section in sections)
    tiles = stream_tiles(sections, step, description="read tiles")
    with cached(tiles, n=n_tiles, tile_px=step.tile_px) as cache:
        yield cache


def describe_tiles(sections: Sequence[Section], step: TilesStep) -> NDArray[np.float32]:
    """Texture embeddings of the tiles that a network on pixels reads, (n, d)."""
    n_tiles = sum(len(section.rows) for section in sections)
    encoder = encoders.load("texture")
    side = max(encoder.min_px, tile_side_px(encoder, step.tile_um))
    embedding = np.empty((n_tiles, encoder.dimension), dtype=np.float32)
    for rows, tiles in stream_tiles(sections, step, description="describe tiles"):
        embedding[rows] = encoder(resize(tiles, side)).cpu().numpy()
    return embedding


def sections_for_tiles(spots: SpotTable, step: TilesStep) -> tuple[Section, ...]:
    """All sections on images with the stain that a model was trained on, checked."""
    sections = spots.sections if step.stain is None else spots.normalized_sections
    differences = stain_differences(step.stain, None if step.stain is None else spots.stain)
    if differences:
        raise ValueError(f"{differences[0]}: run stp.pp.prepare(sdata, model)")
    check_tiles(sections, [step.tile_um])
    return sections


def restrict_sections(sections: Sequence[Section], rows: NDArray[np.intp]) -> list[Section]:
    """The same sections with some of their spots; sections without any are left out."""
    restricted = []
    for section in sections:
        selected = np.isin(section.rows, rows)
        if selected.any():
            names = ("rows", "centers", "radius_um")  # one value per spot
            parts = {name: getattr(section, name)[selected] for name in names}
            restricted.append(replace(section, **parts))
    return restricted
