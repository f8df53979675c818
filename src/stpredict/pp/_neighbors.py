"""Build the spatial neighbourhood graph of every section."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import scipy.sparse as sp

from stpredict import _keys, _validate
from stpredict._arguments import checked
from stpredict._sdata._links import link_sections
from stpredict._sdata._provenance import record_step
from stpredict._sdata._slots import check_slot, write_slot
from stpredict._sdata._spot_table import SpotTable, open_table
from stpredict._sdata._steps import MAX_RINGS, NeighborsStep

if TYPE_CHECKING:
    from spatialdata import SpatialData


@checked
def neighbors(
    sdata: SpatialData,
    *,
    grid: Literal["hexagonal", "square"] | None = None,
    n_rings: int = 1,
    n_neighbors: int | None = None,
    radius_um: float | None = None,
    table_name: str = "table",
    key_added: str = "spatial",
    copy: bool = False,
) -> SpatialData | None:
    """Build the spatial neighbourhood graph of every section, as squidpy does.

    One of three rules applies: rings on a grid (the default), the k nearest spots, or all spots
    within a radius. Sections are never linked. Pitch and layout of the spots are recorded, and
    models refuse sections on which the neighbours lie at another distance.

    Parameters
    ----------
    sdata
        Sections with shapes and a table.
    grid
        Layout of the spots: ``"hexagonal"`` (Visium) or ``"square"`` (legacy ST, with 8 neighbours
        in the first ring); detected by default. All sections must have it.
    n_rings
        Number of rings on the grid.
    n_neighbors, radius_um
        Number of nearest neighbours, or their maximum distance in µm, instead of a grid.
    table_name, key_added, copy
        Name of the table; prefix of the slots, of which models read the default; and whether to
        change and return a copy.

    Returns
    -------
    SpatialData | None
        Writes to ``tables[table_name]``: ``obsp["<key_added>_connectivities"]`` and
        ``obsp["<key_added>_distances"]`` (µm), (n_obs, n_obs) CSR, block-diagonal over sections,
        ``uns["<key_added>_neighbors"]`` as squidpy does, and ``uns["stpredict"]["neighbors"]``.

    Raises
    ------
    ValueError
        If more than one rule is given, a section has too few spots for it, the spots lie on no grid
        or another one, the pitch of sections differs, no spot has a neighbour, or ``key_added`` is
        invalid or the prefix of your own graph.

    References
    ----------
    Palla et al., Squidpy, Nature Methods 2022.

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom()
    >>> stp.pp.neighbors(sdata)
    >>> int(sdata.tables["table"].obsp["spatial_connectivities"].sum(axis=1).max())
    6
    """
    _validate.slot_name("key_added", key_added)
    spots = open_table(sdata, table_name, copy=copy)
    for slot in _slots(key_added).values():
        check_slot(spots.table, "obsp", slot)
    rules = {"grid": grid, "n_neighbors": n_neighbors, "radius_um": radius_um}
    rule: dict[str, Any] = {name: value for name, value in rules.items() if value is not None}
    if len(rule) > 1:
        raise ValueError(f"give one rule for neighbours, not {len(rule)}: {rule}")
    _validate.whole_number("n_rings", n_rings, at_most=MAX_RINGS)
    if n_neighbors is not None:
        _validate.whole_number("n_neighbors", n_neighbors)
    if radius_um is not None:
        _validate.positive("radius_um", radius_um, unit="µm")
    if not rule or grid is not None:
        rule["n_rings"] = n_rings
    elif n_rings != 1:
        raise ValueError(f"n_rings={n_rings} applies to grids, not to {rule}")
    link_neighbors(spots, NeighborsStep(**rule), key_added=key_added)
    return spots.sdata if copy else None


def link_neighbors(
    spots: SpotTable, step: NeighborsStep, *, key_added: str = _keys.SPATIAL
) -> None:
    """Write the neighbourhood graph of an opened table; the step of a model fixes distances."""
    # positions outside the image mean that shapes and image are not aligned
    for section in spots.sections:
        _validate.inside_image(section.centers, section.shape_yx, section=section.name)
    links, step = link_sections({each.name: each.centers_um for each in spots.sections}, step)
    rows, columns = (
        np.concatenate([each.rows[links[each.name][end]] for each in spots.sections])
        for end in (0, 1)
    )
    lengths = np.linalg.norm(spots.positions_um[rows] - spots.positions_um[columns], axis=1)
    shape = (spots.table.n_obs, spots.table.n_obs)
    connectivities = sp.csr_matrix((np.ones(len(rows)), (rows, columns)), shape)
    connectivities.sort_indices()  # the same order of neighbours for every rule
    distances = sp.csr_matrix((lengths, (rows, columns)), shape)
    slots = _slots(key_added)
    for slot, matrix in zip(slots.values(), (connectivities, distances), strict=True):
        write_slot(spots.table, "obsp", slot, matrix)
    # squidpy's and scanpy's tools find a graph by this record
    keys = {f"{kind}_key": slot for kind, slot in slots.items()}
    spots.table.uns[f"{key_added}_neighbors"] = {**keys, "params": step.to_plain()}
    # there is one record, which describes the graph that models read
    if key_added == _keys.SPATIAL:
        record_step(spots.table, step)


def _slots(key_added: str) -> dict[str, str]:
    """Names of the two slots in ``obsp``."""
    return {kind: f"{key_added}_{kind}" for kind in ("connectivities", "distances")}
