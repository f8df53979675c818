"""Fingerprints of data: equal for equal values in every session, from memory or from a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import pandas as pd

from stpredict import _keys
from stpredict._describe import hash_arrays, hash_values
from stpredict._sdata._elements import affines_to_um, pyramid_of
from stpredict._sdata._spot_table import layer_names

if TYPE_CHECKING:
    from geopandas import GeoDataFrame
    from numpy.typing import NDArray

    from stpredict._sdata._sections import Section
    from stpredict._sdata._spot_table import SpotTable

#: Largest level of a pyramid that is read, 13,000² px: finer ones show the same in more detail.
_MOST_BYTES = 512 * 2**20
#: Side in pixels of the blocks that are read at a time.
_BLOCK_PX = 2048


def data_fingerprints(spots: SpotTable) -> dict[str, str]:
    """Fingerprint of everything that a method can read, by the name of the slot or element."""
    table = spots.table
    parts = {"obs_names": table.obs_names, "var_names": table.var_names, "X": table.X}
    parts |= {f"layers[{name!r}]": table.layers[name] for name in layer_names(table)}
    for slot in ("obs", "var", "obsm", "varm", "obsp"):
        values = getattr(table, slot)
        parts |= {f"{slot}[{name!r}]": values[name] for name in values}
    hashes = {name: hash_values(values) for name, values in parts.items() if values is not None}
    for section in spots.sections:
        hashes |= _hash_section(spots, section)
    return hashes


def _hash_section(spots: SpotTable, section: Section) -> dict[str, str]:
    """Fingerprints of the shapes, images and tissue masks of a section, with their positions."""
    sdata, name = spots.sdata, section.name
    image_to_um, shapes_to_um = affines_to_um(sdata, name, section.image)
    hashes = {f"shapes[{name!r}]": _hash_shapes(sdata.shapes[name], shapes_to_um)}
    to_um = hash_values(image_to_um)
    for image in (section.image, _keys.normalized(section.image)):
        if image in sdata.images:
            hashes[f"images[{image!r}]"] = _hash_pyramid(sdata.images[image]) + to_um
        if (mask := _keys.tissue(image)) in sdata.labels:
            hashes[f"labels[{mask!r}]"] = _hash_pyramid(sdata.labels[mask])
    return hashes


def _hash_shapes(shapes: GeoDataFrame, to_um: NDArray[np.float64]) -> str:
    outlines = np.frombuffer(b"".join(shapes.geometry.to_wkb()), dtype=np.uint8)
    columns = hash_values(pd.DataFrame(shapes.drop(columns=shapes.geometry.name)))
    names = np.array([hash_values(shapes.index), columns])
    return hash_arrays(outlines, to_um, names)


def _hash_pyramid(element: Any) -> str:
    """Hash the pixels of all levels that are not too large, and at least of the coarsest."""
    levels = [da.asarray(level.data) for level in pyramid_of(element)]
    small = [level for level in levels if level.nbytes <= _MOST_BYTES]
    return hash_values(np.array([_hash_level(level) for level in small or levels[-1:]]))


def _hash_level(level: da.Array) -> str:
    # blocks of a fixed size: images are cut into other chunks when they are written
    *channels, y, x = range(level.ndim)
    blocks = level.rechunk({**dict.fromkeys(channels, -1), y: _BLOCK_PX, x: _BLOCK_PX})
    one = (1,) * level.ndim
    hashes = blocks.map_blocks(_hash_block, dtype=np.uint64, chunks=one, meta=np.empty(one))
    # in this process: the workers of a cluster need not see the files
    values = hashes.compute(scheduler="threads")
    return hash_arrays(np.array(level.shape), values)


def _hash_block(block: NDArray[Any]) -> NDArray[np.uint64]:
    number = int(hash_arrays(block)[:16], 16)
    return np.full((1,) * block.ndim, number, dtype=np.uint64)
