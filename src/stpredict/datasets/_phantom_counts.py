"""Spots, their morphology, and counts planted on it; arrays only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stpredict.datasets._phantom_image import Tissue

    FloatArray = NDArray[np.float64]

MORPHOLOGY = ("nuclear_density", "nuclear_size", "eosin")
PLANTED = ("morphology", "neighborhood", "null")

# Centre and scale of nuclei per 1000 µm², mean nuclear radius in µm and mean eosin, over many
# drawn sections. Fixed, so that one look has one expression, in whatever section it occurs.
_SPOT_SCALE = np.array([[7.5, 3.10, 0.49], [3.8, 0.68, 0.18]])
_CELL_SCALE = np.array([[10.7, 2.90, 0.44], [5.8, 0.81, 0.19]])

# Neighbours of a spot: how many at most, and within how many pitches.
_RING = {"hexagonal": (6, 1.1), "square": (8, 1.5), "cells": (6, np.inf)}

_EFFECT = 0.8  # standard deviation of a gene's log expectation
# Of `MORPHOLOGY` in the weights: size less, as it is seen on few nuclei.
_IMPORTANCE = np.array([1.0, 0.6, 1.0])
_DISPERSION = 0.05  # negative binomial: variance = mean + dispersion * mean²
_LIBRARY_SD = 0.25  # of the log of a spot's total
AMBIENT = 0.03  # of a spot's RNA, as much as a spot beside the tissue catches


@dataclass(frozen=True)
class Program:
    """What each gene answers to; shared by all sections.

    Attributes
    ----------
    genes
        Names.
    planted
        One of `PLANTED` per gene.
    weights
        ``(n_genes, 3)``: log expectation per unit of each of `MORPHOLOGY`.
    share
        ``(n_genes,)``: mean share of a spot's counts; sums to 1.
    """

    genes: list[str]
    planted: NDArray[np.str_]
    weights: FloatArray
    share: FloatArray


def gene_program(rng: np.random.Generator, n_genes: dict[str, int]) -> Program:
    """Draw weights and mean expression for ``n_genes`` of each kind of `PLANTED`."""
    planted = np.repeat(list(n_genes), list(n_genes.values()))
    weights = rng.normal(0, 1, (len(planted), len(MORPHOLOGY)))
    weights *= _IMPORTANCE
    weights *= _EFFECT / np.linalg.norm(weights, axis=1, keepdims=True)
    weights[planted == "null"] = 0.0
    share = np.exp(rng.normal(0, 0.5, len(planted)))
    genes = [f"{kind}_{i:03d}" for kind, n in n_genes.items() for i in range(1, n + 1)]
    return Program(genes, planted, weights, share / share.sum())


def spot_grid(
    shape: tuple[int, int], layout: str, *, pitch_px: float, margin_px: float
) -> FloatArray:
    """Positions x, y of a hexagonal or square grid, the same distance to all neighbours.

    A hexagonal grid has rows ``pitch * sqrt(3) / 2`` apart, every second shifted by half a pitch,
    as on Visium slides; a square one is that of legacy Spatial Transcriptomics.
    """
    height, width = shape
    row_step = pitch_px * (np.sqrt(3) / 2 if layout == "hexagonal" else 1.0)
    rows = np.arange(margin_px, height - margin_px, row_step, dtype=np.float64)
    cols = np.arange(margin_px, width - margin_px, pitch_px, dtype=np.float64)
    y, x = np.meshgrid(rows, cols, indexing="ij")
    if layout == "hexagonal":
        x[1::2] += pitch_px / 2
    xy = np.column_stack([x.ravel(), y.ravel()])
    return xy[xy[:, 0] <= width - margin_px]


def tile_means(field: NDArray[np.floating], xy: FloatArray, tile_px: float) -> FloatArray:
    """Mean of a field over the square tile around each position, cut at the border."""
    height, width = field.shape
    total = np.zeros((height + 1, width + 1))
    np.cumsum(np.cumsum(field, axis=0, dtype=np.float64), axis=1, out=total[1:, 1:])
    low = np.rint(xy - tile_px / 2).astype(np.intp)
    x0, y0 = low.clip(0, [width - 1, height - 1]).T
    x1, y1 = np.rint(xy + tile_px / 2).astype(np.intp).clip(1, [width, height]).T
    x1, y1 = np.maximum(x1, x0 + 1), np.maximum(y1, y0 + 1)
    inside = total[y1, x1] - total[y0, x1] - total[y1, x0] + total[y0, x0]
    return inside / ((x1 - x0) * (y1 - y0))


def measure(
    tissue: Tissue,
    xy: FloatArray,
    *,
    mpp: float,
    tile_um: float,
    own_radii_um: NDArray[np.floating] | None = None,
) -> FloatArray:
    """Standardised `MORPHOLOGY` of each tile as it was drawn, ``(n, 3)``, within ±3.

    Size is the mean over the nuclei whose centre lies in the tile, or of cells their own nucleus'
    (``own_radii_um``). Without a nucleus it is set to the typical one.
    """
    tile_px = tile_um / mpp
    inside = cKDTree(tissue.nuclei).query_ball_point(xy, tile_px / 2, p=np.inf)
    density = np.array([len(found) for found in inside]) / tile_um**2 * 1000
    eosin = tile_means(tissue.eosin, xy, tile_px)
    scale = _SPOT_SCALE if own_radii_um is None else _CELL_SCALE
    if own_radii_um is None:
        size = np.array([tissue.radii_um[found].mean() if found else np.nan for found in inside])
    else:
        size = own_radii_um.astype(np.float64)
    size = np.where(np.isnan(size), scale[0, 1], size)
    return np.clip((np.column_stack([density, size, eosin]) - scale[0]) / scale[1], -3, 3)


def surroundings(
    morphology: FloatArray, xy: FloatArray, layout: str, pitch_px: float
) -> FloatArray:
    """Morphology of the neighbours that own morphology does not tell, ``(n, 3)``.

    Half-way between the neighbours' mean and their maximum, less its linear regression on the
    spot's own morphology, scaled to unit variance. Neighbours are the 6 or 8 next spots of the
    grid, or the 6 nearest cells.
    """
    k, reach = _RING[layout]
    n = len(xy)
    found = cKDTree(xy).query(xy, k=k + 1, distance_upper_bound=reach * pitch_px)[1][:, 1:]
    exists = (found < n)[:, :, None]
    values = np.vstack([morphology, np.zeros(morphology.shape[1])])[found]
    count = np.maximum(exists.sum(axis=1), 1)
    mean = values.sum(axis=1) / count
    highest = np.where(exists, values, -np.inf).max(axis=1)
    around = (mean + np.where(np.isfinite(highest), highest, 0.0)) / 2
    own = np.column_stack([np.ones(n), morphology])
    if n > 2 * own.shape[1]:  # with fewer spots, the regression would explain everything
        around = around - own @ np.linalg.lstsq(own, around, rcond=None)[0]
    spread = around.std(axis=0)
    return np.clip((around - around.mean(axis=0)) / np.where(spread > 0, spread, 1.0), -3, 3)


def expected_shares(
    rng: np.random.Generator, program: Program, own: FloatArray, around: FloatArray
) -> FloatArray:
    """Share of each gene in each spot's RNA, ``(n, n_genes)``, rows sum to 1.

    Each kind of gene keeps its part of the total in every spot. So normalising a spot to its
    total, as for counts per 10,000, carries nothing from one kind to another. Null genes vary from
    spot to spot as much as the others, but with nothing.
    """
    log = rng.normal(0, _EFFECT, (len(own), len(program.genes)))
    shares = np.empty_like(log)
    for kind in PLANTED:
        genes = program.planted == kind
        if kind != "null":
            source = own if kind == "morphology" else around
            log[:, genes] = source @ program.weights[genes].T
        raw = program.share[genes] * np.exp(log[:, genes])
        part = program.share[genes].sum()
        shares[:, genes] = raw * (part / raw.sum(axis=1, keepdims=True)) if genes.any() else raw
    return shares


def sample_counts(
    rng: np.random.Generator, shares: FloatArray, counts_per_spot: float
) -> NDArray[np.int64]:
    """Negative-binomial counts around ``shares``, with totals that vary from spot to spot."""
    n = len(shares)
    total = counts_per_spot * np.exp(rng.normal(-(_LIBRARY_SD**2) / 2, _LIBRARY_SD, n))
    rate = shares * total[:, None] * rng.gamma(1 / _DISPERSION, _DISPERSION, shares.shape)
    return rng.poisson(rate)


def log1p_cp10k(shares: FloatArray) -> NDArray[np.float32]:
    """Planted expectation in the unit of ``layers["log1p"]``."""
    return np.log1p(1e4 * shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)
