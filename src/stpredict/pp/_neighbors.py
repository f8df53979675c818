"""Spatial neighbour graph, section by section."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import scipy.sparse as sp
from anndata import AnnData
from scipy.spatial import cKDTree

from stpredict import _keys, _validate
from stpredict._log import SPATIALDATA, quiet
from stpredict._sdata import _provenance, _sections

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from spatialdata import SpatialData

#: Neighbours in the first ring.
_RING = {"hexagonal": 6, "square": 8}
#: Order of directions above which spots lie on a grid; 0.9 where they are off by 8 % of the pitch.
_ORDER = 0.6
#: Fewer directions may agree by chance.
_LEAST_PAIRS = 12


def neighbors(
    sdata: SpatialData,
    *,
    grid: Literal["hexagonal", "square"] | None = None,
    n_rings: int = 1,
    n_neighbors: int | None = None,
    radius_um: float | None = None,
    copy: bool = False,
) -> SpatialData | None:
    """Build the spatial neighbour graph of every section, with squidpy.

    One of three rules: rings on a grid (the default; whether hexagonal or square is seen from the
    positions), the k nearest, or all within a radius. Sections are never linked.

    Parameters
    ----------
    sdata
        Sections with shapes and a table.
    grid
        ``"hexagonal"`` (Visium) or ``"square"`` (legacy ST; the first ring has 8 neighbours).
    n_rings
        Rings on the grid.
    n_neighbors
        Instead of a grid: this many nearest neighbours.
    radius_um
        Instead of a grid: all neighbours within this many µm.
    copy
        Return a changed copy instead of changing ``sdata``.

    Returns
    -------
    SpatialData | None
        Writes to ``tables["table"]``: ``obsp["spatial_connectivities"]`` and
        ``obsp["spatial_distances"]`` (µm), (n_obs, n_obs) CSR, block-diagonal over sections, and
        ``uns["stpredict"]["neighbors"]``.

    Raises
    ------
    ValueError
        If more than one rule is given, a section has too few spots for it, or none is given and
        the spots lie on no grid.

    References
    ----------
    Palla et al., Squidpy: a scalable framework for spatial omics analysis, Nature Methods 2022.

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom()
    >>> stp.pp.neighbors(sdata)
    >>> sdata.tables["table"].obsp["spatial_connectivities"].shape[0]  # doctest: +SKIP
    """
    sdata = _sections.copy_of(sdata) if copy else sdata
    table = _sections.table_of(sdata)
    found = _sections.sections(sdata)
    for section in found:
        _validate.inside_image(section.centers, section.shape_yx, section=section.name)
    rule = _rule(grid=grid, n_rings=n_rings, n_neighbors=n_neighbors, radius_um=radius_um)
    if not rule:
        rule = {"grid": _detect_grid(found), "n_rings": n_rings}
    connectivities, distances = _graph(table, found, rule)
    table.obsp[_keys.CONNECTIVITIES] = connectivities
    table.obsp[_keys.DISTANCES] = distances
    # what squidpy's and scanpy's tools read of a graph
    table.uns["spatial_neighbors"] = {
        "connectivities_key": _keys.CONNECTIVITIES,
        "distances_key": _keys.DISTANCES,
        "params": rule,
    }
    _provenance.record(table, "neighbors", **rule)
    return sdata if copy else None


def graph_of(table: AnnData) -> sp.csr_matrix:
    """Spatial graph of a table, (n_obs, n_obs)."""
    if _keys.CONNECTIVITIES not in table.obsp:
        raise KeyError(
            f"there is no neighbour graph obsp[{_keys.CONNECTIVITIES!r}]: run stp.pp.neighbors "
            "first"
        )
    return sp.csr_matrix(table.obsp[_keys.CONNECTIVITIES])


def _rule(
    *,
    grid: str | None,
    n_rings: int,
    n_neighbors: int | None,
    radius_um: float | None,
) -> dict[str, Any]:
    given = {"grid": grid, "n_neighbors": n_neighbors, "radius_um": radius_um}
    given = {name: value for name, value in given.items() if value is not None}
    if len(given) > 1:
        raise ValueError(f"give one rule for neighbours, not {len(given)}: {given}")
    if not isinstance(n_rings, int) or n_rings < 1:
        raise ValueError(f"n_rings must be a whole number of at least 1: {n_rings!r}")
    if n_rings > 1 and (n_neighbors is not None or radius_um is not None):
        raise ValueError(f"n_rings={n_rings} goes with a grid, not with {given}")
    if n_neighbors is not None and (not isinstance(n_neighbors, int) or n_neighbors < 1):
        raise ValueError(f"n_neighbors must be a whole number of at least 1: {n_neighbors!r}")
    if radius_um is not None:
        _validate.positive("radius_um", radius_um, unit="µm")
    if grid is not None:
        _validate.one_of("grid", grid, _RING)
        given["n_rings"] = n_rings
    return given


def _detect_grid(found: list[_sections.Section]) -> str:
    """Hexagonal or square, by the directions in which neighbouring spots lie.

    The mean of exp(i k angle) is near 1 for k = 6 on a hexagonal and for k = 4 on a square grid,
    near 0 for the other k, and near 0 for random points. Unlike the number of neighbours it does
    not depend on rims and holes.
    """
    angles = [_directions(section.centers_um) for section in found]
    n = sum(map(len, angles))
    order = {
        grid: float(sum(abs(np.exp(1j * fold * a).sum()) for a in angles)) / max(n, 1)
        for grid, fold in (("hexagonal", 6), ("square", 4))
    }
    fitting = [grid for grid, value in order.items() if value > _ORDER]
    if n < _LEAST_PAIRS or len(fitting) != 1:
        raise ValueError(
            "the spots lie on no hexagonal or square grid (order of the directions between "
            f"{n} pairs of neighbours: hexagonal {order['hexagonal']:.2f}, square "
            f"{order['square']:.2f}, on a grid near 1): say how to link them, with n_neighbors=, "
            "radius_um= or grid="
        )
    return fitting[0]


def _directions(centers_um: NDArray[np.float64]) -> NDArray[np.float64]:
    """Angles between neighbours at about the pitch."""
    if len(centers_um) < 3:
        return np.zeros(0)
    tree = cKDTree(centers_um)
    # the second nearest: on either grid at the pitch, at the rim too, and less scattered than the
    # nearest where spots are a little off their places
    pitch = float(np.median(tree.query(centers_um, k=3)[0][:, -1]))
    first, second = tree.query_pairs(1.25 * pitch, output_type="ndarray").reshape(-1, 2).T
    x, y = (centers_um[second] - centers_um[first]).T
    return np.arctan2(y, x)


def _graph(
    table: AnnData, found: list[_sections.Section], rule: dict[str, Any]
) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    from squidpy import gr

    positions = np.empty((table.n_obs, 2))
    least = _RING[rule["grid"]] if "grid" in rule else rule.get("n_neighbors", 1)
    for section in found:
        if len(section.rows) <= least:
            raise ValueError(
                f"section {section.name!r} has {len(section.rows)} spots, too few for {least} "
                "neighbours each: give a smaller n_neighbors=, or radius_um="
            )
        positions[section.rows] = section.centers_um
    bare = AnnData(obs=table.obs[[]].copy(), obsm={_keys.SPATIAL: positions})
    bare.obs["library"] = _sections.region_of(table)
    bare.obs["library"] = bare.obs["library"].astype("category")
    shared: dict[str, Any] = {"library_key": "library", "copy": True}
    with quiet(SPATIALDATA):
        if "grid" in rule:
            result = gr.spatial_neighbors_grid(
                bare, n_neighs=_RING[rule["grid"]], n_rings=rule["n_rings"], **shared
            )
        elif "n_neighbors" in rule:
            result = gr.spatial_neighbors_knn(bare, n_neighs=rule["n_neighbors"], **shared)
        else:
            result = gr.spatial_neighbors_radius(bare, radius=rule["radius_um"], **shared)
    connectivities = sp.csr_matrix(result[0])
    connectivities.sort_indices()
    rows, columns = connectivities.nonzero()
    apart = np.linalg.norm(positions[rows] - positions[columns], axis=1)
    # squidpy counts rings on a grid; a distance in µm serves all rules alike
    distances = sp.csr_matrix((apart, (rows, columns)), shape=connectivities.shape)
    return connectivities, distances
