"""Sections as small pictures, and what was measured and predicted on them as bytes."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from PIL import Image
from scipy.spatial import cKDTree

from stpredict.pl._drawing import _section
from stpredict.report import _tables
from stpredict.results import TUNED_RIDGE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from numpy.typing import NDArray

    from stpredict._sdata._sections import Section
    from stpredict.results import CrossValidation

#: Larger side of a picture of a section.
_MOST_PX = 560
#: Spots are drawn this large, as a share of the distance to the next, to be seen in small pictures.
_RADIUS = 0.44
#: What the maps may take when it is not said which to draw.
_MOST_BYTES = 24 * 2**20
#: The byte of a spot that has no value; those below it go from the scale's low to its high end.
MISSING = 255
#: Of the name of what was measured, among those of methods.
MEASURED = "measured"


@dataclass(frozen=True)
class Tissue:
    """A section's picture, and its spots in the picture's pixels."""

    name: str
    picture: str
    width: int
    height: int
    x: list[float]
    y: list[float]
    radius: list[float]


@dataclass(frozen=True)
class Maps:
    """What the page draws.

    Attributes
    ----------
    tissues
        Sections.
    methods
        Whose predictions are drawn, after what was measured.
    genes
        Which genes are drawn.
    scales
        Of every gene, the low and high end of each section's colours.
    values
        Of every gene, base64 of a byte per section, then measured and method, then spot.
    """

    tissues: list[Tissue]
    methods: list[str]
    genes: list[str]
    scales: list[list[list[float]]]
    values: list[str]


def draw(
    table: AnnData,
    sections: Sequence[Section],
    result: CrossValidation,
    genes: Sequence[str] | None,
) -> Maps:
    """Pictures of the sections, and values of the genes on them."""
    ridges = [name for name in table.layers if name is not None and name.startswith(TUNED_RIDGE)]
    methods = [*result.methods, *ridges]
    if genes is None:
        fit = max(1, _MOST_BYTES // (table.n_obs * (1 + len(methods))))
        genes = list(_tables.gene_scores(result).index[:fit])
    chosen = table.var_names.get_indexer(list(genes))
    layers = [table.X, *(table.layers[name] for name in methods)]
    parts, scales = [], []
    for section in sections:
        series = np.stack([_columns(layer, section.rows, chosen) for layer in layers])
        levels, low, high = quantise(series)
        parts.append(levels.reshape(-1, len(chosen)))
        scales.append(np.column_stack([low, high]))
    values = np.concatenate(parts).T
    return Maps(
        tissues=[tissue(section) for section in sections],
        methods=methods,
        genes=[str(gene) for gene in genes],
        scales=[
            [[float(f"{end:.4g}") for end in ends] for ends in gene]
            for gene in zip(*scales, strict=True)
        ],
        values=[base64.b64encode(row.tobytes()).decode() for row in values],
    )


def _columns(layer: Any, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> NDArray[np.float32]:
    picked = layer[rows][:, columns]
    return np.asarray(picked.toarray() if sp.issparse(picked) else picked, dtype=np.float32)


def quantise(
    series: NDArray[np.float32],
) -> tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.float64]]:
    """Bytes of values, (series, spots, genes), the first series measured; low and high per gene.

    The scale is that of what was measured, not stretched by single spots, nor by a method that
    predicts nonsense; of a gene that hardly varies so, that of everything.
    """
    low, high = np.array([_ends(series[:, :, gene]) for gene in range(series.shape[2])]).T
    high = np.where(high > low, high, low + 1)
    share = np.clip((series - low) / (high - low), 0, 1)
    levels = np.where(np.isfinite(series), np.round(np.nan_to_num(share) * (MISSING - 1)), MISSING)
    return levels.astype(np.uint8), low, high


def _ends(series: NDArray[np.float32]) -> tuple[float, float]:
    """Low and high end of the scale of one gene, (series, spots)."""
    measured, pooled = series[0][np.isfinite(series[0])], series[np.isfinite(series)]
    if measured.size:
        low, high = np.percentile(measured.astype(np.float64), [1, 99])
        if high > low:
            return float(low), float(high)
    return (float(pooled.min()), float(pooled.max())) if pooled.size else (0.0, 0.0)


def tissue(section: Section) -> Tissue:
    """Picture of the part of the image that the spots lie on, and the spots in its pixels."""
    pixels, (left, right, bottom, top) = _section.crop(section, _section.limits(section))
    picture = Image.fromarray(np.asarray(pixels).transpose(1, 2, 0))
    picture.thumbnail((_MOST_PX, _MOST_PX), reducing_gap=3)
    scale = np.array([picture.width / (right - left), picture.height / (bottom - top)])
    centers = (section.centers_um - (left, top)) * scale
    x, y = centers.round(1).T.tolist()
    return Tissue(
        name=section.name,
        picture=data_uri(picture),
        width=picture.width,
        height=picture.height,
        x=x,
        y=y,
        radius=np.maximum(section.radius_um * scale.mean(), _RADIUS * _pitch(centers))
        .round(2)
        .tolist(),
    )


def _pitch(centers: NDArray[np.float64]) -> float:
    """Usual distance of a spot to the next; of a single spot, none."""
    if len(centers) < 2:
        return 0.0
    return float(np.median(cKDTree(centers).query(centers, k=2)[0][:, 1]))


def data_uri(picture: Image.Image) -> str:
    """A picture as text that a page can hold."""
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=78, method=6)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
