"""Embed the image tiles around spots."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from stpredict import _keys, _runtime, _validate, encoders
from stpredict._arguments import checked
from stpredict._sdata._pixels import check_tiles
from stpredict._sdata._provenance import record_step
from stpredict._sdata._slots import check_slot
from stpredict._sdata._spot_table import SpotTable, open_table
from stpredict._sdata._steps import MAX_SUBTILES, EmbedStep, of_fields
from stpredict.encoders._aliases import canonical
from stpredict.encoders._cache import require_cache
from stpredict.encoders._embed import embed_section, tile_side_px
from stpredict.encoders._replicas import replicate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import torch
    from spatialdata import SpatialData

#: 224 px at 0.5 µm per pixel, the training scale of most pathology encoders.
DEFAULT_TILE_UM = 112.0


@checked
def embed(
    sdata: SpatialData,
    encoder: str
    | encoders.EncoderRecord
    | torch.nn.Module
    | Callable[[torch.Tensor], torch.Tensor] = "texture",
    *,
    tile_um: float | Sequence[float] = DEFAULT_TILE_UM,
    n_subtiles: int = 1,
    weights: str | Path | None = None,
    batch_size: int = 64,
    device: str = "auto",
    cache: bool = False,
    table_name: str = "table",
    key_added: str | None = None,
    copy: bool = False,
) -> SpatialData | None:
    """Embed the tile around every spot, and its sub-tiles, with a frozen encoder.

    Tiles are squares centred on the spots, with the side in µm. A tile is resized to the encoder's
    input size, or, for encoders of any input size (``"texture"``), read at 0.5 µm per pixel;
    ``"inception_v3"``, ``"resnet50"`` and ``"densenet121"`` see the centre of a tile, as their
    publisher crops it (87 to 97 % of the side). Area outside the image is white. Images of
    :func:`stpredict.pp.normalize_stain` are preferred.

    With several fields, such as ``tile_um=[112, 224, 448]``, wider tiles around the same spot are
    embedded as well and give its surroundings. They are read in the same pass over the image, with
    as many pixels as the first tile, and thus at a lower resolution.

    Parameters
    ----------
    sdata
        Sections with images, shapes and a table.
    encoder
        Name of :func:`stpredict.encoders.names`, ``"timm:<name>"``, several names joined by ``+``
        (``"texture+uni2"``), an encoder of
        :func:`stpredict.encoders.load`, or a module or callable from float32 tiles (b, 3, h, w) in
        [0, 1] to (b, d).
    tile_um
        Side of a tile in µm, or those of several fields, ascending.
    n_subtiles
        Number of sub-tiles along the side of a tile, of the first of several fields.
    weights
        Local safetensors or checkpoint file with the encoder's weights, instead of the hub.
    batch_size, device
        Tiles at a time, and where to embed them; ``"auto"``: cuda, then mps, then cpu. ``"cuda"``
        uses all GPUs, ``"cuda:0"`` one; each takes ``batch_size`` tiles.
    cache
        Whether to use embeddings that an earlier call stored, in this or another session, and to
        store new ones in ``stp.settings.cache_dir``. Images, spots, encoder and sides of the tiles
        are compared; an interrupted call continues.
    table_name, key_added, copy
        Name of the table; slot in ``obsm``, by default ``X_<encoder>``; and whether to change and
        return a copy.

    Returns
    -------
    SpatialData | None
        Writes to ``tables[table_name]``: ``obsm["X_<encoder>"]`` (n_obs, n_fields × d) float32,
        field by field, with sub-tiles ``obsm["X_<encoder>_subtiles"]`` (n_obs, n_subtiles², d)
        float32, row by row from the upper left, and ``uns["stpredict"]["embed"]``.

    Raises
    ------
    ValueError
        If an image or its µm per pixel are missing, spots or tiles do not fit into it, an option is
        out of range, or ``key_added`` is invalid or the name of your own slot.
    KeyError
        If there is no such encoder.
    RuntimeError
        If the hub does not provide the weights of the encoder.
    OSError
        If the cache folder cannot be written.

    Warns
    -----
    UserWarning
        If a stored file is damaged; its embeddings are computed again.

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom()
    >>> stp.pp.embed(sdata, "texture")
    >>> sdata.tables["table"].obsm["X_texture"].shape[0] == sdata.tables["table"].n_obs
    True
    """
    fields_um = _validate.ascending("tile_um", tile_um, unit="µm")
    _validate.whole_number("n_subtiles", n_subtiles, at_most=MAX_SUBTILES)
    _validate.whole_number("batch_size", batch_size)
    torch_device = _runtime.resolve_device(device)
    if cache:
        require_cache()
    spots = open_table(sdata, table_name, copy=copy)
    # before an encoder is loaded, which may take long
    check_tiles(spots.normalized_sections, fields_um)
    name = None
    if key_added is not None:
        _check_slots(spots, key_added)
        # a module of the user is known by the name of its slot
        name = None if isinstance(encoder, str) else key_added.removeprefix("X_")
    loaded = encoders.load(encoder, weights=weights, name=name)
    recorded = canonical(encoder) if isinstance(encoder, str) else loaded.name
    step = EmbedStep(
        recorded, tile_um=of_fields(fields_um), n_subtiles=n_subtiles, stain=spots.stain
    )
    slot = _keys.embedding(loaded.name) if key_added is None else key_added
    _check_slots(spots, slot)
    embed_tiles(
        spots, step, loaded, slot=slot, batch_size=batch_size, device=torch_device, cache=cache
    )
    return spots.sdata if copy else None


def _check_slots(spots: SpotTable, slot: str) -> None:
    """Require a slot for the embedding, and one for sub-tiles, that are not the user's."""
    computed = [name for name, step in spots.steps.embed.items() if not step.registered]
    own = [*computed, *map(_keys.subtiles, computed)]
    for name in (slot, _keys.subtiles(slot)):
        check_slot(spots.table, "obsm", name, own=own)


