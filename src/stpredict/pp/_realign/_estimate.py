"""Estimate the motion of a section from maps of image features, tissue and expression."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import scipy.sparse as sp
from anndata import AnnData
from scipy import ndimage

from stpredict import _validate
from stpredict.alignment import Evidence, estimate_motion, pitch_of, rim_of
from stpredict.pp._tissue._find import tissue_mask
from stpredict.tiles import pick_level

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stpredict._sdata._sections import Section
    from stpredict._sdata._spot_table import SpotTable
    from stpredict._sdata._tissue import TissueMask

#: Fewer spots give neither a tissue outline nor a regression.
_LEAST_SPOTS = 20
#: Pixels of the maps per pitch, and their maximum number.
_PX_PER_PITCH = 10
_MOST_PX = 4_000_000
#: Blurs of the features in pitches: about the size of a spot, and its surroundings.
_BLURS = (0.2, 0.5)
#: Most expressed genes, and their principal components, that the image should explain.
_N_GENES = 1000
_N_COMPONENTS = 3


def estimate_record(
    spots: SpotTable, section: Section, motion: str, max_shift_um: float | None
) -> dict[str, Any]:
    """Record of an estimated motion and its evidence."""
    _validate.inside_image(section.centers, section.shape_yx, section=section.name)
    if len(section.rows) < _LEAST_SPOTS:
        raise ValueError(
            f"section {section.name!r} has {len(section.rows)} spots; at least {_LEAST_SPOTS} are "
            "needed to estimate a motion: give shift_um= or transform="
        )
    counts = spots.counts[section.rows]
    reach = 2 * pitch_of(section.centers_um) if max_shift_um is None else max_shift_um
    evidence = _evidence(section, counts, tissue_mask(spots.sdata, section.image))
    best = estimate_motion(evidence, kind=motion, max_shift=reach)
    values = {name: getattr(best, name) for name in ("gain", "noise", "required", "surface")}
    for time, signals in (("before", best.before), ("after", best.after)):
        values[f"tissue_contrast_{time}"], values[f"explained_variance_{time}"] = signals
    matrix = best.matrix if best.is_better else np.eye(3)
    moved = {"matrix": matrix, "moved": best.is_better, "motion": motion}
    return {**moved, **values, "shifts_um": best.shifts}


def _evidence(section: Section, counts: Any, tissue: TissueMask) -> Evidence:
    """Collect the evidence of one section; counts at its spots are (n, g), not negative."""
    centers = section.centers_um
    pitch = pitch_of(centers)
    height, width = section.shape_yx
    coarse = max(pitch / _PX_PER_PITCH, (height * width * section.mpp**2 / _MOST_PX) ** 0.5)
    colors, um_per_px = _optical_density(section, coarse)
    blur = pitch / um_per_px
    features = [ndimage.gaussian_filter(each, b * blur) for b in _BLURS for each in colors]
    rim, owner = rim_of(centers, pitch)
    ys, xs = ((np.arange(size) + 0.5) * um_per_px / section.mpp for size in colors.shape[1:])
    mask = tissue.contains(np.stack(np.meshgrid(xs, ys), axis=-1)).astype(np.float32)
    return Evidence(
        tissue=ndimage.gaussian_filter(mask, _BLURS[0] * blur),
        features=np.stack(features),
        um_per_px=um_per_px,
        centers=centers,
        rim=rim,
        rim_owner=owner,
        expression=_expression(counts),
        pitch=pitch,
    )


def _optical_density(section: Section, um_per_px: float) -> tuple[NDArray[np.float32], float]:
    """Optical density of the channels and its local deviation, (4, h, w), and µm per pixel."""
    # at least three pixels per pixel of the map, to measure the deviation
    level, downsampling = pick_level(section.levels, um_per_px / 3 / section.mpp)
    mpp = section.mpp * downsampling
    factor = max(1, round(um_per_px / mpp))
    height, width = (size // factor * factor for size in level.shape[1:])
    density = -da.log((level[:, :height, :width].astype(np.float32) + 1) / 256)
    mean = da.coarsen(np.mean, density, {1: factor, 2: factor})
    grey = density.mean(axis=0)
    square = da.coarsen(np.mean, grey**2, {0: factor, 1: factor})
    mean, square = da.compute(mean, square)
    deviation = np.sqrt(np.maximum(square - mean.mean(axis=0) ** 2, 0))
    return np.concatenate([mean, deviation[None]]).astype(np.float32), mpp * factor


def _expression(counts: Any) -> NDArray[np.float64]:
    """Logarithm of the total counts, and leading components of expression, (n, k)."""
    import scanpy as sc

    values = np.log1p(np.asarray(counts.sum(axis=1), dtype=np.float64)).reshape(-1, 1)
    mean = np.asarray(counts.mean(axis=0)).ravel()
    top = np.sort(np.argsort(-mean, kind="stable")[:_N_GENES])
    table = AnnData(sp.csr_matrix(counts, dtype=np.float32)[:, top])
    n_components = min(_N_COMPONENTS, counts.shape[0] - 1, len(top) - 1)
    if n_components > 0:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Some cells have zero counts")
            sc.pp.normalize_total(table, target_sum=1e4)
        sc.pp.log1p(table)
        sc.pp.pca(table, n_comps=n_components, random_state=0)
        values = np.column_stack([values, table.obsm["X_pca"]]).astype(np.float64)
    # outliers, such as spots without counts, must not decide: clip at three standard deviations,
    # estimated as 1.4826 times the median absolute deviation
    median = np.median(values, axis=0)
    deviation = 1.4826 * np.median(np.abs(values - median), axis=0)
    return np.clip(values, median - 3 * deviation, median + 3 * deviation)
