"""Move shapes by their transformations, and drop what was computed at the old positions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from spatialdata.transformations import Affine, get_transformation, set_transformation

from stpredict import _keys
from stpredict._log import info
from stpredict._sdata._elements import matrix_of
from stpredict._sdata._provenance import read_steps
from stpredict._sdata._steps import EmbedStep

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray
    from spatialdata import SpatialData

    from stpredict._sdata._sections import Section


def move_shapes(sdata: SpatialData, section: Section, matrix: NDArray[np.float64]) -> None:
    """Move the shapes in every coordinate system they share with the image."""
    shapes, image = sdata.shapes[section.name], sdata.images[section.image]
    shape_systems = get_transformation(shapes, get_all=True)
    image_systems = get_transformation(image, get_all=True)
    from_um = np.linalg.inv(matrix_of(image_systems[_keys.um(section.name)]))
    for system, transformation in shape_systems.items():
        if system not in image_systems:
            continue
        # the motion is in µm: express it in the coordinates of this system
        um_to_system = matrix_of(image_systems[system]) @ from_um
        motion = um_to_system @ matrix @ np.linalg.inv(um_to_system)
        moved = Affine(motion @ matrix_of(transformation), ("x", "y"), ("x", "y"))
        set_transformation(shapes, moved, to_coordinate_system=system)


def drop_outdated(table: AnnData) -> None:
    """Drop embeddings and tissue fractions, which were computed at the old positions."""
    dropped = []
    for slot in read_steps(table).embed:
        table.obsm.pop(_keys.subtiles(slot), None)
        if table.obsm.pop(slot, None) is not None:
            dropped.append(f"obsm[{slot!r}]")
    # the record goes with the embeddings, so that models do not accept them
    table.uns.get(_keys.UNS, {}).pop(EmbedStep.name, None)
    if _keys.TISSUE_FRACTION in table.obs:
        del table.obs[_keys.TISSUE_FRACTION]
        dropped.append(f"obs[{_keys.TISSUE_FRACTION!r}]")
    if dropped:
        info(f"realign: dropped {', '.join(dropped)}, computed at the old positions")
