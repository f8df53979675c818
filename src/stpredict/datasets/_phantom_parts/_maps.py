"""Properties of synthetic tissue as smooth maps on a coarse grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

FloatArray = NDArray[np.float32]
Doubles = NDArray[np.float64]
Shape = tuple[int, int]

#: Kinds of tissue; the arrays below have one value for each.
REGIONS = ("tumour", "stroma", "immune", "epithelium")
# Nuclei per µm² and radii are of the order observed in breast tissue:
# small crowded lymphocytes, large pale tumour nuclei, sparse thin nuclei among pink fibres.
_DENSITY = np.array([0.0115, 0.0055, 0.0220, 0.0125], dtype=np.float32)
_RADIUS_UM = np.array([4.1, 2.9, 2.6, 3.3], dtype=np.float32)
_EOSIN = np.array([0.48, 0.70, 0.36, 0.58], dtype=np.float32)
FIBRES = np.array([0.10, 0.45, 0.10, 0.16], dtype=np.float32)  # share of eosin that is striped
ROUNDNESS = np.array([0.78, 0.42, 0.92, 0.72], dtype=np.float32)  # short over long axis
DARKNESS = np.array([1.00, 1.25, 1.45, 1.15], dtype=np.float32)  # haematoxylin in a nucleus
# Standard deviation of the log of each property in the patchwork inside a region.
_PATCH_DENSITY, _PATCH_RADIUS, _PATCH_EOSIN = 0.55, 0.23, 0.32


@dataclass(frozen=True)
class TissueMaps:
    """Properties of the tissue on a coarse grid of `step` pixels."""

    step: int
    outline: FloatArray  # distance to the tissue's edge in pixels, positive inside
    region: NDArray[np.int8]
    density: FloatArray
    radius_um: FloatArray
    eosin: FloatArray
    fibres: FloatArray
    bend: FloatArray  # phase of the fibres, which makes them wavy

    def at(self, name: str, xy: Doubles) -> Any:
        """Nearest value of a map at pixel positions x, y."""
        values = getattr(self, name)
        column, row = np.rint(xy / self.step).astype(np.intp).T
        return values[row.clip(0, values.shape[0] - 1), column.clip(0, values.shape[1] - 1)]


def _smooth_noise(rng: Generator, shape: Shape, sigma: float) -> FloatArray:
    """Gaussian random field of mean 0 and standard deviation 1."""
    noise = gaussian_filter(rng.standard_normal(shape, dtype=np.float32), sigma, mode="wrap")
    return (noise - noise.mean()) / max(float(noise.std()), 1e-6)


def draw_maps(rng: Generator, shape: Shape, grain_px: float) -> TissueMaps:
    """Draw the tissue of a section: outline, regions, and patches of `grain_px` inside them."""
    height, width = shape
    step = int(np.clip(grain_px / 8, 1, 16))
    # in units of the image: 0 at the centre, 1 at the border
    y = (np.arange(height // step + 2) * step / height * 2 - 1)[:, None]
    x = (np.arange(width // step + 2) * step / width * 2 - 1)[None, :]
    coarse_shape = (y.shape[0], x.shape[1])
    outline = (_outline(rng, x, y) * min(shape) / 2).astype(np.float32)
    region = _regions(rng, x, y)
    # below half a grain, so that neighbouring spots, a grain apart, look different
    sigma = 0.33 * grain_px / step
    blend = min(1.5, sigma)

    def patchwork(levels: FloatArray, strength: float) -> FloatArray:
        base = gaussian_filter(np.log(levels)[region], blend)
        return np.exp(base + strength * _smooth_noise(rng, coarse_shape, sigma))

    return TissueMaps(
        step=step,
        outline=outline,
        region=region,
        density=patchwork(_DENSITY, _PATCH_DENSITY),
        radius_um=patchwork(_RADIUS_UM, _PATCH_RADIUS),
        eosin=patchwork(_EOSIN, _PATCH_EOSIN),
        fibres=gaussian_filter(FIBRES[region], 2 * blend),
        bend=12 * _smooth_noise(rng, coarse_shape, max(coarse_shape) / 14)
        + _smooth_noise(rng, coarse_shape, 1.0),
    )


def _outline(rng: Generator, x: Doubles, y: Doubles) -> Doubles:
    """Distance to a lobed outline between an ellipse and a rectangle, positive inside."""
    angle = np.arctan2(y, x)
    radius = np.full(angle.shape, 0.88)
    for k in range(2, 9):
        lobe = rng.uniform(-0.22, 0.22) / k
        radius += lobe * np.cos(k * angle + rng.uniform(0, 2 * np.pi))
    # compress large radii, so that lobes do not reach the border of the image
    radius = np.where(radius > 0.88, 0.88 + 0.08 * np.tanh((radius - 0.88) / 0.08), radius)
    return radius - (np.abs(x) ** 2.6 + np.abs(y) ** 2.6) ** (1 / 2.6)


def _regions(rng: Generator, x: Doubles, y: Doubles) -> NDArray[np.int8]:
    """Voronoi cells with wavy borders; each kind of tissue occurs."""
    shape = (y.shape[0], x.shape[1])
    kinds = np.concatenate([rng.permutation(len(REGIONS)), rng.integers(0, len(REGIONS), 5)])
    seeds = rng.uniform(-0.8, 0.8, (len(kinds), 2))
    wave = [0.10 * _smooth_noise(rng, shape, max(shape) / 16) for _ in range(2)]
    points = np.stack(np.broadcast_arrays(x + wave[0], y + wave[1]), axis=-1)
    return kinds[cKDTree(seeds).query(points)[1]].astype(np.int8)


def upsample(values: FloatArray, shape: Shape, step: int) -> FloatArray:
    """Linear interpolation of a coarse map, whose node ``i`` lies at pixel ``i * step``."""
    for axis in range(2):
        position = np.arange(shape[axis], dtype=np.float32) / np.float32(step)
        low = position.astype(np.intp)
        weight = (position - low.astype(np.float32)).reshape((-1, 1) if axis == 0 else (1, -1))
        start = values.take(low, axis)
        values = start + weight * (values.take(low + 1, axis) - start)
    return values


def tile_means(values: NDArray[np.floating], xy: Doubles, tile_px: float) -> Doubles:
    """Mean of a map of pixels over the square tile around each position, cut at the border."""
    height, width = values.shape
    # a summed-area table: any tile is four look-ups
    total = np.zeros((height + 1, width + 1))
    np.cumsum(np.cumsum(values, axis=0, dtype=np.float64), axis=1, out=total[1:, 1:])
    low = np.rint(xy - tile_px / 2).astype(np.intp)
    x0, y0 = low.clip(0, [width - 1, height - 1]).T
    x1, y1 = np.rint(xy + tile_px / 2).astype(np.intp).clip(1, [width, height]).T
    x1, y1 = np.maximum(x1, x0 + 1), np.maximum(y1, y0 + 1)
    sums = total[y1, x1] - total[y0, x1] - total[y1, x0] + total[y0, x0]
    return sums / ((x1 - x0) * (y1 - y0))
