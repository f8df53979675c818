"""Properties of synthetic tissue as smooth fields on a coarse grid; arrays only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

if TYPE_CHECKING:
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float32]

#: Kinds of tissue; the arrays below have one value for each.
REGIONS = ("tumour", "stroma", "immune", "epithelium")
# Nuclei per µm² and radii are of the order seen in breast tissue:
# small crowded lymphocytes, large pale tumour nuclei, sparse thin nuclei among pink fibres.
_DENSITY = np.array([0.0115, 0.0055, 0.0220, 0.0125], dtype=np.float32)
_RADIUS_UM = np.array([4.1, 2.9, 2.6, 3.3], dtype=np.float32)
_EOSIN = np.array([0.48, 0.70, 0.36, 0.58], dtype=np.float32)
FIBRES = np.array([0.10, 0.45, 0.10, 0.16], dtype=np.float32)  # share of eosin that is striped
ROUNDNESS = np.array([0.78, 0.42, 0.92, 0.72], dtype=np.float32)  # short over long axis
DARKNESS = np.array([1.00, 1.25, 1.45, 1.15], dtype=np.float32)  # haematoxylin in a nucleus
# How far the patchwork inside a region moves the log of each property.
_PATCH_DENSITY, _PATCH_RADIUS, _PATCH_EOSIN = 0.55, 0.23, 0.32


@dataclass(frozen=True)
class Fields:
    """Properties of the tissue on a coarse grid of `step` pixels."""

    step: int
    outline: FloatArray  # pixels from the tissue's edge, positive inside
    region: NDArray[np.int8]
    density: FloatArray
    radius_um: FloatArray
    eosin: FloatArray
    fibres: FloatArray
    bend: FloatArray

    def at(self, name: str, xy: NDArray[np.float64]) -> Any:
        """Nearest value of a field at pixel positions x, y."""
        field = getattr(self, name)
        col, row = np.rint(xy / self.step).astype(np.intp).T
        return field[row.clip(0, field.shape[0] - 1), col.clip(0, field.shape[1] - 1)]


def _smooth_noise(rng: np.random.Generator, shape: tuple[int, int], sigma: float) -> FloatArray:
    """Gaussian random field of mean 0 and standard deviation 1."""
    noise = gaussian_filter(rng.standard_normal(shape, dtype=np.float32), sigma, mode="wrap")
    return (noise - noise.mean()) / max(float(noise.std()), 1e-6)


def draw_fields(rng: np.random.Generator, shape: tuple[int, int], grain_px: float) -> Fields:
    """Draw the tissue of a section: outline, regions, and a patchwork of `grain_px` in them."""
    height, width = shape
    step = int(np.clip(grain_px / 8, 1, 16))
    # In units of the image: 0 at the centre, 1 at the border.
    y = (np.arange(height // step + 2) * step / height * 2 - 1)[:, None]
    x = (np.arange(width // step + 2) * step / width * 2 - 1)[None, :]
    coarse = (y.shape[0], x.shape[1])
    outline = (_outline(rng, x, y) * min(shape) / 2).astype(np.float32)
    region = _regions(rng, x, y)
    # Below half a grain, so that neighbouring spots, a grain apart, look different.
    sigma = 0.33 * grain_px / step
    blend = min(1.5, sigma)

    def patchwork(levels: FloatArray, strength: float) -> FloatArray:
        base = gaussian_filter(np.log(levels)[region], blend)
        return np.exp(base + strength * _smooth_noise(rng, coarse, sigma))

    return Fields(
        step=step,
        outline=outline,
        region=region,
        density=patchwork(_DENSITY, _PATCH_DENSITY),
        radius_um=patchwork(_RADIUS_UM, _PATCH_RADIUS),
        eosin=patchwork(_EOSIN, _PATCH_EOSIN),
        fibres=gaussian_filter(FIBRES[region], 2 * blend),
        bend=12 * _smooth_noise(rng, coarse, max(coarse) / 14) + _smooth_noise(rng, coarse, 1.0),
    )


def _outline(
    rng: np.random.Generator, x: NDArray[np.float64], y: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Distance to a lobed outline between an ellipse and a rectangle, positive inside."""
    angle = np.arctan2(y, x)
    radius = np.full(angle.shape, 0.88)
    for k in range(2, 9):
        lobe = rng.uniform(-0.22, 0.22) / k
        radius += lobe * np.cos(k * angle + rng.uniform(0, 2 * np.pi))
    # Lobes do not reach the border of the image.
    radius = np.where(radius > 0.88, 0.88 + 0.08 * np.tanh((radius - 0.88) / 0.08), radius)
    return radius - (np.abs(x) ** 2.6 + np.abs(y) ** 2.6) ** (1 / 2.6)


def _regions(
    rng: np.random.Generator, x: NDArray[np.float64], y: NDArray[np.float64]
) -> NDArray[np.int8]:
    """Voronoi cells with wavy borders; each kind of tissue occurs."""
    coarse = (y.shape[0], x.shape[1])
    kinds = np.concatenate([rng.permutation(len(REGIONS)), rng.integers(0, len(REGIONS), 5)])
    seeds = rng.uniform(-0.8, 0.8, (len(kinds), 2))
    wave = [0.10 * _smooth_noise(rng, coarse, max(coarse) / 16) for _ in range(2)]
    points = np.stack(np.broadcast_arrays(x + wave[0], y + wave[1]), axis=-1)
    return kinds[cKDTree(seeds).query(points)[1]].astype(np.int8)


def upsample(field: FloatArray, shape: tuple[int, int], step: int) -> FloatArray:
    """Linear interpolation of a coarse field; node ``i`` lies at pixel ``i * step``."""
    for axis in range(2):
        position = np.arange(shape[axis], dtype=np.float32) / np.float32(step)
        low = position.astype(np.intp)
        weight = (position - low.astype(np.float32)).reshape((-1, 1) if axis == 0 else (1, -1))
        start = field.take(low, axis)
        field = start + weight * (field.take(low + 1, axis) - start)
    return field


def nearest(field: NDArray[np.int8], shape: tuple[int, int], step: int) -> NDArray[np.int8]:
    """Nearest value of a coarse field at every pixel."""
    rows = np.rint(np.arange(shape[0]) / step).astype(np.intp)
    cols = np.rint(np.arange(shape[1]) / step).astype(np.intp)
    return field[rows][:, cols]
