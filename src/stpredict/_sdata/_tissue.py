"""Tissue in an image: how it is stored, and how much of a spot lies on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from spatialdata.transformations import Sequence, get_transformation
from xarray import DataTree

from stpredict import _keys, _validate
from stpredict._sdata._elements import matrix_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from spatialdata import SpatialData

    from stpredict._sdata._sections import Section

#: A mask is brought down to about this many pixels.
MOST_PX = 5_000_000
#: Points by which a spot's share is measured: to 1 % at a straight rim, 4 % on a patchwork.
_N_POINTS = 128
#: Spots at a time.
_BATCH = 4096


@dataclass(frozen=True, eq=False)
class Tissue:
    """Where in an image tissue lies.

    Attributes
    ----------
    mask
        True on tissue, (y, x) bool, at a coarse resolution.
    scale
        Pixels of the image's finest level per pixel of the mask, x and y.
    shape_yx
        Height and width of the image's finest level in pixels.
    """

    mask: NDArray[np.bool_]
    scale: tuple[float, float]
    shape_yx: tuple[int, int]

    def at(self, points: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Whether points (…, 2), x and y in pixels of the finest level, lie on tissue."""
        height, width = self.shape_yx
        with np.errstate(invalid="ignore"):
            within = (points >= 0) & (points < (width, height))  # NaN: False
        inside = np.asarray(within.all(axis=-1))
        pixel = np.where(inside[..., None], points, 0) / self.scale
        # the last pixel of the mask may end a little before the image does
        x, y = np.moveaxis(pixel.astype(np.intp), -1, 0)
        last_y, last_x = self.mask.shape[0] - 1, self.mask.shape[1] - 1
        return self.mask[np.minimum(y, last_y), np.minimum(x, last_x)] & inside

    def fraction(
        self, centers: NDArray[np.floating], radius: NDArray[np.floating]
    ) -> NDArray[np.float64]:
        """Share of each circle that is tissue, (n,) in [0, 1]; NaN positions give 0.

        Centres (n, 2) and radius (n,) in pixels of the finest level. What lies beyond the border
        of the image is no tissue.
        """
        disc = _disc()
        share = np.empty(len(centers))
        for start in range(0, len(centers), _BATCH):
            rows = slice(start, start + _BATCH)
            points = centers[rows, None] + np.asarray(radius)[rows, None, None] * disc
            share[rows] = self.at(points).mean(axis=1)
        return share

    def under(self, section: Section) -> NDArray[np.float64]:
        """Share of each of a section's spots that is tissue, (n,)."""
        return self.fraction(section.centers, section.radius_um / section.mpp)


def _disc() -> NDArray[np.float64]:
    """Points evenly over the unit disc, (n, 2), on Fermat's spiral."""
    index = np.arange(_N_POINTS)
    angle = index * np.pi * (3 - np.sqrt(5))
    return np.sqrt((index + 0.5) / _N_POINTS)[:, None] * np.column_stack(
        [np.cos(angle), np.sin(angle)]
    )


def tissue_of(sdata: SpatialData, image: str, shape_yx: tuple[int, int]) -> Tissue | None:
    """Read the tissue of an image from its labels; None if there are none."""
    key = _keys.tissue(image)
    if key not in sdata.labels:
        return None
    element = sdata.labels[key]
    levels = (
        [element[scale].ds["image"] for scale in element.children]
        if isinstance(element, DataTree)
        else [element]
    )
    finest = levels[0].transpose("y", "x")
    scale = _scale(sdata, image, shape=finest.shape)
    for level in levels:  # labels from elsewhere may be as large as the image
        if level.size <= MOST_PX:
            break
    level = level.transpose("y", "x")
    step = max(1, int(np.ceil(np.sqrt(level.size / MOST_PX))))
    shrink_x, shrink_y = (finest.shape[axis] / level.shape[axis] * step for axis in (1, 0))
    return Tissue(
        mask=np.asarray(level.data[::step, ::step] > 0),
        scale=(scale[0] * shrink_x, scale[1] * shrink_y),
        shape_yx=shape_yx,
    )


def _scale(sdata: SpatialData, image: str, *, shape: tuple[int, ...]) -> tuple[float, float]:
    """Pixels of the image per pixel of its labels, x and y, by a system they share."""
    key = _keys.tissue(image)
    of_labels = get_transformation(sdata.labels[key], get_all=True)
    of_image = get_transformation(sdata.images[image], get_all=True)
    shared = [system for system in of_labels if system in of_image]
    again = f"run stp.pp.detect_tissue(sdata, {image!r})"
    if not shared:
        raise ValueError(
            f"labels[{key!r}] and images[{image!r}] share no coordinate system: "
            f"{_validate.listing(of_labels)} and {_validate.listing(of_image)}: {again}"
        )
    path = Sequence([of_labels[shared[0]], of_image[shared[0]].inverse()])
    affine = matrix_of(path)
    scale = np.diag(affine)[:2]
    # the far corner, by the scale alone and by all of the transformation
    corner = np.array([shape[1], shape[0], 1.0])
    if not (scale > 0).all() or (np.abs(affine @ corner - np.append(scale, 1) * corner) > 2).any():
        raise ValueError(
            f"labels[{key!r}] are turned or shifted against images[{image!r}], by "
            f"{affine[:2].round(2).tolist()}: {again}"
        )
    return float(scale[0]), float(scale[1])
