"""Build the spatial neighbourhood graph of every section."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import scipy.sparse as sp
from anndata import AnnData
from scipy.spatial import cKDTree

from stpredict import _keys, _validate
from stpredict._arguments import checked
from stpredict._log import SPATIALDATA, info, quiet
from stpredict._sdata._inputs import require_spacing
from stpredict._sdata._provenance import record_step
from stpredict._sdata._slots import check_slot, write_slot
from stpredict._sdata._spacing import common_grid, common_spacing, spacing_of
from stpredict._sdata._spot_table import SpotTable, open_table
from stpredict._sdata._steps import MAX_RINGS, NeighborsStep

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from spatialdata import SpatialData

    from stpredict._sdata._sections import Section
    from stpredict._sdata._spacing import Spacing

#: Neighbours in the first ring.
_RING = {"hexagonal": 6, "square": 8}
#: Share of the training pitch up to which spots lie near every place on the grid of training.
_FINER = 0.55
#: Distance from a place on that grid within which a spot is a neighbour, as a share of the pitch.
_MOST_OFFSET = 0.3


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
    """Build the spatial neighbourhood graph of every section, with squidpy.

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
    spacings = {section.name: spacing_of(section) for section in spots.sections}
    trained = step
    if step.is_by_rings and (step.grid is None or step.pitch_um is None):
        grid, pitch = common_grid(spacings, step.grid)
        step = replace(step, grid=grid, pitch_um=_rounded(pitch))
    connectivities, distances = _graph(spots, step, spacings)
    if not step.is_by_rings:
        spacing = common_spacing(spacings.values())
        step = replace(step, layout=spacing.layout, pitch_um=_rounded(spacing.pitch_um))
    step = replace(step, distance_um=_rounded(float(np.median(distances.data))))
    require_spacing(trained, step)
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


def _rounded(length: float) -> float | None:
    """Length with four digits; None for spots at a single place."""
    return float(f"{length:.4g}") if length > 0 else None


def _graph(
    spots: SpotTable, step: NeighborsStep, spacings: Mapping[str, Spacing]
) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """Connectivities and distances in µm, (n_obs, n_obs)."""
    links = []
    for section in spots.sections:
        first, second = _links(section, step, spacings[section.name])
        links.append((section.rows[first], section.rows[second]))
    rows, columns = (np.concatenate(each) for each in zip(*links, strict=True))
    if not len(rows):
        pitch = common_spacing(spacings.values()).pitch_um
        remedy = ": increase radius_um=" if step.radius_um else ""
        raise ValueError(
            f"no spot has a neighbour by the rule {step.rule}; the spots are about {pitch:.4g} µm "
            f"apart{remedy}"
        )
    # squidpy's distances count rings on a grid; µm serve all rules
    lengths = np.linalg.norm(spots.positions_um[rows] - spots.positions_um[columns], axis=1)
    shape = (spots.table.n_obs, spots.table.n_obs)
    connectivities = sp.csr_matrix((np.ones(len(rows)), (rows, columns)), shape)
    connectivities.sort_indices()  # the same order of neighbours for every rule
    return connectivities, sp.csr_matrix((lengths, (rows, columns)), shape)


def _links(section: Section, step: NeighborsStep, spacing: Spacing) -> tuple[Any, Any]:
    """Rows of the section that are linked: each spot, and its neighbour."""
    if step.grid is None or step.pitch_um is None:
        return _squidpy_links(section, step)
    if spacing.fits(step.grid, step.pitch_um):
        return _squidpy_links(section, step)
    # a few scattered spots are linked where they lie at the right distance
    if spacing.layout is not None and spacing.pitch_um > _FINER * step.pitch_um:
        raise ValueError(
            f"section {section.name!r} ({spacing}) has no neighbours like those of training "
            f"({step.grid}, {step.pitch_um:g} µm apart): use stp.pp.grid(sdata, {section.image!r}, "
            f"pitch_um={step.pitch_um:g}, layout={step.grid!r}), or at most half that pitch"
        )
    info(
        f"neighbors {section.name}: spots {spacing}, neighbours at the places of a {step.grid} "
        f"grid of {step.pitch_um:g} µm"
    )
    return _lattice_links(section.centers_um, step)


def _lattice_links(centers_um: NDArray[np.float64], step: NeighborsStep) -> tuple[Any, Any]:
    """Links to the spots nearest to where the neighbours on the grid of training would lie."""
    pitch, n_rings = float(step.pitch_um or 0), step.n_rings or 1
    steps = np.mgrid[-n_rings : n_rings + 1, -n_rings : n_rings + 1].reshape(2, -1).T
    if step.grid == "hexagonal":
        # one step along both axes is two steps, except in opposite directions
        steps = steps[np.abs(steps.sum(axis=1)) <= n_rings]
        offsets = steps @ np.array([[1, 0], [0.5, np.sqrt(3) / 2]])
    else:
        offsets = steps.astype(float)
    offsets = pitch * offsets[steps.any(axis=1)]
    places = centers_um[:, None] + offsets
    reach = _MOST_OFFSET * pitch
    _, nearest = cKDTree(centers_um).query(places, distance_upper_bound=reach)
    first, place = np.nonzero(nearest < len(centers_um))
    return first, nearest[first, place]


def _squidpy_links(section: Section, step: NeighborsStep) -> tuple[Any, Any]:
    from squidpy import gr

    least = _RING[step.grid] if step.grid else step.n_neighbors or 1
    if len(section.rows) <= least and step.radius_um is None:
        raise ValueError(
            f"section {section.name!r} has {len(section.rows)} spots, too few for {least} "
            "neighbours each: give a smaller n_neighbors=, or radius_um="
        )
    # squidpy gets a table with positions in µm only, whatever the user's obsm holds
    bare = AnnData(shape=(len(section.rows), 0), obsm={_keys.SPATIAL: section.centers_um})
    with quiet(SPATIALDATA):
        if step.grid:
            n_neighs = _RING[step.grid]
            result = gr.spatial_neighbors_grid(
                bare, n_neighs=n_neighs, n_rings=step.n_rings, copy=True
            )
        elif step.n_neighbors:
            result = gr.spatial_neighbors_knn(bare, n_neighs=step.n_neighbors, copy=True)
        else:
            result = gr.spatial_neighbors_radius(bare, radius=step.radius_um, copy=True)
    return sp.csr_matrix(result[0]).nonzero()
