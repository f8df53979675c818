"""Rows of predictions that belong to each spot, by position or by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.sparse as sp
from scipy.spatial import cKDTree
from spatialdata.models import get_table_keys

from stpredict import _validate
from stpredict._sdata._spacing import spacing_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stpredict._sdata._sections import Section
    from stpredict._sdata._spot_table import SpotTable
    from stpredict.io._predictions._source import Source

#: Distance to the nearest tile up to which a spot lies among the tiles, as a share of their pitch:
#: the farthest place of a square grid is 1 / sqrt(2) away; 5 % for tiles that are off their grid.
_REACH = 1.05 / np.sqrt(2)

#: Positions that STPath has shifted and rescaled.
_RESCALED = "coordinates"


@dataclass(frozen=True, eq=False)
class RowMatch:
    """Spots that are predicted, and the rows of the predictions that they are the mean of."""

    rows: NDArray[np.intp]  # (n,) rows of the measured table, ascending
    weights: sp.csr_matrix  # (n, n_predictions), rows add up to 1
    text: str  # what was matched and what was not


def match_rows(source: Source, spots: SpotTable, section: Section | None) -> RowMatch:
    """Match by name if rows have names of spots, else by position, else by id in the section."""
    names = source.names
    # numbers of tiles may be numbers of spots by chance
    if not (source.positions is not None and names.str.isdigit().all()):
        by_name = _by_name(names, spots.table.obs_names, spots, section)
        if by_name is not None:
            return by_name
    if source.positions is not None and section is not None:
        return _by_position(source, section)
    if _RESCALED in getattr(source.data, "obsm", ()):
        raise ValueError(
            f"the predictions have no name of a spot, and STPath rescales obsm[{_RESCALED!r}]: set "
            "obs_names or obsm['spatial'] to those of the spots or tiles given to it, whose order "
            "it keeps"
        )
    _, _, instance_key = get_table_keys(spots.table)
    ids = spots.table.obs[instance_key].astype(str)
    by_id = _by_name(names, pd.Index(ids), spots, section)
    if by_id is not None:
        return by_id
    raise ValueError(
        f"the predictions have no name of a spot ({_validate.listing(names[:3])}; spots: "
        f"{_validate.listing(spots.table.obs_names[:3])}) and no positions of one section. Give "
        "x= and y= and, for several sections, a dictionary {section: predictions}"
    )


def _by_name(
    names: pd.Index, spot_names: pd.Index, spots: SpotTable, section: Section | None
) -> RowMatch | None:
    rows = np.arange(spots.table.n_obs) if section is None else section.rows
    spot_names = spot_names[rows]
    is_shared = names.isin(spot_names)
    if not is_shared.any():
        return None
    _validate.unique_names(names[is_shared], what="spots of the predictions")
    if section is None:
        _validate.unique_names(spot_names, what="ids of spots in several sections")
    rows_of_spots = pd.Series(np.flatnonzero(is_shared), index=names[is_shared])
    place = rows_of_spots.reindex(spot_names, fill_value=-1).to_numpy(dtype=np.intp)
    matched = place >= 0
    shape = (int(matched.sum()), len(names))
    weights = sp.csr_matrix((np.ones(shape[0]), (np.arange(shape[0]), place[matched])), shape)
    text = (
        f"{_share(matched)} spots matched by name; {int((~is_shared).sum())} rows of the "
        "predictions are not spots"
    )
    return RowMatch(rows[matched], weights, text)


def _by_position(source: Source, section: Section) -> RowMatch:
    """The mean of the tiles whose centres lie in a spot; if there is none, the nearest tile."""
    mpp = section.mpp if source.mpp is None else source.mpp
    positions = np.asarray(source.positions) * mpp
    _validate.finite(positions, what="the array of positions")
    repeated = pd.DataFrame(positions).duplicated()
    if repeated.any():
        raise ValueError(
            f"{repeated.sum()} rows of the predictions have the position of another row: give one "
            "row per tile, and each section by its own"
        )
    tree, centers = cKDTree(positions), section.centers_um
    distance, _ = tree.query(centers)
    pitch = spacing_of(positions).pitch_um
    reach = np.fmax(section.radius_um, _REACH * pitch)  # a single tile has no pitch
    matched = distance <= reach
    if not matched.any():
        raise ValueError(
            f"no spot of section {section.name!r} lies within {np.max(reach):.0f} µm of a "
            f"prediction: {_extent(positions)} (spots: {_extent(centers)}). Give the µm per unit "
            "of the positions, mpp="
        )
    # equally near tiles count alike
    edge = np.maximum(section.radius_um, distance * (1 + 1e-6))
    tiles = tree.query_ball_point(centers[matched], edge[matched])
    sizes = np.array([len(each) for each in tiles])
    first = np.concatenate([[0], np.cumsum(sizes)])
    columns = np.concatenate(tiles).astype(np.intp)
    shape = (len(tiles), len(positions))
    weights = sp.csr_matrix((np.repeat(1 / sizes, sizes), columns, first), shape)
    order = np.argsort(section.rows[matched], kind="stable")
    n_unused = len(positions) - np.unique(columns).size
    text = _positions_text(sizes, distance[matched], matched, pitch, n_unused=n_unused)
    return RowMatch(section.rows[matched][order], weights[order], text)


def _positions_text(
    sizes: NDArray[np.intp],  # number of tiles of each matched spot
    distance: NDArray[np.float64],  # from it to the nearest tile
    matched: NDArray[np.bool_],
    pitch: float,
    *,
    n_unused: int,
) -> str:
    parts = []
    if (sizes > 1).any():
        mean = sizes[sizes > 1].mean()
        parts.append(f"{(sizes > 1).sum()} to the mean of {mean:.1f} tiles")
    if (sizes == 1).any():
        median, most = np.median(distance[sizes == 1]), distance[sizes == 1].max()
        parts.append(
            f"{(sizes == 1).sum()} to one tile (median {median:.3g} µm, at most {most:.3g} µm away)"
        )
    return (
        f"{_share(matched)} spots matched by position to tiles {pitch:.4g} µm apart, "
        f"{' and '.join(parts)}; {n_unused} tiles lie on no spot"
    )


def _share(matched: NDArray[np.bool_]) -> str:
    return f"{int(matched.sum())} of {len(matched)}"


def _extent(positions: NDArray[np.float64]) -> str:
    (left, top), (right, bottom) = positions.min(axis=0), positions.max(axis=0)
    return f"x from {left:.0f} to {right:.0f} and y from {top:.0f} to {bottom:.0f} µm"
