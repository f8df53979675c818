"""Fine positions of the sections of a table: checked, placed, matched and written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stpredict import _keys, _validate
from stpredict._sdata._provenance import record, recorded
from stpredict._sdata._slots import check_new_table
from stpredict._sdata._spacing import spacing_of
from stpredict._sdata._spot_table import SpotTable, open_table
from stpredict.tl._superresolution._element import as_sections
from stpredict.tl._superresolution._inputs import check_resolution
from stpredict.tl._superresolution._match import match_spots
from stpredict.tl._superresolution._positions import fine_positions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stpredict._sdata._sections import Section
    from stpredict._sdata._spacing import Spacing
    from stpredict.tl._superresolution._positions import FinePositions

_RECORD = "superresolve"


@dataclass(frozen=True, eq=False)
class FineSections:
    """Fine positions over the spots of a table, and the names of the elements they become."""

    spots: SpotTable
    resolution_um: float
    key: str  # name of the new table
    spacings: dict[str, Spacing]  # by section
    positions: dict[str, FinePositions]

    @classmethod
    def place(cls, spots: SpotTable, resolution_um: float, key: str) -> FineSections:
        """Check the resolution and the names of the new elements, and place positions."""
        _check_names(spots, key)
        spacings = {section.name: spacing_of(section.centers_um) for section in spots.sections}
        n_spots = {section.name: len(section.rows) for section in spots.sections}
        check_resolution(resolution_um, spacings, n_spots)
        positions = {
            section.name: _positions_of(section, spacings[section.name], resolution_um)
            for section in spots.sections
        }
        return cls(spots, float(resolution_um), key, spacings, positions)

    def open(self) -> SpotTable:
        """The positions as spots without genes, on the images that the spots have now."""
        names = {name: _shapes(name, self.key) for name in self.positions}
        return open_table(
            as_sections(self.spots, self.positions, names, resolution_um=self.resolution_um)
        )

    def match(
        self,
        section: Section,
        rows: NDArray[np.intp],  # all positions of some spots
        values: NDArray[np.float32],  # (n, n_genes) at these positions
        spot_values: Any,  # (n_obs, n_genes), also on disk
        *,
        nonnegative: bool,
    ) -> NDArray[np.float32]:
        """Make predictions at some positions of a section consistent with their spots."""
        positions, spots = self.positions[section.name].subset(rows)
        return match_spots(
            values,
            np.asarray(spot_values[section.rows[spots]]),
            positions,
            radius_um=section.radius_um[spots],
            pitch_um=self.spacings[section.name].pitch_um,
            nonnegative=nonnegative,
        )

    def write(self, fine: SpotTable, match: str | None, *, intervals: bool = False) -> None:
        """Move the shapes and the table of predictions to the object of the spots.

        ``intervals`` is whether those in the table hold for positions.
        """
        table = fine.sdata.tables[self.key]
        # those of predict, and reliable genes, were calibrated on spots
        for layer in () if intervals else (_keys.LOWER, _keys.UPPER):
            table.layers.pop(layer, None)
        table.var = table.var.drop(columns=_keys.RELIABLE, errors="ignore")
        # the graph is an input of the model
        for slot in (_keys.CONNECTIVITIES, _keys.DISTANCES):
            table.obsp.pop(slot, None)
        table.uns.pop("spatial_neighbors", None)
        record(
            table,
            _RECORD,
            resolution_um=self.resolution_um,
            match=match,
            table_name=self.spots.name,
            sections=list(self.positions),
        )
        sdata = self.spots.sdata
        for name, element in [*fine.sdata.shapes.items(), (self.key, table)]:
            if name in sdata:  # SpatialData warns of overwritten elements
                del sdata[name]
            sdata[name] = element


def _shapes(section: str, key: str) -> str:
    return f"{section}_{key}"


def _check_names(spots: SpotTable, key_added: str) -> None:
    """Require names of a new table and new shapes, or of those that an earlier call wrote."""
    sdata = spots.sdata
    check_new_table(sdata, key_added)
    is_own = key_added in sdata.tables and recorded(sdata.tables[key_added], _RECORD)
    if key_added in sdata.tables and not is_own:
        raise ValueError(
            f"tables[{key_added!r}] holds predictions of spots: give another key_added="
        )
    taken = [
        name for section in spots.section_names if (name := _shapes(section, key_added)) in sdata
    ]
    if taken and not is_own:
        raise ValueError(
            f"the object has elements {_validate.listing(taken)} already: give another key_added="
        )


def _positions_of(section: Section, spacing: Spacing, resolution_um: float) -> FinePositions:
    """Fine positions of a section; each spot must have one."""
    size_um = section.mpp * np.array(section.shape_yx[::-1])
    positions = fine_positions(section.centers_um, spacing, resolution_um, size_um=size_um)
    n_spots = len(section.rows)
    n_without = n_spots - len(np.unique(positions.spot))
    if n_without:
        raise ValueError(
            f"{n_without} of {n_spots} spots of section {section.name!r} have no position that is "
            "nearer to them than to others: use a smaller resolution_um="
        )
    return positions
