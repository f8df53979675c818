"""Register features that were computed elsewhere as an embedding."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stpredict import _keys, _validate
from stpredict._arguments import checked
from stpredict._sdata._provenance import record_step
from stpredict._sdata._spot_table import SpotTable, open_table, require_key
from stpredict._sdata._steps import MAX_SUBTILES, EmbedStep

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from spatialdata import SpatialData


@checked
def register_embedding(
    sdata: SpatialData,
    key: str,
    *,
    encoder: str,
    tile_um: float,
    mpp: float | None = None,
    n_subtiles: int = 1,
    weights_hash: str | None = None,
    table_name: str = "table",
    copy: bool = False,
) -> SpatialData | None:
    """Make features that were computed elsewhere usable by every ``fit_*`` and by ``predict``.

    The features may come from your own model or from another tool, such as LazySlide. Register them
    on new sections with the same parameters, before :func:`stpredict.pp.prepare`.

    Parameters
    ----------
    sdata, key
        Sections with a table, and the slot in its ``obsm`` with the features, (n_obs, d).
    encoder
        Name of the encoder, by which different features are distinguished.
    tile_um, mpp
        Side of a tile in µm, and µm per pixel at which the encoder saw it, if known.
    n_subtiles
        Number of sub-tiles along each side of a tile; if it is not 1, ``obsm["<key>_subtiles"]``
        must hold their features, (n_obs, n_subtiles², d), row by row from the upper left.
    weights_hash
        Any string that identifies the weights, if they should be compared.
    table_name, copy
        Name of the table, and whether to change and return a copy.

    Returns
    -------
    SpatialData | None
        Writes ``uns["stpredict"]["embed"][key]`` and ``obsm[key]`` as float32.

    Raises
    ------
    KeyError, TypeError
        If ``obsm`` has no such slot, or it does not hold floating-point numbers.
    ValueError
        If features are not finite or have another shape, ``key`` is ``"spatial"``, or a parameter
        is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom()
    >>> table = sdata.tables["table"]
    >>> table.obsm["my_features"] = np.ones((table.n_obs, 16))
    >>> stp.pp.register_embedding(sdata, "my_features", encoder="my_model", tile_um=112)
    """
    _validate.positive("tile_um", tile_um, unit="µm")
    if mpp is not None:
        _validate.positive("mpp", mpp, unit="µm per pixel")
    _validate.whole_number("n_subtiles", n_subtiles, at_most=MAX_SUBTILES)
    if not isinstance(encoder, str) or not encoder:
        raise ValueError(f"encoder must be the name of an encoder: {encoder!r}")
    if key == _keys.SPATIAL:
        raise ValueError(f"key={key!r} holds positions, not features: give another slot of obsm")
    spots = open_table(sdata, table_name, copy=copy)
    features = {key: _features(spots, key)}
    if n_subtiles > 1:
        slot = _keys.subtiles(key)
        if slot not in spots.table.obsm:
            raise KeyError(f"n_subtiles={n_subtiles}, but obsm has no {slot!r} with their features")
        features[slot] = _features(spots, slot, n_subtiles**2, features[key].shape[-1])
    spots.table.obsm.update(features)
    step = EmbedStep(
        encoder=encoder,
        weights_hash=weights_hash,
        tile_um=float(tile_um),
        mpp=None if mpp is None else float(mpp),
        n_subtiles=n_subtiles,
        registered=True,
    )
    record_step(spots.table, step, slot=key)
    return spots.sdata if copy else None


def _features(spots: SpotTable, slot: str, *shape: int) -> NDArray[np.float32]:
    """Features of a slot as float32, finite, and of a shape after the rows; default: any width."""
    require_key(slot, spots.table.obsm, what="obsm")
    values = np.asarray(spots.table.obsm[slot])
    if not np.issubdtype(values.dtype, np.floating):
        raise TypeError(f"obsm[{slot!r}] must be floating-point numbers, not {values.dtype}")
    features = values.astype(np.float32)
    _validate.finite(features, what=f"obsm[{slot!r}]")  # also where float32 overflows
    # at least one feature; anything but two dimensions fails the comparison
    required = (len(features), *(shape or (max(1, features.shape[-1]),)))
    if features.shape != required:
        raise ValueError(f"obsm[{slot!r}] has the shape {features.shape}; it must be {required}")
    return features
