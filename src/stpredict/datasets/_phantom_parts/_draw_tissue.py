"""Draw a synthetic H&E section with known nuclei and stains."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from stpredict.datasets._phantom_parts import _maps
from stpredict.datasets._phantom_parts._design import Design
from stpredict.datasets._phantom_parts._maps import Doubles, FloatArray, Shape, TissueMaps

# Absorption of red, green and blue by the two dyes: Ruifrok & Johnston, Anal. Quant. Cytol.
# Histol. 23:291 (2001). Their eosin, (0.07, 0.99, 0.11), looks magenta; it is changed to the
# salmon pink of common scanners.
HAEMATOXYLIN = np.array([0.65, 0.70, 0.29], dtype=np.float32)
EOSIN = np.array([0.10, 0.94, 0.33], dtype=np.float32)
GLASS = np.array([243.0, 242.0, 245.0], dtype=np.float32)


@dataclass(frozen=True)
class DrawnTissue:
    """Image of a section and the structures drawn in it."""

    image: NDArray[np.uint8]  # (3, y, x)
    eosin: FloatArray  # (y, x): eosin concentration
    mask: FloatArray  # (y, x): 1 on tissue, 0 on glass, smooth in between
    region: NDArray[np.int8]  # (y, x): index into `REGIONS`, also defined on glass
    nuclei: Doubles  # (n, 2): x, y of the nuclei in pixels
    radii_um: FloatArray  # (n,): geometric mean of a nucleus' half axes


def draw_tissue(
    rng: Generator,
    stain_rng: Generator,  # separate, so that a tissue can be stained differently
    design: Design,
) -> DrawnTissue:
    """Draw one section, with patches of the size of the pitch inside its regions."""
    shape, mpp = design.shape, design.mpp
    maps = _maps.draw_maps(rng, shape, design.pitch_px)
    nuclei, radii_um = _place_nuclei(rng, maps, shape, mpp)
    nuclear = _stamp(rng, maps, nuclei, radii_um / mpp, shape)
    mask = np.clip(_maps.upsample(maps.outline, shape, maps.step) / 3.0 + 0.5, 0.0, 1.0)
    grainy = gaussian_filter(rng.standard_normal(shape, dtype=np.float32), 1.2, truncate=2.0)

    eosin = _eosin_texture(maps, shape, mpp)
    eosin *= 1.0 + 0.35 * grainy
    eosin *= mask
    eosin *= 1.0 - 0.45 * np.minimum(nuclear, 1.0)  # a nucleus takes the cytoplasm's place
    haematoxylin = nuclear * (1.0 + 0.45 * grainy)  # chromatin is not smooth
    haematoxylin += mask * (0.05 + 0.22 * _halo(nuclear, shape, 2.5 / mpp))

    image = _beer_lambert(stain_rng, haematoxylin, eosin, design.stain_variation)
    rows, columns = (np.rint(np.arange(side) / maps.step).astype(np.intp) for side in shape)
    region = maps.region[np.ix_(rows, columns)]
    return DrawnTissue(image, eosin, mask, region, nuclei, radii_um)


def _place_nuclei(
    rng: Generator, maps: TissueMaps, shape: Shape, mpp: float
) -> tuple[Doubles, FloatArray]:
    """Thin a Poisson process by the density map, then remove overlapping nuclei."""
    height, width = shape
    highest = float(maps.density.max())
    n = rng.poisson(highest * height * width * mpp**2)
    xy = rng.uniform(0, 1, (n, 2)) * (width, height)
    keep = rng.uniform(0, highest, n) < maps.at("density", xy)
    radii = maps.at("radius_um", xy) * np.exp(rng.normal(0, 0.08, n))
    keep &= maps.at("outline", xy) > radii / mpp
    xy, radii = xy[keep], radii[keep].astype(np.float32)
    # of two overlapping nuclei the later is removed (Matérn's second hard-core process)
    if len(xy) > 1:
        pairs = cKDTree(xy).query_pairs(2 * float(radii.max()) / mpp, output_type="ndarray")
        distance_um = np.linalg.norm(xy[pairs[:, 0]] - xy[pairs[:, 1]], axis=1) * mpp
        overlaps = distance_um < 0.85 * radii[pairs].sum(axis=1)
        keep = np.ones(len(xy), dtype=bool)
        keep[pairs[overlaps].max(axis=1)] = False
        xy, radii = xy[keep], radii[keep]
    return xy, radii


def _stamp(
    rng: Generator, maps: TissueMaps, xy: Doubles, radii_px: FloatArray, shape: Shape
) -> FloatArray:
    """Haematoxylin of all nuclei: ellipses with soft edges, slightly darker at the rim."""
    kind = maps.at("region", xy).astype(np.intp)
    n = len(xy)
    roundness = (_maps.ROUNDNESS[kind] * rng.uniform(0.8, 1.1, n)).clip(0.3, 1.0)
    long, short = radii_px / np.sqrt(roundness), radii_px * np.sqrt(roundness)
    # nuclei are aligned with the fibres, which run from upper left to lower right
    angle = rng.normal(0, 0.35, n) + np.where(
        _maps.FIBRES[kind] > 0.3, np.pi / 4, rng.uniform(0, 7, n)
    )
    darkness = _maps.DARKNESS[kind] * np.exp(rng.normal(0, 0.10, n))
    values = np.stack([long, short, np.cos(angle), np.sin(angle), darkness], axis=1)
    values = values.astype(np.float32)

    pad = int(np.ceil(long.max(initial=1.0))) + 2
    canvas = np.zeros((shape[0] + 2 * pad, shape[1] + 2 * pad), dtype=np.float32)
    order = np.argsort(long)
    # batches of similar size, so that small nuclei are not drawn in large windows
    for batch in np.array_split(order, max(1, -(-n // 256))):
        if len(batch):
            _stamp_batch(canvas, xy[batch] + pad, values[batch])
    return canvas[pad:-pad, pad:-pad]


def _stamp_batch(canvas: FloatArray, xy: Doubles, values: FloatArray) -> None:
    long, short, cos, sin, darkness = (column[:, None, None] for column in values.T)
    half = int(np.ceil(long.max())) + 1
    reach = np.arange(-half, half + 1)
    corner = np.floor(xy).astype(np.intp)
    offset = (corner + 0.5 - xy).astype(np.float32)  # centre of the pixel minus that of the nucleus
    dx = (reach[None, :] + offset[:, :1])[:, None, :]
    dy = (reach[None, :] + offset[:, 1:])[:, :, None]
    along, across = dx * cos + dy * sin, dy * cos - dx * sin
    d2 = (along / long) ** 2 + (across / short) ** 2  # 1 at the rim of the ellipse
    edge = np.clip((1.0 - np.sqrt(d2)) * short + 0.5, 0.0, 1.0)
    stamp = darkness * edge * (0.82 + 0.25 * np.minimum(d2, 1.0))
    index = (corner[:, 1:, None] + reach[None, :, None]) * canvas.shape[1]
    index = index + corner[:, :1, None] + reach[None, None, :]
    visible = stamp > 0
    np.maximum.at(canvas.reshape(-1), index[visible], stamp[visible])


def _eosin_texture(maps: TissueMaps, shape: Shape, mpp: float) -> FloatArray:
    """Eosin concentration, with wavy stripes of about 8 µm where the tissue is fibrous."""
    step = maps.step
    y = (np.arange(shape[0], dtype=np.float32) * mpp)[:, None]
    x = (np.arange(shape[1], dtype=np.float32) * mpp)[None, :]
    phase = _maps.upsample(maps.bend, shape, step)
    phase += np.float32(2 * np.pi / 8 * np.sqrt(0.5)) * (y - x)
    stripes = np.sin(phase, out=phase)
    stripes *= _maps.upsample(maps.fibres, shape, step)
    stripes += 1.0
    stripes *= _maps.upsample(maps.eosin, shape, step)
    return stripes


def _halo(nuclear: FloatArray, shape: Shape, sigma: float) -> FloatArray:
    """Blurred nuclei: cytoplasm is slightly basophilic where nuclei are dense."""
    step = max(1, int(sigma))
    coarse = np.zeros((shape[0] // step + 2, shape[1] // step + 2), dtype=np.float32)
    sampled = nuclear[::step, ::step]
    coarse[: sampled.shape[0], : sampled.shape[1]] = sampled
    return _maps.upsample(gaussian_filter(coarse, 1.5), shape, step)


def _beer_lambert(
    rng: Generator, haematoxylin: FloatArray, eosin: FloatArray, variation: float
) -> NDArray[np.uint8]:
    """Light transmitted by both dyes (Beer-Lambert), with camera noise, uint8 ``(3, y, x)``."""
    dyes = np.stack([HAEMATOXYLIN, EOSIN])
    # drawn even if unused, so that the camera noise is the same for any variation
    hue, strength = rng.normal(0, 0.08, (2, 3)), rng.normal(0, 0.25, 2)
    dyes = np.clip(dyes + variation * hue, 0.01, None)
    dyes *= (np.exp(variation * strength) / np.linalg.norm(dyes, axis=1))[:, None]
    dyes = dyes.astype(np.float32)
    noise = rng.standard_normal(haematoxylin.shape, dtype=np.float32)
    image = np.empty((3, *haematoxylin.shape), dtype=np.uint8)
    for channel in range(3):
        light = haematoxylin * -dyes[0, channel]
        light -= eosin * dyes[1, channel]
        np.exp(light, out=light)
        light *= GLASS[channel]
        light += 1.5 * noise
        image[channel] = np.clip(light, 0, 255, out=light)
    return image
