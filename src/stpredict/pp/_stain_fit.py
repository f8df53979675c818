"""Stain of a section from a sample of its pixels, and the map to a reference; arrays only."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import dask
import numpy as np
import xarray as xr
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, Labels2DModel

from stpredict._log import SPATIALDATA, quiet
from stpredict._tissue import Tissue
from stpredict.pp._tissue import find_tissue

if TYPE_CHECKING:
    import dask.array as da
    from numpy.typing import NDArray
    from squidpy.experimental.im import StainReference

    from stpredict._sections import Section

Method = Literal["macenko", "vahadane", "reinhard"]
METHODS = ("macenko", "vahadane", "reinhard")

#: Glass of a normalised image, and what lies beyond its border (`tiles.WHITE`).
WHITE = 255
#: µm per pixel at which a nucleus is still several pixels wide.
_FIT_MPP = 2.0
#: Pixels looked at, and of those on tissue, fitted to.
_MOST_PIXELS, _MOST_FITTED = 2_000_000, 100_000
#: Side of the image in which tissue is told from glass.
_COARSE_PX = 2000
#: Mean optical density of the least stained tissue: Macenko et al., ISBI (2009), 1107.
_LEAST_DENSITY = 0.15
#: Tissue pixels that a fit needs: so many, and this share of the image.
_LEAST_PIXELS, _LEAST_SHARE = 200, 0.001
#: Difference of the channels (of 255) that all but 5 % of the pixels of a grey image stay below.
_GREY = 10
#: Two stains lie at least so many degrees apart; Ruifrok's vectors do so by 40.
_LEAST_ANGLE = 8.0
#: Background darker than this (mean of the 8-bit channels) is no glass.
_GLASS = 200
#: Sparsity of Vahadane's factors: squidpy's 0.1 turns planted dyes of the phantom by 5 to 10
#: degrees, and more where nuclei are few; this, by 0 to 5.
_PARAMETERS: dict[str, dict[str, float]] = {"vahadane": {"lambda1": 0.01}}
_FIELDS = ("stain_matrix", "max_concentrations", "white_point", "mu", "sigma")


class DegenerateError(ValueError):
    """The stain of a section cannot be told."""

    def __init__(self, section: Section, reason: str) -> None:
        self.reason = reason
        super().__init__(
            f"the stain of section {section.name!r} cannot be told: {reason}. To leave such "
            'sections as they are: stp.pp.normalize_stain(..., degenerate="skip")'
        )


@dataclass(frozen=True)
class Stain:
    """Stain of one section.

    Attributes
    ----------
    white
        Colour of its glass, (3,) in 0 to 255.
    fitted
        Its own stain, after the glass was made white.
    """

    white: NDArray[np.float64]
    fitted: StainReference


def fit_section(section: Section, method: Method) -> Stain:
    """Fit the stain of a section to a sample of its tissue.

    Raises
    ------
    DegenerateError
        If there is almost no tissue, or not two stains on it.
    """
    pixels, white = tissue_pixels(section)
    chroma = pixels.max(axis=0).astype(int) - pixels.min(axis=0)
    if np.percentile(chroma, 95) < _GREY:
        raise DegenerateError(section, "its image is greyscale, saved as RGB")
    # Reinhard's means and deviations exist for one stain too, but would dye it with a second
    stains = fit_pixels(pixels, "macenko", section)
    haematoxylin, eosin = stains.stain_matrix[:, :2].T
    angle = np.degrees(np.arccos(np.clip(haematoxylin @ eosin, -1, 1)))
    if angle < _LEAST_ANGLE:
        raise DegenerateError(
            section, f"it is stained with one dye only (all hues within {angle:.1f} degrees)"
        )
    return Stain(white, stains if method == "macenko" else fit_pixels(pixels, method, section))


def tissue_pixels(section: Section) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Sample pixels of stained tissue, (3, n), glass made white; and the colour of the glass."""
    level = section.levels[0]
    for coarser in section.levels[1:]:
        if section.mpp * section.shape_yx[1] / coarser.shape[2] <= _FIT_MPP:
            level = coarser
    apart = int(np.ceil(np.sqrt(level.shape[1] * level.shape[2] / _MOST_PIXELS)))
    last = section.levels[-1]
    skip = int(np.ceil(max(last.shape[1:]) / _COARSE_PX))
    grid, coarse = dask.compute(level[:, ::apart, ::apart], last[:, ::skip, ::skip])
    mask = _tissue_at(section, coarse.shape[1:], apart=skip * section.shape_yx[1] / last.shape[2])
    white = _glass(coarse, mask)
    balanced = np.rint(_balance(grid, white)).astype(np.uint8)
    density = np.log(256 / (np.arange(256, dtype=np.float32) + 1))[balanced].mean(axis=0)
    ys, xs = (
        ((np.arange(n) + 0.5) * m / n).astype(int)
        for n, m in zip(grid.shape[1:], mask.shape, strict=True)
    )
    stained = mask[np.ix_(ys, xs)] & (density > _LEAST_DENSITY)
    pixels = balanced[:, stained]
    n = pixels.shape[1]
    if n < max(_LEAST_PIXELS, _LEAST_SHARE * stained.size):
        share = n / stained.size
        raise DegenerateError(section, f"only {share:.2%} of its image is stained tissue")
    return pixels[:, np.linspace(0, n - 1, min(n, _MOST_FITTED)).astype(int)], white


