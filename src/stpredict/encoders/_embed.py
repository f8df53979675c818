"""Tiles and sub-tiles of a section through an encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from tqdm.auto import tqdm

from stpredict._settings import settings
from stpredict.nn._tiles import split_tiles
from stpredict.tiles import place, read_tiles, resize

if TYPE_CHECKING:
    from collections.abc import Sequence

    import dask.array as da
    from numpy.typing import NDArray

    from stpredict.encoders._record import Encoder

#: µm per pixel at which encoders that take tiles of any size see them: a 20× objective.
DEFAULT_MPP = 0.5


def tile_side_px(encoder: Encoder, tile_um: float) -> int:
    """Side in pixels at which an encoder sees a whole tile."""
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
        From :func:`stpredict.encoders.load`.
    mpp
        µm per pixel of the finest level.
    tile_um
        Side of a tile in µm.
    n_subtiles
        Each tile is also split into n × n sub-tiles; 1 for none.
    batch_size
        Tiles at a time.
    description
        Beside the progress bar.

    Returns
    -------
    tuple
        Embeddings of the tiles (n, d) and of their sub-tiles, row by row (n, n_subtiles², d).

    Raises
    ------
    ValueError
        If a sub-tile would be smaller than a pixel.
    """
    side = tile_um / mpp
    tile_px = _read_px(encoder, tile_um, side=side, n_subtiles=n_subtiles)
    if tile_px < n_subtiles:
        raise ValueError(
            f"n_subtiles={n_subtiles}: a tile of {tile_um:g} µm is read at {tile_px} px, too few "
            "to split so often: give a larger tile_um= or a smaller n_subtiles="
        )
    windows = place(levels, centers, side=side, tile_px=tile_px)
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
                # one sub-tile per tile at a time, so that batches stay as large as asked for
                for k in range(n_subtiles**2):
                    parts[rows, k] = encoder(split[:, k]).cpu().numpy()
            bar.update(len(rows))
    return whole, parts


def _read_px(encoder: Encoder, tile_um: float, *, side: float, n_subtiles: int) -> int:
    """Side at which tiles are read: sub-tiles of a fixed input size keep the detail they have."""
    wanted = tile_side_px(encoder, tile_um)
    if encoder.input_px is None or n_subtiles == 1:
        return wanted
    return max(wanted, min(round(side), wanted * n_subtiles))
