"""Buffer between training and test spots of the same section."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

from stpredict._sdata._spacing import common_spacing, spacing_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stpredict._sdata._spot_table import SpotTable

#: Width of the buffer: expression of neighbouring spots is correlated.
_PITCHES = 2.5


def block_buffer_um(spots: SpotTable) -> float:
    """2.5 spot pitches, and at least the side of the largest embedded tile, in µm.

    Tiles of a training and a test spot share no pixel if they are further apart, in x or in y,
    than their side.
    """
    pitch = common_spacing(spacing_of(part.centers_um) for part in spots.sections).pitch_um
    if not pitch > 0:
        raise ValueError("blocks of tissue need sections with several spots: give other groups=")
    return float(f"{max(_PITCHES * pitch, largest_tile_um(spots)):.4g}")


def largest_tile_um(spots: SpotTable) -> float:
    """Side in µm of the largest embedded tile; 0 without any."""
    steps = spots.steps.embed
    sides = [side for slot in spots.table.obsm if slot in steps for side in steps[slot].fields_um]
    return max(sides, default=0.0)


def rows_near(spots: SpotTable, rows: NDArray[np.intp], width_um: float) -> NDArray[np.intp]:
    """Other rows of the same sections, nearer than a width in both x and y to one of the rows."""
    near = []
    for section_rows in spots.section_rows.values():
        inside, others = np.intersect1d(section_rows, rows), np.setdiff1d(section_rows, rows)
        if len(inside) and len(others):
            tree = cKDTree(spots.positions_um[inside])
            distance = tree.query(spots.positions_um[others], p=np.inf)[0]
            near.append(others[distance < width_um])
    return np.sort(np.concatenate(near)) if near else rows[:0]
