"""Embed the tiles and sub-tiles of a section."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from tqdm.auto import tqdm

from stpredict._settings import settings
from stpredict.nn._tiles import split_tiles
from stpredict.tiles import read_tiles, resize, tile_windows

if TYPE_CHECKING:
    from collections.abc import Sequence

    import dask.array as da
    from numpy.typing import NDArray

    from stpredict.encoders._record import Encoder

#: µm per pixel for encoders that accept tiles of any size: a 20× objective.
DEFAULT_MPP = 0.5


def tile_side_px(encoder: Encoder, tile_um: float) -> int:
    """Side of a tile in pixels when it is encoded."""
    return encoder.input_px or max(1, round(tile_um / DEFAULT_MPP))


def embed_section(
    levels: Sequence[da.Array],
    centers: NDArray[np.floating],
    encoder: Encoder,
    *,
    mpp: float,
    tile_um: float,
    n_subtiles: int,
    batch_size: int = 64,
    description: str = "",
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Embed the tiles of one section, each read and encoded once.

    Parameters
    ----------
    levels
        Image pyramid, finest first, each lazy (3, y, x) uint8.
    centers
        Centres of the tiles, (n, 2), x and y in pixels of the finest level.
    encoder
        Encoder from :func:`stpredict.encoders.load`.
    mpp
        µm per pixel of the finest level.
    tile_um
        Side of a tile in µm.
    n_subtiles
        Number of sub-tiles along each side of a tile; 1 for none.
    batch_size
        Number of tiles in a batch.
    description
        Label of the progress bar.

    Returns
    -------
    tuple
        Embeddings of the tiles, (n, d), and of their sub-tiles in row-major order,
        (n, n_subtiles², d) or None.

    Raises
    ------
    ValueError
        If a sub-tile is smaller than a pixel.
    """
    side = tile_um / mpp
    tile_px = _read_px(encoder, tile_um, side=side, n_subtiles=n_subtiles)
    if tile_px < n_subtiles:
        raise ValueError(
            f"n_subtiles={n_subtiles}: sub-tiles of tiles of {tile_um:g} µm, read at {tile_px} px, "
            "are smaller than a pixel. Increase tile_um= or decrease n_subtiles="
        )
    windows = tile_windows(levels, centers, side=side, tile_px=tile_px)
    n = len(centers)
    whole = np.empty((n, encoder.dimension), dtype=np.float32)
    parts = (
        np.empty((n, n_subtiles**2, encoder.dimension), dtype=np.float32)
        if n_subtiles > 1
        else None
    )
    batches = read_tiles(windows, tile_px=tile_px, batch_size=batch_size)
    with tqdm(total=n, desc=description, unit="tile", disable=settings.verbosity < 1) as bar:
        for rows, tiles in batches:
            whole[rows] = encoder(resize(tiles, tile_side_px(encoder, tile_um))).cpu().numpy()
            if parts is not None:
                split = split_tiles(tiles, n_subtiles)
                # one sub-tile position at a time keeps the batch size
                for k in range(n_subtiles**2):
                    parts[rows, k] = encoder(split[:, k]).cpu().numpy()
            bar.update(len(rows))
    return whole, parts


def _read_px(encoder: Encoder, tile_um: float, *, side: float, n_subtiles: int) -> int:
    """Side in pixels at which tiles are read, larger if sub-tiles are resized to a fixed input."""
    tile_px = tile_side_px(encoder, tile_um)
    if encoder.input_px is None or n_subtiles == 1:
        return tile_px
    return max(tile_px, min(round(side), tile_px * n_subtiles))