def embed_tiles(
    spots: SpotTable,
    step: EmbedStep,
    encoder: encoders.Encoder,
    *,
    slot: str,
    batch_size: int,
    device: torch.device,
    cache: bool = False,
) -> None:
    """Write the embeddings of an opened table; raw images are read for a step without stain."""
    sections = spots.sections if step.stain is None else spots.normalized_sections
    fields_um, n_subtiles = step.fields_um or (DEFAULT_TILE_UM,), step.n_subtiles or 1
    check_tiles(sections, fields_um)
    devices = _runtime.all_devices(device)
    encoder = replicate(encoder, devices)
    n_obs = spots.table.n_obs
    whole = np.empty((n_obs, len(fields_um) * encoder.dimension), dtype=np.float32)
    parts = np.empty((n_obs, n_subtiles**2, encoder.dimension), dtype=np.float32)
    for section in sections:
        tile, subtile = embed_section(
            section.levels,
            section.centers,
            encoder,
            mpp=section.mpp,
            fields_um=fields_um,
            n_subtiles=n_subtiles,
            batch_size=batch_size * len(devices),
            description=f"embed {section.name}",
            cache=cache,
        )
        whole[section.rows] = tile
        if subtile is not None:
            parts[section.rows] = subtile
    spots.table.obsm[slot] = whole
    if n_subtiles > 1:
        spots.table.obsm[_keys.subtiles(slot)] = parts
    else:  # sub-tiles of an earlier call belong to other tiles
        spots.table.obsm.pop(_keys.subtiles(slot), None)
    # record what was used, also where the step left it open
    tile_px = tile_side_px(encoder, fields_um[0])
    step = replace(
        step,
        weights_hash=encoder.weights_hash,
        tile_um=of_fields(fields_um),
        mpp=of_fields(tuple(tile_um / tile_px for tile_um in fields_um)),
        widths=getattr(encoder.function, "widths", None),
        response=encoder.response if encoder.is_custom else None,
    )
    record_step(spots.table, step, slot=slot)
