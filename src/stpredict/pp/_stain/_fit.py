"""Stain of a section, fitted to a sample of its pixels, and how it is written down."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, Labels2DModel

from stpredict._log import SPATIALDATA, quiet
from stpredict.pp._stain._pixels import DegenerateError, tissue_pixels

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from squidpy.experimental.im import StainReference

    from stpredict._sdata._sections import Section
    from stpredict._sdata._tissue import Tissue

Method = Literal["macenko", "vahadane", "reinhard"]
METHODS = ("macenko", "vahadane", "reinhard")

#: Difference of the channels (of 255) that all but 5 % of the pixels of a grey image stay below.
_GREY = 10
#: Two stains lie at least so many degrees apart; Ruifrok's vectors do so by 40.
_LEAST_ANGLE = 8.0
#: Sparsity of Vahadane's factors: squidpy's 0.1 turns planted dyes of the phantom by 5 to 10
#: degrees, and more where nuclei are few; this, by 0 to 5.
_PARAMETERS: dict[str, dict[str, float]] = {"vahadane": {"lambda1": 0.01}}
_FIELDS = ("stain_matrix", "max_concentrations", "white_point", "mu", "sigma")


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


def fit_section(section: Section, tissue: Tissue, method: Method) -> Stain:
    """Fit the stain of a section to a sample of its tissue.

    Raises
    ------
    DegenerateError
        If there is almost no tissue, or not two stains on it.
    """
    pixels, white = tissue_pixels(section, tissue)
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
