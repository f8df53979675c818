"""Small pictures of the sections, and measured and predicted values as bytes."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
from PIL import Image
from scipy.spatial import cKDTree

from stpredict.pl._drawing import _section
from stpredict.report import _tables

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stpredict._sdata._sections import Section
    from stpredict._sdata._spot_table import SpotTable
    from stpredict.results import Scores

#: Larger side of the picture of a section.
_MAX_PX = 560
#: Smallest radius of a spot in its picture, as a share of the distance between spots.
_MIN_RADIUS = 0.44
#: Size of all maps, if the genes to draw are not given.
_MAX_BYTES = 24 * 2**20
#: Byte of a spot without a value; lower bytes are the colour scale.
NO_VALUE = 255
#: Label of the measured values, next to the names of the methods.
MEASURED = "measured"


@dataclass(frozen=True)
class SectionPicture:
    """Picture of a section, and its spots in the pixels of the picture."""

    name: str
    picture: str  # data URI
    width: int
    height: int
    x: list[float]
    y: list[float]
    radius: list[float]


@dataclass(frozen=True)
class Maps:
    """Maps that the page draws."""

    sections: list[SectionPicture]
    methods: list[str]  # methods and baselines that are drawn after the measured values
    genes: list[str]
    scales: list[list[list[float]]]  # low and high end of the colours, by gene and section
    values: list[str]  # base64 by gene; by section, then measured values and methods, then spots


def draw_maps(spots: SpotTable, scores: Scores, genes: Sequence[str] | None) -> Maps:
    """Pictures of the sections, and values of the genes on them."""
    table = spots.table
    methods = [name for name in (*scores.methods, *scores.baselines) if name in table.layers]
    if genes is None:
        n_genes = max(1, _MAX_BYTES // (table.n_obs * (1 + len(methods))))
        genes = list(_tables.gene_scores(scores).index[:n_genes])
    columns = table.var_names.get_indexer(list(genes))
    layers = [table.X, *(table.layers[name] for name in methods)]
    parts, scales = [], []
    for section in spots.sections:
        blocks = [layer[section.rows][:, columns] for layer in layers]
        series = np.stack([block.toarray() if sp.issparse(block) else block for block in blocks])
        levels, low, high = quantize(series.astype(np.float32))
        parts.append(levels.reshape(-1, len(columns)))
        scales.append(np.column_stack([low, high]))
    values = np.concatenate(parts).T
    # four digits keep the page small
    rounded = [
        [[float(f"{end:.4g}") for end in ends] for ends in gene]
        for gene in zip(*scales, strict=True)
    ]
    return Maps(
        sections=[section_picture(section) for section in spots.sections],
        methods=methods,
        genes=[str(gene) for gene in genes],
        scales=rounded,
        values=[base64.b64encode(row.tobytes()).decode() for row in values],
    )


def quantize(
    series: NDArray[np.float32],
) -> tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.float64]]:
    """Bytes of values (series, spots, genes), and the low and high end of the scale per gene.

    The first series holds the measured values, which set the scale.
    """
    low, high = np.array([_scale_ends(series[:, :, gene]) for gene in range(series.shape[2])]).T
    high = np.where(high > low, high, low + 1)
    share = np.clip((series - low) / (high - low), 0, 1)
    levels = np.round(np.nan_to_num(share) * (NO_VALUE - 1))
    return np.where(np.isfinite(series), levels, NO_VALUE).astype(np.uint8), low, high


def _scale_ends(series: NDArray[np.float32]) -> tuple[float, float]:
    """Low and high end of the scale of one gene, (series, spots)."""
    measured, pooled = series[0][np.isfinite(series[0])], series[np.isfinite(series)]
    if measured.size:
        # percentiles of the measured values: neither single spots nor a bad method stretch them
        low, high = np.percentile(measured.astype(np.float64), [1, 99])
        if high > low:
            return float(low), float(high)
    return (float(pooled.min()), float(pooled.max())) if pooled.size else (0.0, 0.0)


def section_picture(section: Section) -> SectionPicture:
    """Picture of the part of the image with spots, and the spots in its pixels."""
    pixels, (left, right, bottom, top) = _section.crop(section, _section.limits(section))
    picture = Image.fromarray(np.asarray(pixels).transpose(1, 2, 0))
    picture.thumbnail((_MAX_PX, _MAX_PX), reducing_gap=3)
    scale = np.array([picture.width / (right - left), picture.height / (bottom - top)])
    centers = (section.centers_um - (left, top)) * scale
    x, y = centers.round(1).T.tolist()
    radius = np.maximum(section.radius_um * scale.mean(), _MIN_RADIUS * _spot_distance(centers))
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=78, method=6)
    uri = webp_uri(buffer)
    return SectionPicture(section.name, uri, *picture.size, x, y, radius.round(2).tolist())


def _spot_distance(centers: NDArray[np.float64]) -> float:
    """Median distance of a spot to the nearest one; 0 for a single spot."""
    if len(centers) < 2:
        return 0.0
    return float(np.median(cKDTree(centers).query(centers, k=2)[0][:, 1]))


def webp_uri(buffer: io.BytesIO) -> str:
    """Data URI of a WebP image."""
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
