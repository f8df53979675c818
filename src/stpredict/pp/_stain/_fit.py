"""Fit the stain of a section to a sample of its pixels."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import dask
import numpy as np
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, Labels2DModel

from stpredict._log import SPATIALDATA, importing_squidpy, quiet
from stpredict._sdata._reference_stain import ReferenceStain
from stpredict.tiles import WHITE, pick_level

if TYPE_CHECKING:
    import dask.array as da
    from numpy.typing import NDArray
    from squidpy.experimental.im import StainReference

    from stpredict._sdata._sections import Section
    from stpredict._sdata._tissue import TissueMask

Method = Literal["macenko", "vahadane", "reinhard"]

#: Mean optical density of the least stained tissue: Macenko et al., ISBI (2009), 1107.
LEAST_DENSITY = 0.15
#: µm per pixel at which a nucleus is still several pixels wide.
_FIT_MPP = 2.0
#: Pixels that are decoded, pixels of these that are used, and those a stain is fitted to.
_MOST_READ, _MOST_PIXELS, _MOST_FITTED = 64 * 2**20, 2_000_000, 100_000
#: Side of the image in which the colour of the glass is measured.
_COARSE_PX = 2000
#: Minimum number of tissue pixels for a fit, and their minimum share of the image.
_LEAST_PIXELS, _LEAST_SHARE = 200, 0.001
#: Background darker than this (mean of the 8-bit channels) is not glass.
_GLASS = 200
#: Range of the channels (of 255) that 95 % of the pixels of a greyscale image stay below.
_GREY = 10
#: Minimum angle between two stains in degrees; Ruifrok's vectors are 40 degrees apart.
_LEAST_ANGLE = 8.0
#: Sparsity of Vahadane's factors. With squidpy's 0.1, planted dyes of the phantom are off by 5 to
#: 10 degrees, and by more where nuclei are few; with this value, by 0 to 5.
_PARAMETERS: dict[str, dict[str, float]] = {"vahadane": {"lambda1": 0.01}}
_FIELDS = ("stain_matrix", "max_concentrations", "white_point", "mu", "sigma")


class DegenerateError(ValueError):
    """The stain of a section cannot be estimated."""

    def __init__(self, section: Section, reason: str) -> None:
        self.reason = reason
        super().__init__(
            f"the stain of section {section.name!r} cannot be estimated: {reason}. To leave such "
            'sections unchanged: stp.pp.normalize_stain(..., degenerate="skip")'
        )


@dataclass(frozen=True)
class SectionStain:
    """Stain of one section."""

    white: NDArray[np.float64]  # colour of its glass, (3,) in 0 to 255
    stain: StainReference  # fitted after the glass was made white


def fit_section(section: Section, tissue: TissueMask, method: Method) -> SectionStain:
    """Fit the stain of a section to a sample of its tissue."""
    pixels, white = _tissue_pixels(section, tissue)
    chroma = pixels.max(axis=0).astype(int) - pixels.min(axis=0)
    if np.percentile(chroma, 95) < _GREY:
        raise DegenerateError(section, "its image is greyscale, saved as RGB")
    # Reinhard's statistics exist for one stain too, but mapping them would add the second dye
    dyes = _fit_pixels(pixels, "macenko", section)
    haematoxylin, eosin = dyes.stain_matrix[:, :2].T
    angle = np.degrees(np.arccos(np.clip(haematoxylin @ eosin, -1, 1)))
    if angle < _LEAST_ANGLE:
        reason = f"it is stained with one dye only (all hues within {angle:.1f} degrees)"
        raise DegenerateError(section, reason)
    stain = dyes if method == "macenko" else _fit_pixels(pixels, method, section)
    return SectionStain(white, stain)


def _tissue_pixels(
    section: Section, tissue: TissueMask
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Sample pixels of stained tissue, (3, n), on white glass; and the glass's colour, (3,)."""
    level, _ = pick_level(section.levels, _FIT_MPP / section.mpp)
    last = section.levels[-1]
    skip = int(np.ceil(max(last.shape[1:]) / _COARSE_PX))
    coarse = np.asarray(last[:, ::skip, ::skip])
    # tissue at the pixels of the coarse image, by their position in the finest level
    spacing = skip * section.shape_yx[1] / last.shape[2]
    ys, xs = (np.arange(size) * spacing for size in coarse.shape[1:])
    mask = tissue.contains(np.stack(np.meshgrid(xs, ys), axis=-1))
    white = _glass_colour(coarse, mask)  # a coarse level averages the camera's noise
    sample, on_tissue = _sample(level, mask)
    balanced = np.rint(white_balance(sample, white)).astype(np.uint8)
    density = np.log(256 / (np.arange(256, dtype=np.float32) + 1))[balanced].mean(axis=0)
    stained = on_tissue & (density > LEAST_DENSITY)
    pixels = balanced[:, stained]
    n = pixels.shape[1]
    if n < max(_LEAST_PIXELS, _LEAST_SHARE * stained.size):
        share = n / stained.size
        raise DegenerateError(section, f"only {share:.2%} of its image is stained tissue")
    # evenly over the section, so that the sample is the same in every call
    return pixels[:, np.linspace(0, n - 1, min(n, _MOST_FITTED)).astype(int)], white


