"""Place the spots or cells of a phantom's section."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stpredict.datasets._phantom_parts._design import Design
from stpredict.datasets._phantom_parts._draw_tissue import DrawnTissue
from stpredict.datasets._phantom_parts._maps import REGIONS, tile_means

# Minimum share of tissue in the tile of a spot and of a cell; maximum for a spot off the tissue.
_SPOT_TISSUE, _CELL_TISSUE, _GLASS_TISSUE = 0.8, 0.5, 0.01


@dataclass(frozen=True)
class PlacedSpots:
    """Spots or cells of one section; those off the tissue come last."""

    xy: NDArray[np.float64]  # (n, 2): true positions x, y in pixels
    on_tissue: NDArray[np.bool_]  # (n,)
    region: NDArray[np.intp]  # (n,): index into `REGIONS`, len(REGIONS) for glass
    nucleus_um: NDArray[np.float64] | None  # (n,): radius of cells' nuclei, NaN off the tissue


def place_spots(
    design: Design, rng: np.random.Generator, tissue: DrawnTissue, section: str
) -> PlacedSpots:
    """Choose positions on the tissue of a section, and `off_tissue` positions on glass."""
    height, width = design.shape
    margin = design.tile_um / design.mpp / 2  # so that the whole tile lies in the image
    if design.layout == "cells":
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
        raise ValueError(
            f"no spot of pitch_um={design.pitch_um:g} and tile_um={design.tile_um:g} fits the "
            f"tissue of section {section!r} in an image of {width * design.mpp:g} × "
            f"{height * design.mpp:g} µm (x × y). Choose a larger size_px= or a smaller pitch_um="
        )
    if len(glass_only) < design.off_tissue:
        raise ValueError(
            f"off_tissue={design.off_tissue}, but only {len(glass_only)} spots fit off the tissue "
            f"of section {section!r}. Choose fewer, or a larger size_px="
        )
    off = np.sort(rng.choice(glass_only, design.off_tissue, replace=False))

    xy = xy[np.concatenate([on, off])]
    on_tissue = np.arange(len(xy)) < len(on)
    column, row = np.floor(xy).astype(np.intp).T
    nucleus_um = None
    if design.layout == "cells":
        nucleus_um = np.concatenate([tissue.radii_um[on], np.full(len(off), np.nan)])
    region = np.where(on_tissue, tissue.region[row, column], len(REGIONS))
    return PlacedSpots(xy, on_tissue, region, nucleus_um)


def _grid(design: Design, margin_px: float) -> NDArray[np.float64]:
    """Positions x, y of a hexagonal (Visium) or square (legacy Spatial Transcriptomics) grid."""
    height, width = design.shape
    hexagonal = design.layout == "hexagonal"
    # rows of a hexagonal grid are closer, and every second one is shifted by half a pitch
    row_step = design.pitch_px * (np.sqrt(3) / 2 if hexagonal else 1.0)
    rows = np.arange(margin_px, height - margin_px, row_step, dtype=np.float64)
    columns = np.arange(margin_px, width - margin_px, design.pitch_px, dtype=np.float64)
    y, x = np.meshgrid(rows, columns, indexing="ij")
    if hexagonal:
        x[1::2] += design.pitch_px / 2
    xy = np.column_stack([x.ravel(), y.ravel()])
    return xy[xy[:, 0] <= width - margin_px]


def recorded_positions(
    design: Design, xy: NDArray[np.float64], section: str
) -> NDArray[np.float64]:
    """Positions in pixels as recorded, that is, misaligned."""
    if not any(design.misalignment_um) and not design.misalignment_deg:
        return xy.copy()
    affine = design.misalignment
    recorded = (xy * design.mpp @ affine[:2, :2].T + affine[:2, 2]) / design.mpp
    n_outside = int((~((recorded >= 0) & (recorded <= design.shape[::-1])).all(axis=1)).sum())
    if n_outside:
        raise ValueError(
            f"the misalignment moves {n_outside} of {len(xy)} spots of section {section!r} out of "
            "the image. Choose a smaller misalignment_um= or misalignment_deg="
        )
    return recorded
