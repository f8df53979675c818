"""Shapes moved by their transformations, and what that outdates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from spatialdata.transformations import Affine, get_transformation, set_transformation

from stpredict import _keys
from stpredict._log import tell
from stpredict._sdata import _provenance, _sections
from stpredict._sdata._elements import matrix_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from spatialdata import SpatialData


def move_shapes(
    sdata: SpatialData, section: _sections.Section, matrix: NDArray[np.float64]
) -> None:
    """Move the shapes in every coordinate system they share with the image."""
    shapes, image = sdata.shapes[section.name], sdata.images[section.image]
    of_shapes = get_transformation(shapes, get_all=True)
    of_image = get_transformation(image, get_all=True)
    um = _keys.um(section.name)
    from_um = np.linalg.inv(matrix_of(of_image[um]))
    for system, transformation in of_shapes.items():
        if system not in of_image:
            continue
        to_system = matrix_of(of_image[system]) @ from_um  # from µm to that system
        there = to_system @ matrix @ np.linalg.inv(to_system)
        moved = Affine(there @ matrix_of(transformation), ("x", "y"), ("x", "y"))
        set_transformation(shapes, moved, to_coordinate_system=system)


def drop_outdated(sdata: SpatialData) -> None:
    """Drop embeddings and tissue fractions, which were made at the old positions."""
    table = _sections.table_of(sdata)
    embeddings = [key for key in _provenance.recorded(table, "embed") if key in table.obsm]
    slots = [f"obsm[{key!r}]" for key in embeddings]
    for key in embeddings:
        del table.obsm[key]
        if _keys.subtiles(key) in table.obsm:
            del table.obsm[_keys.subtiles(key)]
    table.uns[_keys.UNS].pop("embed", None)
    if _keys.TISSUE_FRACTION in table.obs:
        del table.obs[_keys.TISSUE_FRACTION]
        slots.append(f"obs[{_keys.TISSUE_FRACTION!r}]")
    if slots:
        tell(f"realign: dropped {', '.join(slots)}, made at the old positions")
