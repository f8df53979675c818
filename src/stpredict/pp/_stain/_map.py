"""Pixels of one stain mapped to another, chunk by chunk; arrays only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from stpredict.pp._stain._pixels import LEAST_DENSITY, WHITE, balance

if TYPE_CHECKING:
    import dask.array as da
    from numpy.typing import NDArray
    from squidpy.experimental.im import StainReference

    from stpredict.pp._stain._fit import Stain


def apply(level: da.Array, source: Stain, reference: StainReference) -> da.Array:
    """Map an image (3, y, x) uint8 to a reference, chunk by chunk."""
    whole = level.rechunk({0: -1})
    return whole.map_blocks(
        _map, source=source, reference=reference, dtype=np.uint8, meta=np.empty((0,) * 3, np.uint8)
    )


def _map(
    image: NDArray[np.uint8], *, source: Stain, reference: StainReference
) -> NDArray[np.uint8]:
    balanced = xr.DataArray(balance(image, source.white), dims=("c", "y", "x"))
    mapped = _map_lab if reference.method == "reinhard" else _map_density
    return np.rint(mapped(balanced, source.fitted, reference)).astype(np.uint8)


def _map_density(
    balanced: xr.DataArray, source: StainReference, reference: StainReference
) -> NDArray[np.float32]:
    """Give both dyes the reference's colour and strength; unstained pixels stay white."""
    from squidpy.experimental.im._stain import rgb_to_sda, sda_to_rgb

    white = np.full(3, float(WHITE))
    strength = np.append(reference.max_concentrations / source.max_concentrations, 1.0)
    operator = reference.stain_matrix @ np.diag(strength) @ np.linalg.pinv(source.stain_matrix)
    density = rgb_to_sda(balanced, white)
    mixed = np.tensordot(operator.astype(np.float32), density.data, axes=1)
    return np.asarray(sda_to_rgb(density.copy(data=mixed), white).data)


def _map_lab(
    balanced: xr.DataArray, source: StainReference, reference: StainReference
) -> NDArray[np.float32]:
    """Give tissue the reference's means and deviations; the paler a pixel, the less."""
    from squidpy.experimental.im._stain import lab_ruderman_to_rgb, rgb_to_lab_ruderman

    lab = rgb_to_lab_ruderman(balanced)
    one_per_channel = (slice(None), None, None)
    ratio = reference.sigma / np.maximum(source.sigma, 1e-6)
    shift = reference.mu - ratio * source.mu
    moved = lab.data * ratio[one_per_channel] + shift[one_per_channel]
    rgb = lab_ruderman_to_rgb(lab.copy(data=moved.astype(np.float32))).data
    density = np.log((WHITE + 1) / (balanced.data + 1)).mean(axis=0)
    share = np.clip(density / LEAST_DENSITY, 0, 1)
    return np.asarray(share * rgb + (1 - share) * balanced.data, dtype=np.float32)
