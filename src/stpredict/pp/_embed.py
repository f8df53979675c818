"""Image tiles -> embeddings in obsm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stpredict import _keys, _runtime, _validate, encoders
from stpredict._sdata import _provenance, _sections
from stpredict._sdata._pixels import check_tiles
from stpredict.encoders._embed import embed_section, tile_side_px

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import torch
    from spatialdata import SpatialData

#: 224 px at 0.5 µm per pixel, what most pathology encoders were trained on.
DEFAULT_TILE_UM = 112.0


def embed(
    sdata: SpatialData,
    encoder: str
    | encoders.EncoderRecord
    | torch.nn.Module
    | Callable[[torch.Tensor], torch.Tensor] = "texture",
    *,
    tile_um: float = DEFAULT_TILE_UM,
    n_subtiles: int = 3,
    weights: str | Path | None = None,
    batch_size: int = 64,
    device: str = "auto",
    key_added: str | None = None,
    copy: bool = False,
) -> SpatialData | None:
    """Embed the tile around every spot, and its sub-tiles, with a frozen encoder.

    Tiles are squares centred on the spots, their sides in µm, so that sections of different
    resolution are seen at one scale: ``tile_um`` becomes the encoder's input size, or, for
    encoders that take any size (``"texture"``), is read at 0.5 µm per pixel. Each tile is read
    once, from the level of the pyramid closest to that. What lies beyond the border of the image
    is white. Where :func:`stpredict.pp.normalize_stain` was run, its images are embedded.

    Parameters
    ----------
    sdata
        Sections with images, shapes and a table.
    encoder
        ``"texture"`` (no weights needed), a name of :func:`stpredict.encoders.names`,
        ``"timm:<name>"``, a module, or any callable from float32 tiles (b, 3, h, w) in [0, 1] to
        (b, d).
    tile_um
        Side of a tile in µm.
    n_subtiles
        Each tile is also split into n × n sub-tiles; 1 for none.
    weights
        Local safetensors or checkpoint file with the encoder's weights, instead of the hub.
    batch_size
        Tiles at a time.
    device
        ``"auto"``: cuda, then mps, then cpu.
    key_added
        Slot in ``obsm``, by default ``X_<encoder>``.
    copy
        Return a changed copy instead of changing ``sdata``.

    Returns
    -------
    SpatialData | None
        Writes to ``tables["table"]``: ``obsm["X_<encoder>"]`` (n_obs, d) float32,
        ``obsm["X_<encoder>_subtiles"]`` (n_obs, n_subtiles², d) float32, row by row from the upper
        left, and ``uns["stpredict"]["embed"]``.

    Raises
    ------
    ValueError
        If a section has no image or µm per pixel, spots lie outside the image, or a tile is
        larger than it; or the stain of some sections only is normalised.
    KeyError
        If there is no such encoder.

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom()
    >>> stp.pp.embed(sdata, "texture")
    >>> sdata.tables["table"].obsm["X_texture"].shape[0] == sdata.tables["table"].n_obs
    True
    """
    _validate.positive("tile_um", tile_um, unit="µm")
    if not isinstance(n_subtiles, int) or n_subtiles < 1:
        raise ValueError(f"n_subtiles must be a whole number of at least 1: {n_subtiles!r}")
    sdata = _sections.copy_of(sdata) if copy else sdata
    _check(sdata, tile_um, normalized=True)  # before an encoder is loaded, which may take long
    name = key_added.removeprefix("X_") if key_added and not isinstance(encoder, str) else None
    loaded = encoders.load(encoder, weights=weights, name=name)
    embed_with(
        sdata,
        loaded,
        source=encoder if isinstance(encoder, str) else loaded.name,
        tile_um=tile_um,
        n_subtiles=n_subtiles,
        batch_size=batch_size,
        device=device,
        key_added=key_added or _keys.embedding(loaded.name),
    )
    return sdata if copy else None


def embed_with(
    sdata: SpatialData,
    encoder: encoders.Encoder,
    *,
    source: str,
    tile_um: float,
    n_subtiles: int,
    batch_size: int,
    device: str,
    key_added: str,
    normalized: bool = True,
) -> None:
    """Embed with a loaded encoder; ``source`` is the name it can be loaded by again.

    ``normalized=False`` reads the raw images even where there are normalised ones.
    """
    found = _check(sdata, tile_um, normalized=normalized)
    table = _sections.table_of(sdata)
    encoder = encoder.to(_runtime.resolve_device(device))
    whole = np.empty((table.n_obs, encoder.dimension), dtype=np.float32)
    parts = np.empty((table.n_obs, n_subtiles**2, encoder.dimension), dtype=np.float32)
    for section in found:
        tile, subtile = embed_section(
            section.levels,
            section.centers,
            encoder,
            mpp=section.mpp,
            tile_um=tile_um,
            n_subtiles=n_subtiles,
            batch_size=batch_size,
            description=f"embed {section.name}",
        )
        whole[section.rows] = tile
        if subtile is not None:
            parts[section.rows] = subtile
    table.obsm[key_added] = whole
    if n_subtiles > 1:
        table.obsm[_keys.subtiles(key_added)] = parts
    elif _keys.subtiles(key_added) in table.obsm:
        del table.obsm[_keys.subtiles(key_added)]  # of an earlier call, with other tiles
    recipe: dict[str, Any] = {
        "encoder": source,
        "weights_hash": encoder.weights_hash,
        "tile_um": float(tile_um),
        "mpp": tile_um / tile_side_px(encoder, tile_um),
        "n_subtiles": n_subtiles,
    }
    stain = _sections.stain_of(table, found)
    if stain is not None:
        recipe["stain"] = stain
    _provenance.record(
        table, "embed", **{**_provenance.recorded(table, "embed"), key_added: recipe}
    )


def _check(sdata: SpatialData, tile_um: float, *, normalized: bool) -> list[_sections.Section]:
    found = _sections.sections(sdata, normalized=normalized)
    check_tiles(found, tile_um)
    return found
