"""Rows of a table that a user chose by section or by the names of spots."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stpredict import _validate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stpredict._sdata._spot_table import SpotTable


def select_rows(
    opened: SpotTable, section: str | None, spots: Sequence[str] | None, *, required: bool
) -> NDArray[np.intp]:
    """Rows of a section, of spots by name, or by default all, ascending."""
    if section is not None and spots is not None:
        raise ValueError("give section= or spots=, not both")
    table = opened.table
    if spots is not None:
        names = [spots] if isinstance(spots, str) else list(spots)
        rows = table.obs_names.get_indexer(names)
        absent = [name for name, row in zip(names, rows, strict=True) if row < 0]
        if absent or not names:
            examples = _validate.listing(table.obs_names, most=4)
            raise KeyError(f"no spots {_validate.listing(map(repr, absent))}; spots: {examples}")
        return np.unique(rows)  # ascending, without repetition
    if section is not None:
        if section not in opened.section_names:
            listing = _validate.listing(opened.section_names)
            raise KeyError(f"no section {section!r}; sections: {listing}")
        return np.flatnonzero(opened.section_of_row == section)
    if required:  # seconds per tile
        first = str(table.obs_names[0])
        raise ValueError(
            f"a model on pixels needs a choice of spots: spots=[{first!r}, …], or section="
        )
    return np.arange(table.n_obs)
