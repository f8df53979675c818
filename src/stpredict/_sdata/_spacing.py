"""Layout of the spots of sections, and the distance between neighbouring spots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

from stpredict import _validate
from stpredict._sdata._differences import PITCH_TOLERANCE, is_close

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from stpredict._sdata._steps import Grid, Layout

#: Rotational symmetry of the directions to the nearest neighbours.
_SYMMETRY: dict[Grid, int] = {"hexagonal": 6, "square": 4}
#: Order of directions above which spots lie on a grid; 0.9 where they are off by 8 % of the pitch.
_LEAST_ORDER = 0.6
#: Fewer directions may agree by chance.
_LEAST_PAIRS = 12


@dataclass(frozen=True)
class Spacing:
    """Layout and pitch of the spots of a section."""

    layout: Layout | None  # None for too few spots
    pitch_um: float  # NaN for a single place

    def __str__(self) -> str:
        return f"{self.layout or 'too few spots'}, {self.pitch_um:.4g} µm apart"

    def fits(self, grid: Grid, pitch_um: float) -> bool:
        """Whether rings of the spots themselves are those of a grid."""
        other = self.layout in _SYMMETRY and self.layout != grid
        return not other and is_close(self.pitch_um, pitch_um, PITCH_TOLERANCE)


def spacing_of(centers_um: NDArray[np.float64]) -> Spacing:
    """Measure the layout from the directions in which neighbouring spots lie, and the pitch."""
    pitch = _pitch(centers_um)
    angles = _directions(centers_um, pitch)
    if len(angles) < _LEAST_PAIRS:
        return Spacing(None, pitch)
    # the mean of exp(i k angle) is near 1 for k = 6 on a hexagonal and for k = 4 on a square grid,
    # else near 0; unlike the number of neighbours, it does not depend on edges and holes
    order = {grid: abs(np.exp(1j * fold * angles).mean()) for grid, fold in _SYMMETRY.items()}
    fitting = [grid for grid, value in order.items() if value > _LEAST_ORDER]
    # spots in a single row have both symmetries
    return Spacing(fitting[0] if len(fitting) == 1 else "irregular", pitch)


def common_spacing(spacings: Iterable[Spacing]) -> Spacing:
    """Layout and pitch of all sections; irregular if they differ."""
    spacings = [each for each in spacings if each.pitch_um > 0] or [Spacing(None, np.nan)]
    # a few scattered spots say nothing about the layout
    measured = [each for each in spacings if each.layout is not None] or spacings
    pitch = float(np.median([each.pitch_um for each in measured]))
    layouts = {each.layout for each in measured}
    is_common = all(is_close(each.pitch_um, pitch, PITCH_TOLERANCE) for each in measured)
    if layouts == {None}:
        return Spacing(None, pitch)
    return Spacing(layouts.pop() if len(layouts) == 1 and is_common else "irregular", pitch)


def common_grid(spacings: Mapping[str, Spacing], grid: Grid | None) -> tuple[Grid, float]:
    """Layout and pitch of the one grid on which the spots of all sections lie, checked."""
    measured = {name: each for name, each in spacings.items() if each.layout is not None}
    described = _validate.listing(f"{name}: {each}" for name, each in spacings.items())
    layouts = {each.layout for each in measured.values()}
    if grid is None:
        grid = next((layout for layout in _SYMMETRY if layouts == {layout}), None)
    if grid is None:
        raise ValueError(
            f"the spots lie on no hexagonal or square grid that all sections share ({described}): "
            "give n_neighbors=, radius_um= or grid="
        )
    if layouts & (set(_SYMMETRY) - {grid}):
        raise ValueError(f"grid={grid!r} does not fit the spots ({described}): omit grid=")
    pitch = common_spacing(spacings.values()).pitch_um
    if any(not is_close(each.pitch_um, pitch, PITCH_TOLERANCE) for each in measured.values()):
        raise ValueError(
            f"the pitch differs between sections ({described}): check their µm per pixel, link "
            "them in separate objects, or give radius_um="
        )
    return grid, pitch


def _pitch(centers_um: NDArray[np.float64]) -> float:
    """Median distance to the second nearest spot, in µm."""
    if len(centers_um) < 2:
        return np.nan
    # the second nearest lies at the pitch, also at the edge, and scatters less than the nearest
    k = min(3, len(centers_um))
    return float(np.median(cKDTree(centers_um).query(centers_um, k=k)[0][:, -1]))


def _directions(centers_um: NDArray[np.float64], pitch: float) -> NDArray[np.float64]:
    """Angles between neighbours at about the pitch."""
    if len(centers_um) < 3:
        return np.zeros(0)
    pairs = cKDTree(centers_um).query_pairs(1.25 * pitch, output_type="ndarray")
    first, second = pairs.reshape(-1, 2).T
    x, y = (centers_um[second] - centers_um[first]).T
    return np.arctan2(y, x)
