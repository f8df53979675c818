"""Measure the morphology of drawn tissue at spots and in their neighbourhood."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from stpredict.datasets._phantom_parts._design import Design
from stpredict.datasets._phantom_parts._draw_tissue import DrawnTissue
from stpredict.datasets._phantom_parts._maps import tile_means
from stpredict.datasets._phantom_parts._spots import PlacedSpots

FloatArray = NDArray[np.float64]

MORPHOLOGY = ("nuclear_density", "nuclear_size", "eosin")

# Centre and scale of nuclei per 1000 µm², mean nuclear radius in µm and mean eosin, measured over
# many drawn sections. They are fixed, so that the same morphology has the same expression in every
# section.
_SPOT_SCALE = np.array([[7.5, 3.10, 0.49], [3.8, 0.68, 0.18]])
_CELL_SCALE = np.array([[10.7, 2.90, 0.44], [5.8, 0.81, 0.19]])

# Maximum number of neighbours of a spot, and their maximum distance in pitches.
_NEIGHBORS = {"hexagonal": (6, 1.1), "square": (8, 1.5), "cells": (6, np.inf)}


def measure_morphology(design: Design, tissue: DrawnTissue, spots: PlacedSpots) -> FloatArray:
    """Standardised `MORPHOLOGY` of each tile as drawn, ``(n, 3)``, clipped to ±3.

    Nuclear size is the mean over the nuclei whose centre lies in the tile, or the size of a cell's
    own nucleus. Without a nucleus it is the typical size.
    """
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
    size = np.where(np.isnan(size), scale[0, 1], size)
    return np.clip((np.column_stack([density, size, eosin]) - scale[0]) / scale[1], -3, 3)


def neighborhood_morphology(design: Design, morphology: FloatArray, xy: FloatArray) -> FloatArray:
    """Morphology of the neighbours that a spot's own morphology does not explain, ``(n, 3)``.

    The average of the neighbours' mean and maximum, minus its linear regression on the spot's own
    morphology, scaled to unit variance. Neighbours are the 6 or 8 adjacent spots of the grid, or
    the 6 nearest cells.
    """
    k, max_pitches = _NEIGHBORS[design.layout]
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