def _sample(
    level: da.Array, mask: NDArray[np.bool_]
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Evenly spaced pixels of a level, (3, n), and whether each lies on the tissue of a mask."""
    shape = level.shape[1:]
    pieces = {(0, 0): level} if math.prod(shape) <= _MOST_READ else _chunks_on_tissue(level, mask)
    n_pixels = sum(math.prod(piece.shape[1:]) for piece in pieces.values())
    step = math.ceil(math.sqrt(n_pixels / _MOST_PIXELS))
    samples = dask.compute(*(piece[:, ::step, ::step] for piece in pieces.values()))
    masks = []
    for corner, sample in zip(pieces, samples, strict=True):
        # pixels of the mask that the sampled pixels lie in
        rows, columns = (
            ((start + (np.arange(n) + 0.5) * step) * m / size).astype(int).clip(max=m - 1)
            for start, n, m, size in zip(corner, sample.shape[1:], mask.shape, shape, strict=True)
        )
        masks.append(mask[np.ix_(rows, columns)].ravel())
    return np.hstack([sample.reshape(3, -1) for sample in samples]), np.concatenate(masks)


def _chunks_on_tissue(level: da.Array, mask: NDArray[np.bool_]) -> dict[tuple[int, int], da.Array]:
    """Chunks of a large level with much tissue, evenly over the slide, by their first pixel."""
    edges = [np.concatenate([[0], np.cumsum(sizes)]) for sizes in level.chunks[1:]]
    # the same edges in the mask, of which a chunk covers at least one pixel
    rows, columns = (
        np.minimum(edge[:-1] * m // size, m - 1)
        for edge, m, size in zip(edges, mask.shape, level.shape[1:], strict=True)
    )
    n_tissue = np.add.reduceat(np.add.reduceat(mask.astype(int), rows), columns, axis=1)
    order = np.flatnonzero(n_tissue >= n_tissue.max() / 2)
    n = max(1, _MOST_READ // int(math.prod(level.chunksize[1:])))
    order = order[np.linspace(0, len(order) - 1, min(n, len(order))).astype(int)]
    places = zip(*np.unravel_index(order, n_tissue.shape), strict=True)
    return {
        (int(edges[0][i]), int(edges[1][j])): level.blocks[:, int(i), int(j)] for i, j in places
    }


def _glass_colour(image: NDArray[np.uint8], tissue: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Colour of the glass, (3,); white if the image shows almost none."""
    glass = ~tissue & (image.mean(axis=0) >= _GLASS)
    if np.count_nonzero(glass) < _LEAST_PIXELS:
        return np.full(3, float(WHITE))
    return np.asarray(np.median(image[:, glass], axis=1), dtype=np.float64)


def white_balance(image: NDArray[np.uint8], white: NDArray[np.float64]) -> NDArray[np.float32]:
    """Scale the channels so that glass, and whatever is brighter, becomes white."""
    values = (np.arange(256, dtype=np.float64) + 1) * (WHITE + 1) / (white[:, None] + 1) - 1
    table = np.minimum(values, WHITE).astype(np.float32)
    return np.stack([table[c][image[c]] for c in range(3)])


def _fit_pixels(pixels: NDArray[np.uint8], method: Method, section: Section) -> StainReference:
    """Fit a stain to pixels of tissue (3, n) on white glass."""
    with importing_squidpy():
        from squidpy.experimental.im import fit_stain_reference

    # squidpy fits to an image and its tissue: one row of pixels, all of them tissue
    image = Image2DModel.parse(pixels[:, None], dims=("c", "y", "x"))
    tissue = Labels2DModel.parse(np.ones_like(pixels[:1]), dims=("y", "x"))
    row = SpatialData(images={"row": image}, labels={"row_tissue": tissue})
    with quiet(SPATIALDATA), warnings.catch_warnings():
        # Vahadane's factors converge long before the error of the factorisation does
        warnings.filterwarnings("ignore", "Maximum number of iterations")
        parameters = _PARAMETERS.get(method)
        try:
            return fit_stain_reference(row, "row", method=method, method_params=parameters)
        except (RuntimeError, ValueError) as error:  # squidpy's StainFittingError is the former
            raise DegenerateError(section, str(error).removeprefix("[row] ").rstrip(".")) from error


def average_stain(stains: list[StainReference]) -> StainReference:
    """Mean of several stains fitted by one method."""
    with importing_squidpy():
        from squidpy.experimental.im import StainReference

    def mean(name: str) -> NDArray[np.float64]:
        return np.mean([getattr(stain, name) for stain in stains], axis=0)

    method = stains[0].method
    if len(stains) == 1:
        return stains[0]
    if method == "reinhard":
        return StainReference(method=method, mu=mean("mu"), sigma=mean("sigma"))
    dyes = mean("stain_matrix")[:, :2]
    # the third column is orthogonal to the averaged dyes, as squidpy's is
    matrix = np.column_stack([dyes, np.cross(dyes[:, 0], dyes[:, 1])])
    return StainReference(
        method=method,
        stain_matrix=matrix / np.linalg.norm(matrix, axis=0),
        white_point=mean("white_point"),
        max_concentrations=mean("max_concentrations"),
    )


def to_plain(stain: StainReference) -> dict[str, Any]:
    """Write a stain in lists, which zarr and JSON can hold."""
    values = {name: getattr(stain, name) for name in _FIELDS}
    lists = {name: value.tolist() for name, value in values.items() if value is not None}
    return {"method": stain.method, **lists}


def to_stain(
    reference: ReferenceStain | Mapping[str, Any] | StainReference, method: str
) -> StainReference:
    """Read a stain that was recorded, or fitted by squidpy; it must be of the method."""
    with importing_squidpy():
        from squidpy.experimental.im import StainReference

    if not isinstance(reference, StainReference):
        values = asdict(reference) if isinstance(reference, ReferenceStain) else dict(reference)
        values = dict(values.get("reference", values))  # the whole record, or the stain in it
        arrays = {name: values[name] for name in _FIELDS if values.get(name) is not None}
        try:
            reference = StainReference(method=values.get("method"), **arrays)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"reference= is not a fitted stain ({error}): give model.recipe.stain"
            ) from error
    if reference.method != method:
        raise ValueError(
            f"reference= was fitted with the method {reference.method!r}, not {method!r}: give "
            f"method={reference.method!r}, or a reference of {method!r}"
        )
    if method != "reinhard" and reference.max_concentrations is None:
        raise ValueError("reference= has no max_concentrations, the strength of its stain")
    return reference
