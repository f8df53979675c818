"""Colours of the stain in the halves of sections."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stpredict.pp._stain._fit import LEAST_DENSITY
from stpredict.tiles import pick_level
from stpredict.tl._audit._halves import half_of_spots

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stpredict._sdata._sections import Section
    from stpredict._sdata._spot_table import SpotTable

#: µm per pixel at which the image is read, and the sides in pixels of the windows around spots.
_READ_UM, _WINDOW = 2.0, np.arange(-2, 3)


def stain_halves(spots: SpotTable) -> NDArray[np.float64]:
    """Normal of the plane of the dyes' colours, (n_sections, 2, 3).

    The densities of two dyes span a plane, whatever their amounts are in a piece of tissue.
    """
    halves = []
    for section in spots.sections:
        density = _densities(section)
        second = half_of_spots(section.centers_um)
        halves.append([_normal(density[half].reshape(-1, 3)) for half in (~second, second)])
    normals = np.array(halves)
    # a normal has two directions
    return normals * np.where(normals @ normals[0, 0] < 0, -1, 1)[..., None]


def _densities(section: Section) -> NDArray[np.float64]:
    """Optical densities of the pixels around each spot, (n, n_pixels, 3)."""
    level, downsampled = pick_level(section.levels, _READ_UM / section.mpp)
    image = np.asarray(level)
    places = np.floor(section.centers / downsampled).astype(np.intp)
    offsets = np.stack(np.meshgrid(_WINDOW, _WINDOW), axis=-1).reshape(-1, 2)
    x, y = np.moveaxis(places[:, None] + offsets, -1, 0)
    pixels = image[:, y.clip(0, image.shape[1] - 1), x.clip(0, image.shape[2] - 1)]
    return -np.log((np.moveaxis(pixels, 0, -1) + 1.0) / 256)


def _normal(density: NDArray[np.float64]) -> NDArray[np.float64]:
    tissue = density[density.mean(axis=1) > LEAST_DENSITY]
    if len(tissue) < 3:
        return np.zeros(3)
    return np.linalg.svd(tissue, full_matrices=False)[2][2]
