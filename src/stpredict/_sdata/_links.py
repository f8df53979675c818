"""Links between the neighbouring spots of sections, from positions in µm."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from scipy.spatial import cKDTree
from sklearn.neighbors import NearestNeighbors

from stpredict._log import info
from stpredict._sdata._spacing import common_grid, common_spacing, spacing_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from stpredict._sdata._spacing import Spacing
    from stpredict._sdata._steps import NeighborsStep

    Links = tuple[NDArray[np.intp], NDArray[np.intp]]  # each spot, and its neighbour

#: Neighbours in the first ring.
_RING = {"hexagonal": 6, "square": 8}
#: Distance of neighbours on a grid as a multiple of the median, as in squidpy; the diagonal of a
#: square is 1.21 times the median of its 4 sides and 4 diagonals.
_MOST_DISTANCE = 1.3
#: Share of the training pitch up to which spots lie near every place on the grid of training.
FINER = 0.55
#: Distance from a place on that grid within which a spot is a neighbour, as a share of the pitch.
_MOST_OFFSET = 0.3


def link_sections(
    centers_um: Mapping[str, NDArray[np.float64]], step: NeighborsStep
) -> tuple[dict[str, Links], NeighborsStep]:
    """Link the spots of each section, (n, 2) by its name, and complete the step.

    The step of a model fixes layout, pitch and distance of the neighbours.
    """
    spacings = {name: spacing_of(centers) for name, centers in centers_um.items()}
    trained = step
    if step.is_by_rings and (step.grid is None or step.pitch_um is None):
        grid, pitch = common_grid(spacings, step.grid)
        step = replace(step, grid=grid, pitch_um=_rounded(pitch))
    links = {
        name: _links(name, centers, step, spacings[name]) for name, centers in centers_um.items()
    }
    lengths = np.concatenate(
        [
            np.linalg.norm(centers[links[name][0]] - centers[links[name][1]], axis=1)
            for name, centers in centers_um.items()
        ]
    )
    spacing = common_spacing(spacings.values())
    if not len(lengths):
        remedy = ": increase radius_um=" if step.radius_um else ""
        raise ValueError(
            f"no spot has a neighbour by the rule {step.rule}; the spots are about "
            f"{spacing.pitch_um:.4g} µm apart{remedy}"
        )
    if not step.is_by_rings:
        step = replace(step, layout=spacing.layout, pitch_um=_rounded(spacing.pitch_um))
    step = replace(step, distance_um=_rounded(float(np.median(lengths))))
    require_spacing(trained, step)
    return links, step


def require_spacing(trained: NeighborsStep, recorded: NeighborsStep) -> None:
    """Require spots as far apart as in training, where the rule does not adapt to the pitch."""
    if trained.is_by_rings or trained.rule != recorded.rule:
        return
    differences = "; ".join(trained.spacing_differences(recorded))
    if differences:
        remedy = "fit a model on such sections"
        if trained.layout in ("hexagonal", "square"):
            options = f"pitch_um={trained.pitch_um:g}, layout={trained.layout!r}"
            remedy = f"place spots with stp.pp.grid(sdata, image, {options}), or {remedy}"
        raise ValueError(f"the spots do not fit the model's neighbours: {differences}: {remedy}")


def _rounded(length: float) -> float | None:
    """Length with four digits; None for spots at a single place."""
    return float(f"{length:.4g}") if length > 0 else None


def _links(
    section: str, centers_um: NDArray[np.float64], step: NeighborsStep, spacing: Spacing
) -> Links:
    if step.grid is None or step.pitch_um is None:
        return _distance_links(section, centers_um, step)
    if spacing.fits(step.grid, step.pitch_um):
        return _ring_links(section, centers_um, step)
    # a few scattered spots are linked where they lie at the right distance
    if spacing.layout is not None and spacing.pitch_um > FINER * step.pitch_um:
        raise ValueError(
            f"section {section!r} ({spacing}) has no neighbours like those of training "
            f"({step.grid}, {step.pitch_um:g} µm apart): use stp.pp.grid(sdata, image, "
            f"pitch_um={step.pitch_um:g}, layout={step.grid!r}), or at most half that pitch"
        )
    info(
        f"neighbors {section}: spots {spacing}, neighbours at the places of a {step.grid} "
        f"grid of {step.pitch_um:g} µm"
    )
    return _lattice_links(centers_um, step)


def _lattice_links(centers_um: NDArray[np.float64], step: NeighborsStep) -> Links:
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
    # of two spots equally near to a place, always the one to the lower right: the links of a block
    # of spots are those of the whole section
    places = centers_um[:, None] + offsets + 1e-6 * pitch
    reach = _MOST_OFFSET * pitch
    _, nearest = cKDTree(centers_um).query(places, distance_upper_bound=reach)
    first, place = np.nonzero(nearest < len(centers_um))
    return first, nearest[first, place]


def _distance_links(section: str, centers_um: NDArray[np.float64], step: NeighborsStep) -> Links:
    """Links to the nearest spots, or to all within a radius."""
    if step.n_neighbors is not None:
        _require_spots(section, len(centers_um), step.n_neighbors)
        nearest = NearestNeighbors(n_neighbors=step.n_neighbors).fit(centers_um)
        return _nonzero(nearest.kneighbors_graph())
    tree = NearestNeighbors(radius=step.radius_um).fit(centers_um)
    return _nonzero(tree.radius_neighbors_graph())


def _ring_links(section: str, centers_um: NDArray[np.float64], step: NeighborsStep) -> Links:
    """Links along a grid: those at most `n_rings` steps away."""
    n_nearest, n_spots = _RING[str(step.grid)], len(centers_um)
    _require_spots(section, n_spots, n_nearest)
    distances, nearest = NearestNeighbors(n_neighbors=n_nearest).fit(centers_um).kneighbors()
    # at edges and holes, the nearest spots are not next to each other
    first, rank = np.nonzero(distances < _MOST_DISTANCE * np.median(distances))
    links = np.ones(len(first), dtype=bool), (first, nearest[first, rank])
    ring = sp.csr_matrix(links, (n_spots, n_spots))
    within = ring + sp.eye(n_spots, dtype=bool, format="csr")
    reached = within
    for _ in range((step.n_rings or 1) - 1):
        reached = reached @ within
    first, second = _nonzero(reached)
    is_other = first != second
    return first[is_other], second[is_other]


def _nonzero(graph: Any) -> Links:
    rows, columns = sp.csr_matrix(graph).nonzero()
    return rows, columns


def _require_spots(section: str, n_spots: int, n_neighbors: int) -> None:
    if n_spots <= n_neighbors:
        raise ValueError(
            f"section {section!r} has {n_spots} spots, too few for {n_neighbors} "
            "neighbours each: give a smaller n_neighbors=, or radius_um="
        )
