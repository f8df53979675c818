"""Embed the tiles and sub-tiles of a section."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stpredict._log import tile_bar
from stpredict.nn._tiles import split_tiles
from stpredict.tiles import read_fields, resize, tile_windows

if TYPE_CHECKING:
    from collections.abc import Sequence

    import dask.array as da
    from numpy.typing import NDArray

    from stpredict.encoders._record import Encoder

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
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Embed tiles, (n, n_fields · d), and sub-tiles in row-major order, (n, n_subtiles², d)."""
    encoder_px = tile_side_px(encoder, fields_um[0])
    first_px = _first_px(encoder, fields_um[0], n_subtiles, most_px=round(fields_um[0] / mpp))
    tile_px = [first_px] + [encoder_px] * (len(fields_um) - 1)
    fields = [
        tile_windows(levels, centers, side=tile_um / mpp, tile_px=px)
        for tile_um, px in zip(fields_um, tile_px, strict=True)
    ]
    n = len(centers)
    whole = np.empty((n, len(fields), encoder.dimension), dtype=np.float32)
    parts = np.empty((n, n_subtiles**2, encoder.dimension), dtype=np.float32)
    with tile_bar(n, description) as bar:
        for rows, batch in read_fields(fields, tile_px=tile_px, batch_size=batch_size):
            for field, tiles in enumerate(batch):
                whole[rows, field] = encoder(resize(tiles, encoder_px)).cpu().numpy()
            if n_subtiles > 1:
                split = split_tiles(batch[0], n_subtiles)
                # one sub-tile position at a time keeps the batch size
                for k in range(n_subtiles**2):
                    parts[rows, k] = encoder(split[:, k]).cpu().numpy()
            bar.update(len(rows))
    return whole.reshape(n, len(fields) * encoder.dimension), parts if n_subtiles > 1 else None


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
