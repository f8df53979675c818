"""Embed the tiles and sub-tiles of a section."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from stpredict._log import bar_over
from stpredict.encoders._cache import stored_tiles
from stpredict.nn._tiles import split_tiles
from stpredict.tiles import read_fields, resize, tile_windows

if TYPE_CHECKING:
    from collections.abc import Sequence

    import dask.array as da
    from numpy.typing import NDArray

    from stpredict.encoders._encoder import Encoder

#: µm per pixel for encoders that accept tiles of any size: a 20× objective.
DEFAULT_MPP = 0.5


def tile_side_px(encoder: Encoder, tile_um: float) -> int:
    """Side in pixels to which a tile is resized; the encoder may crop its centre.

    Tiles of larger fields have as many pixels as those of the first.
    """
    return encoder.resize_px or encoder.input_px or max(1, round(tile_um / DEFAULT_MPP))


def embed_section(
    levels: Sequence[da.Array],  # finest first, each (3, y, x) uint8
    centers: NDArray[np.floating],  # (n, 2), x and y in pixels of the finest level
    encoder: Encoder,
    *,
    mpp: float,  # of the finest level
    fields_um: Sequence[float],  # sides of the tiles of each field, ascending
    n_subtiles: int,  # along each side of a tile of the first field; 1 for none
    batch_size: int = 64,
    description: str = "",  # label of the progress bar
    cache: bool = False,  # whether stored embeddings are used, and new ones stored
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Embed tiles, (n, n_fields · d), and sub-tiles in row-major order, (n, n_subtiles², d)."""
    encoder_px = tile_side_px(encoder, fields_um[0])
    first_px = _first_px(encoder, fields_um[0], n_subtiles, most_px=round(fields_um[0] / mpp))
    tile_px = [first_px] + [encoder_px] * (len(fields_um) - 1)
    fields = [
        tile_windows(levels, centers, side=tile_um / mpp, tile_px=px)
        for tile_um, px in zip(fields_um, tile_px, strict=True)
    ]
    n, d = len(centers), encoder.dimension
    n_parts = n_subtiles**2 if n_subtiles > 1 else 0
    embeddings = np.empty((n, len(fields) + n_parts, d), dtype=np.float32)
    values = embeddings.reshape(n, (len(fields) + n_parts) * d)  # the same memory
    options = {"tile_px": tile_px, "n_subtiles": n_subtiles, "mpp": mpp, "fields_um": fields_um}
    opened = (
        stored_tiles(encoder, fields, centers, width=values.shape[1], **options)
        if cache
        else nullcontext()
    )
    with opened as stored, bar_over(n, description, unit="tile") as bar:
        todo = np.arange(n)
        if stored is not None and stored.by_center:
            todo = todo[~stored.fill(todo, [], values)]
            bar.update(n - len(todo))
        fields = [replace(windows, corners=windows.corners[todo]) for windows in fields]
        for places, batch in read_fields(fields, tile_px=tile_px, batch_size=batch_size):
            rows = todo[places]
            if stored is not None and not stored.by_center:
                is_new = ~stored.fill(rows, batch, values)
                rows, batch = rows[is_new], [tiles[torch.from_numpy(is_new)] for tiles in batch]
            if len(rows):
                values[rows] = _embed_batch(batch, encoder, encoder_px, n_subtiles)
            if stored is not None:
                stored.add(rows, batch, values)
            bar.update(len(places))
    whole = embeddings[:, : len(fields)].reshape(n, len(fields) * d)
    return whole, embeddings[:, len(fields) :] if n_parts else None


def _embed_batch(
    batch: Sequence[torch.Tensor],  # tiles of each field, (b, 3, h, w) uint8
    encoder: Encoder,
    encoder_px: int,
    n_subtiles: int,
) -> NDArray[np.float32]:
    """Embed the tiles of all fields, then sub-tiles of the first; all numbers of a row, (b, m)."""
    parts = [resize(tiles, encoder_px) for tiles in batch]
    if n_subtiles > 1:
        # one sub-tile position at a time keeps the batch size
        parts += split_tiles(batch[0], n_subtiles).unbind(1)
    return np.concatenate([encoder(tiles).cpu().numpy() for tiles in parts], axis=1)


def _first_px(encoder: Encoder, tile_um: float, n_subtiles: int, *, most_px: int) -> int:
    """Side in pixels at which tiles of the first field are read, large enough for sub-tiles."""
    tile_px = tile_side_px(encoder, tile_um)
    if encoder.input_px is not None and n_subtiles > 1:
        # sub-tiles are resized to a fixed input: read them with the resolution of the image
        tile_px = max(tile_px, min(most_px, tile_px * n_subtiles))
    least_px = encoder.min_px if encoder.input_px is None else 1
    if tile_px // n_subtiles < least_px:
        what = f"n_subtiles={n_subtiles}: the sub-tiles of tiles" if n_subtiles > 1 else "tiles"
        remedy = " or decrease n_subtiles=" if n_subtiles > 1 else ""
        raise ValueError(
            f"{what} of {tile_um:g} µm, read at {tile_px} px, are {tile_px // n_subtiles} px wide; "
            f"the encoder {encoder.name!r} needs {least_px} px. Increase tile_um={remedy}"
        )
    return tile_px
