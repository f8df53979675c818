"""Build the spatial neighbourhood graph of every section."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from scipy.spatial import cKDTree

from stpredict import _keys, _validate
from stpredict._log import SPATIALDATA, quiet
from stpredict._sdata._provenance import record_step
from stpredict._sdata._slots import check_slot, write_slot
from stpredict._sdata._spot_table import SpotTable, open_table
from stpredict._sdata._steps import NeighborsStep

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from spatialdata import SpatialData

    from stpredict._sdata._sections import Section

#: Neighbours in the first ring.
_RING = {"hexagonal": 6, "square": 8}
#: Rotational symmetry of the directions to the nearest neighbours.
_SYMMETRY: dict[Literal["hexagonal", "square"], int] = {"hexagonal": 6, "square": 4}
#: Order of directions above which spots lie on a grid; 0.9 where they are off by 8 % of the pitch.
_LEAST_ORDER = 0.6
#: Fewer directions may agree by chance.
_LEAST_PAIRS = 12


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
    """Build the spatial neighbourhood graph of every section, with squidpy.

    One of three rules applies: rings on a grid (the default), the k nearest spots, or all spots
    within a radius. Sections are never linked.

    Parameters
    ----------
    sdata
        Sections with shapes and a table.
    grid
        Layout of the spots: ``"hexagonal"`` (Visium) or ``"square"`` (legacy ST, with 8 neighbours
        in the first ring); detected by default.
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
        If more than one rule is given, a section has too few spots for it, no rule is given and the
        spots lie on no grid, or ``key_added`` is invalid or the prefix of your own graph.

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
    _validate.whole_number("n_rings", n_rings)
    if grid is not None:
        _validate.one_of("grid", grid, _RING)
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
    """Write the neighbourhood graph of an opened table; the layout of a grid is detected."""
    # positions outside the image mean that shapes and image are not aligned
    for section in spots.sections:
        _validate.inside_image(section.centers, section.shape_yx, section=section.name)
    # a recorded step has its layout, so that new sections get the same one
    if step.n_neighbors is None and step.radius_um is None and step.grid is None:
        step = replace(step, grid=_detect_grid(spots.sections))
    slots = _slots(key_added)
    for slot, matrix in zip(slots.values(), _graph(spots, step), strict=True):
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


def _detect_grid(sections: Sequence[Section]) -> Literal["hexagonal", "square"]:
    """Hexagonal or square, from the directions in which neighbouring spots lie."""
    # the mean of exp(i k angle) is near 1 for k = 6 on a hexagonal and for k = 4 on a square grid,
    # else near 0; unlike the number of neighbours, it does not depend on edges and holes
    angles = [_directions(section.centers_um) for section in sections]
    n_pairs = sum(map(len, angles))
    order = {
        grid: float(sum(abs(np.exp(1j * fold * angle).sum()) for angle in angles)) / max(n_pairs, 1)
        for grid, fold in _SYMMETRY.items()
    }
    fitting = [grid for grid, value in order.items() if value > _LEAST_ORDER]
    if n_pairs < _LEAST_PAIRS or len(fitting) != 1:
        raise ValueError(
            f"the spots lie on no hexagonal or square grid (order of directions over {n_pairs} "
            f"pairs: {order}): give n_neighbors=, radius_um= or grid="
        )
    return fitting[0]


def _directions(centers_um: NDArray[np.float64]) -> NDArray[np.float64]:
    """Angles between neighbours at about the pitch."""
    if len(centers_um) < 3:
        return np.zeros(0)
    tree = cKDTree(centers_um)
    # the second nearest lies at the pitch, also at the edge, and scatters less than the nearest
    pitch = float(np.median(tree.query(centers_um, k=3)[0][:, -1]))
    first, second = tree.query_pairs(1.25 * pitch, output_type="ndarray").reshape(-1, 2).T
    x, y = (centers_um[second] - centers_um[first]).T
    return np.arctan2(y, x)


def _graph(spots: SpotTable, step: NeighborsStep) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """Connectivities and distances in µm, (n_obs, n_obs)."""
    from squidpy import gr

    least = _RING[step.grid] if step.grid else step.n_neighbors or 1
    for section in spots.sections:
        if len(section.rows) <= least:
            raise ValueError(
                f"section {section.name!r} has {len(section.rows)} spots, too few for {least} "
                "neighbours each: give a smaller n_neighbors=, or radius_um="
            )
    positions = spots.positions_um
    # squidpy gets a table with positions in µm only, whatever the user's obsm holds
    library = pd.DataFrame({"library": pd.Categorical(spots.section_of_row)}, spots.table.obs_names)
    bare = AnnData(obs=library, obsm={_keys.SPATIAL: positions})
    options: dict[str, Any] = {"library_key": "library", "copy": True}
    with quiet(SPATIALDATA):
        if step.grid:
            result = gr.spatial_neighbors_grid(
                bare, n_neighs=_RING[step.grid], n_rings=step.n_rings, **options
            )
        elif step.n_neighbors:
            result = gr.spatial_neighbors_knn(bare, n_neighs=step.n_neighbors, **options)
        else:
            result = gr.spatial_neighbors_radius(bare, radius=step.radius_um, **options)
    connectivities = sp.csr_matrix(result[0])
    connectivities.sort_indices()  # the same order of neighbours for every rule
    rows, columns = connectivities.nonzero()
    lengths = np.linalg.norm(positions[rows] - positions[columns], axis=1)
    # squidpy's distances count rings on a grid; µm serve all rules
    distances = sp.csr_matrix((lengths, (rows, columns)), shape=connectivities.shape)
    return connectivities, distances