def _tissue_at(section: Section, shape: tuple[int, ...], *, apart: float) -> NDArray[np.bool_]:
    """Tissue in the pixels of a coarse image, so many pixels of the finest level apart."""
    pieces, scale = find_tissue(section.levels, mpp=section.mpp)
    ys, xs = (np.arange(size) * apart for size in shape)
    points = np.stack(np.meshgrid(xs, ys), axis=-1)
    return Tissue(mask=pieces > 0, scale=scale, shape_yx=section.shape_yx).at(points)


def _glass(image: NDArray[np.uint8], tissue: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Colour of the glass, (3,); white where none is seen."""
    glass = ~tissue & (image.mean(axis=0) >= _GLASS)
    if np.count_nonzero(glass) < _LEAST_PIXELS:
        return np.full(3, float(WHITE))
    return np.asarray(np.median(image[:, glass], axis=1), dtype=np.float64)


def _balance(image: NDArray[np.uint8], white: NDArray[np.float64]) -> NDArray[np.float32]:
    """Scale the channels so that glass becomes white; what is brighter is glass, too."""
    values = (np.arange(256, dtype=np.float64) + 1) * (WHITE + 1) / (white[:, None] + 1) - 1
    table = np.minimum(values, WHITE).astype(np.float32)
    return np.stack([table[c][image[c]] for c in range(3)])


def fit_pixels(pixels: NDArray[np.uint8], method: Method, section: Section) -> StainReference:
    """Fit a stain to pixels of tissue (3, n) on white glass."""
    from squidpy.experimental.im import fit_stain_reference

    # squidpy fits to an image and its tissue: here one row of pixels, all of them tissue
    row = SpatialData(
        images={"row": Image2DModel.parse(pixels[:, None], dims=("c", "y", "x"))},
        labels={
            "row_tissue": Labels2DModel.parse(
                np.ones((1, pixels.shape[1]), dtype=np.uint8), dims=("y", "x")
            )
        },
    )
    with quiet(SPATIALDATA), warnings.catch_warnings():
        # the factors of Vahadane's factorisation settle long before its error does
        warnings.filterwarnings("ignore", "Maximum number of iterations")
        try:
            return fit_stain_reference(
                row, "row", method=method, method_params=_PARAMETERS.get(method)
            )
        except (RuntimeError, ValueError) as error:  # squidpy's StainFittingError is the former
            raise DegenerateError(section, str(error).removeprefix("[row] ").rstrip(".")) from error


def average(fitted: list[StainReference]) -> StainReference:
    """The mean of several fits of one method."""
    from squidpy.experimental.im import StainReference

    def mean(name: str) -> NDArray[np.float64]:
        return np.mean([getattr(one, name) for one in fitted], axis=0)

    method = fitted[0].method
    if len(fitted) == 1:
        return fitted[0]
    if method == "reinhard":
        return StainReference(method=method, mu=mean("mu"), sigma=mean("sigma"))
    stains = mean("stain_matrix")[:, :2]
    matrix = np.column_stack([stains, np.cross(stains[:, 0], stains[:, 1])])
    return StainReference(
        method=method,
        stain_matrix=matrix / np.linalg.norm(matrix, axis=0),
        white_point=mean("white_point"),
        max_concentrations=mean("max_concentrations"),
    )


def apply(level: da.Array, source: Stain, reference: StainReference) -> da.Array:
    """Map an image (3, y, x) uint8 to a reference, chunk by chunk."""
    whole = level.rechunk({0: -1})
    return whole.map_blocks(
        _map, source=source, reference=reference, dtype=np.uint8, meta=np.empty((0,) * 3, np.uint8)
    )


def _map(
    image: NDArray[np.uint8], *, source: Stain, reference: StainReference
) -> NDArray[np.uint8]:
    balanced = xr.DataArray(_balance(image, source.white), dims=("c", "y", "x"))
    mapped = _map_lab if reference.method == "reinhard" else _map_density
    return np.rint(mapped(balanced, source.fitted, reference)).astype(np.uint8)


def _map_density(
    balanced: xr.DataArray, source: StainReference, reference: StainReference
) -> NDArray[np.float32]:
    """Give both dyes the reference's colour and strength; unstained pixels stay white."""
    from squidpy.experimental.im._stain import rgb_to_sda, sda_to_rgb

    white = np.full(3, float(WHITE))
    strength = np.append(reference.max_concentrations / source.max_concentrations, 1.0)
    operator = reference.stain_matrix @ np.diag(strength) @ np.linalg.pinv(source.stain_matrix)
    density = rgb_to_sda(balanced, white)
    mixed = np.tensordot(operator.astype(np.float32), density.data, axes=1)
    return np.asarray(sda_to_rgb(density.copy(data=mixed), white).data)


def _map_lab(
    balanced: xr.DataArray, source: StainReference, reference: StainReference
) -> NDArray[np.float32]:
    """Give tissue the reference's means and deviations; the paler a pixel, the less."""
    from squidpy.experimental.im._stain import lab_ruderman_to_rgb, rgb_to_lab_ruderman

    lab = rgb_to_lab_ruderman(balanced)
    one_per_channel = (slice(None), None, None)
    ratio = reference.sigma / np.maximum(source.sigma, 1e-6)
    shift = reference.mu - ratio * source.mu
    moved = lab.data * ratio[one_per_channel] + shift[one_per_channel]
    rgb = lab_ruderman_to_rgb(lab.copy(data=moved.astype(np.float32))).data
    density = np.log((WHITE + 1) / (balanced.data + 1)).mean(axis=0)
    share = np.clip(density / _LEAST_DENSITY, 0, 1)
    return np.asarray(share * rgb + (1 - share) * balanced.data, dtype=np.float32)


def to_plain(reference: StainReference) -> dict[str, Any]:
    """Write a reference in lists, which survive zarr and JSON."""
    values = {name: getattr(reference, name) for name in _FIELDS}
    lists = {name: value.tolist() for name, value in values.items() if value is not None}
    return {"method": reference.method, **lists}


def from_plain(reference: Mapping[str, Any] | StainReference, method: str) -> StainReference:
    """Read a reference, of squidpy's or as `to_plain` wrote it; it must be of the method."""
    from squidpy.experimental.im import StainReference

    if not isinstance(reference, StainReference):
        found = dict(reference.get("reference", reference))
        fields = {name: found[name] for name in _FIELDS if found.get(name) is not None}
        try:
            reference = StainReference(method=found.get("method"), **fields)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"reference= is no fitted stain ({error}): give one that stp.pp.normalize_stain "
                'recorded in uns["stpredict"]["normalize_stain"]["reference"]'
            ) from error
    if reference.method != method:
        raise ValueError(
            f"reference= was fitted with the method {reference.method!r}, not {method!r}: give "
            f"method={reference.method!r}, or a reference of {method!r}"
        )
    if method != "reinhard" and reference.max_concentrations is None:
        raise ValueError("reference= has no max_concentrations: the strength of its stain")
    return reference
