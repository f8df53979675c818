"""Make values at fine positions consistent with the values of whole spots."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stpredict.tl._superresolution._positions import FinePositions


def match_spots(
    values: NDArray[np.float32],  # (n, n_genes) at the fine positions
    spot_values: NDArray[np.floating],  # (n_spots, n_genes); NaN in rows of spots without values
    positions: FinePositions,
    *,
    radius_um: NDArray[np.float64],  # (n_spots,)
    pitch_um: float,
    nonnegative: bool,
) -> NDArray[np.float32]:
    """Shift the values around each spot so that their mean over the spot is the spot's value.

    The shift is constant over the spot and falls to 0 at half the pitch, so that it depends on no
    other spot. Spots that touch each other (bins) have a constant shift over their whole area.
    Values that may not be negative are cut at 0, and the shift of the others makes up for it.
    """
    edge = _edge(positions, radius_um, pitch_um)[positions.spot]
    has_value = np.isfinite(spot_values).all(axis=1)
    near = np.flatnonzero(has_value[positions.spot])
    spot, distance, edge = positions.spot[near], positions.distance_um[near], edge[near]
    within = distance <= edge
    mean = mean_over_spots(spot[within], len(spot_values))
    targets = np.where(has_value[:, None], spot_values, 0).astype(np.float64)
    over_spots = values[near[within]].astype(np.float64)
    shift = targets - mean @ over_spots
    if nonnegative:
        shift = _cut_at_zero(over_spots, spot[within], shift, targets, mean)
    with np.errstate(divide="ignore"):
        taper = np.where(within, 1, (pitch_um / 2 - distance) / (pitch_um / 2 - edge))
    matched = values.copy()
    moved = values[near] + taper.clip(0, 1)[:, None] * shift[spot]
    matched[near] = np.maximum(moved, 0) if nonnegative else moved
    return matched


def mean_over_spots(spot: NDArray[np.intp], n_spots: int) -> sp.csr_matrix:
    """Matrix (n_spots, n) that averages the positions of each spot."""
    n_positions = np.bincount(spot, minlength=n_spots)
    weights = 1 / n_positions[spot]
    return sp.csr_matrix((weights, (spot, np.arange(len(spot)))), (n_spots, len(spot)))


def _edge(
    positions: FinePositions, radius_um: NDArray[np.float64], pitch_um: float
) -> NDArray[np.float64]:
    """Distance up to which positions lie in each spot, (n_spots,)."""
    nearest = np.full(len(radius_um), np.inf)
    np.minimum.at(nearest, positions.spot, positions.distance_um)
    # a spot smaller than the resolution may have no position inside: its nearest counts
    edge = np.maximum(radius_um, nearest * (1 + 1e-9))
    return np.where(edge < pitch_um / 2, edge, np.inf)


def _cut_at_zero(
    values: NDArray[np.float64],  # (n, n_genes) at the positions inside spots
    spot: NDArray[np.intp],
    shift: NDArray[np.float64],
    targets: NDArray[np.float64],
    mean: sp.csr_matrix,
) -> NDArray[np.float64]:
    """Shift of each spot after which the mean of the values, cut at 0, is the target."""
    # Newton's method: the mean is convex in the shift and piecewise linear, so that it ends after
    # at most as many iterations as a spot has positions
    for _ in range(int(np.bincount(spot).max(initial=0)) + 1):
        moved = values + shift[spot]
        excess = mean @ np.maximum(moved, 0) - targets
        slope = mean @ (moved > 0)
        if (excess <= 1e-9 * np.maximum(targets, 1e-3)).all():
            break
        shift = shift - np.divide(excess, slope, out=np.zeros_like(excess), where=slope > 0)
    return shift
