"""Place the spots or cells of a phantom's section, and measure their morphology."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from stpredict.datasets._phantom_parts._design import Design
from stpredict.datasets._phantom_parts._draw_tissue import DrawnTissue
from stpredict.datasets._phantom_parts._maps import REGIONS, tile_means

FloatArray = NDArray[np.float64]

MORPHOLOGY = ("nuclear_density", "nuclear_size", "eosin")

# Centre and scale of nuclei per 1000 µm², mean nuclear radius in µm and mean eosin over many drawn
# sections; fixed, so that the same morphology has the same expression in every section.
_SPOT_SCALE = np.array([[7.5, 3.10, 0.49], [3.8, 0.68, 0.18]])
_CELL_SCALE = np.array([[10.7, 2.90, 0.44], [5.8, 0.81, 0.19]])

# Maximum number of neighbours of a spot, and their maximum distance in pitches.
_NEIGHBORS = {"hexagonal": (6, 1.1), "square": (8, 1.5), "cells": (6, np.inf)}
# Minimum share of tissue in the tile of a spot and of a cell; maximum for a spot off the tissue.
_SPOT_TISSUE, _CELL_TISSUE, _GLASS_TISSUE = 0.8, 0.5, 0.01


@dataclass(frozen=True)
class PlacedSpots:
    """Spots or cells of one section; those off the tissue come last."""

    xy: FloatArray  # (n, 2): true positions x, y in pixels
    on_tissue: NDArray[np.bool_]  # (n,)
    region: NDArray[np.intp]  # (n,): index into `REGIONS`, len(REGIONS) for glass
    nucleus_um: FloatArray | None  # (n,): radius of cells' nuclei, NaN off the tissue


def place_spots(design: Design, rng: Generator, tissue: DrawnTissue, section: str) -> PlacedSpots:
    """Choose positions on the tissue of a section, and `off_tissue` positions on glass."""
    height, width = design.shape
    margin = design.tile_um / design.mpp / 2  # so that the whole tile lies in the image
    if design.spots == "cells":
        glass = rng.uniform(0, 1, (20 * design.off_tissue, 2)) * (width, height)
        xy = np.vstack([tissue.nuclei, glass])
        eligible, min_tissue = np.arange(len(xy)) < len(tissue.nuclei), _CELL_TISSUE
    else:
        xy = _grid(design, margin)
        eligible, min_tissue = np.ones(len(xy), dtype=bool), _SPOT_TISSUE
    inside = ((xy >= margin) & (xy <= np.array([width, height]) - margin)).all(axis=1)
    tissue_share = tile_means(tissue.mask, xy, 2 * margin)
    on = np.flatnonzero(inside & eligible & (tissue_share >= min_tissue))
    glass_only = np.flatnonzero(inside & (tissue_share <= _GLASS_TISSUE))
    if len(on) == 0:
        sizes = f"pitch_um={design.pitch_um:g} and tile_um={design.tile_um:g}"
        place = f"the tissue of section {section!r}"
        raise ValueError(f"no spot of {sizes} fits {place}. Choose a larger size_px=")
    if len(glass_only) < design.off_tissue:
        few = f"only {len(glass_only)} spots fit off the tissue of section {section!r}"
        raise ValueError(f"off_tissue={design.off_tissue}, but {few}. Choose fewer")
    off = np.sort(rng.choice(glass_only, design.off_tissue, replace=False))

    xy = xy[np.concatenate([on, off])]
    on_tissue = np.arange(len(xy)) < len(on)
    column, row = np.floor(xy).astype(np.intp).T
    nucleus_um = None
    if design.spots == "cells":
        nucleus_um = np.concatenate([tissue.radii_um[on], np.full(len(off), np.nan)])
    region = np.where(on_tissue, tissue.region[row, column], len(REGIONS))
    return PlacedSpots(xy, on_tissue, region, nucleus_um)


def _grid(design: Design, margin_px: float) -> FloatArray:
    """Positions x, y of a hexagonal (Visium) or square (legacy Spatial Transcriptomics) grid."""
    height, width = design.shape
    hexagonal = design.spots == "hexagonal"
    # rows of a hexagonal grid are closer, and every second one is shifted by half a pitch
    row_step = design.pitch_px * (np.sqrt(3) / 2 if hexagonal else 1.0)
    rows = np.arange(margin_px, height - margin_px, row_step, dtype=np.float64)
    columns = np.arange(margin_px, width - margin_px, design.pitch_px, dtype=np.float64)
    y, x = np.meshgrid(rows, columns, indexing="ij")
    if hexagonal:
        x[1::2] += design.pitch_px / 2
    xy = np.column_stack([x.ravel(), y.ravel()])
    return xy[xy[:, 0] <= width - margin_px]


def recorded_positions(design: Design, xy: FloatArray, section: str) -> FloatArray:
    """Positions in pixels as recorded, that is, misaligned."""
    if not any(design.misalignment_um) and not design.misalignment_deg:
        return xy.copy()
    affine = design.misalignment
    recorded = (xy * design.mpp @ affine[:2, :2].T + affine[:2, 2]) / design.mpp
    n_outside = int((~((recorded >= 0) & (recorded <= design.shape[::-1])).all(axis=1)).sum())
    if n_outside:
        moved = f"{n_outside} of {len(xy)} spots of section {section!r} out of the image"
        raise ValueError(f"the misalignment moves {moved}. Choose a smaller one")
    return recorded


def in_tiles(design: Design, tissue: DrawnTissue, spots: PlacedSpots) -> FloatArray:
    """Standardised `MORPHOLOGY` of each tile as drawn, ``(n, 3)``, clipped to ±3."""
    tile_px = design.tile_um / design.mpp
    nuclei = cKDTree(tissue.nuclei).query_ball_point(spots.xy, tile_px / 2, p=np.inf)
    density = np.array([len(indices) for indices in nuclei]) / design.tile_um**2 * 1000
    eosin = tile_means(tissue.eosin, spots.xy, tile_px)
    if spots.nucleus_um is None:
        scale = _SPOT_SCALE
        size = np.array([tissue.radii_um[i].mean() if i else np.nan for i in nuclei])
    else:
        scale = _CELL_SCALE
        size = spots.nucleus_um.astype(np.float64)
    # the typical size where a tile has no nucleus
    size = np.where(np.isnan(size), scale[0, 1], size)
    return np.clip((np.column_stack([density, size, eosin]) - scale[0]) / scale[1], -3, 3)


def in_neighborhood(design: Design, morphology: FloatArray, xy: FloatArray) -> FloatArray:
    """Morphology of the neighbours that a spot's own does not explain, ``(n, 3)``, standardised."""
    k, max_pitches = _NEIGHBORS[design.spots]
    n = len(xy)
    tree = cKDTree(xy)
    reach = max_pitches * design.pitch_px
    neighbors = tree.query(xy, k=k + 1, distance_upper_bound=reach)[1][:, 1:]
    exists = (neighbors < n)[:, :, None]  # scipy gives a missing neighbour the index n
    values = np.vstack([morphology, np.zeros(morphology.shape[1])])[neighbors]
    mean = values.sum(axis=1) / np.maximum(exists.sum(axis=1), 1)
    highest = np.where(exists, values, -np.inf).max(axis=1)
    around = (mean + np.where(np.isfinite(highest), highest, 0.0)) / 2
    design_matrix = np.column_stack([np.ones(n), morphology])
    if n > 2 * design_matrix.shape[1]:  # with fewer spots the regression would explain everything
        around = around - design_matrix @ np.linalg.lstsq(design_matrix, around, rcond=None)[0]
    deviation = around.std(axis=0)
    return np.clip((around - around.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0), -3, 3)
