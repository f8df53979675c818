"""The tissue mask of an image: how it is stored, and which share of a spot it covers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from spatialdata.transformations import get_transformation

from stpredict import _keys, _validate
from stpredict._sdata._elements import matrix_of, pyramid_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from spatialdata import SpatialData

    from stpredict._sdata._sections import Section

MOST_PX = 5_000_000  # masks are thinned to about this
_N_POINTS = 128  # per spot: exact to 1 % at a straight edge, to 4 % on a patchwork
_BATCH = 4096  # spots at a time


@dataclass(frozen=True, eq=False)
class TissueMask:
    """Pixels of an image that are tissue."""

    mask: NDArray[np.bool_]  # True on tissue, (y, x) at a coarse resolution
    scale: tuple[float, float]  # pixels of the finest level per pixel of the mask, x and y
    shape_yx: tuple[int, int]  # height and width of the image's finest level in pixels

    def contains(self, points: NDArray[np.floating]) -> NDArray[np.bool_]:
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
        """Share of each circle, in pixels of the finest level, that is tissue, (n,) in [0, 1]."""
        # points evenly over the unit disc, on Fermat's spiral with the golden angle
        index = np.arange(_N_POINTS)
        angle = index * np.pi * (3 - np.sqrt(5))
        spiral = np.column_stack([np.cos(angle), np.sin(angle)])
        disc = np.sqrt((index + 0.5) / _N_POINTS)[:, None] * spiral
        share = np.empty(len(centers))
        for start in range(0, len(centers), _BATCH):
            rows = slice(start, start + _BATCH)
            points = centers[rows, None] + np.asarray(radius)[rows, None, None] * disc
            share[rows] = self.contains(points).mean(axis=1)
        return share

    def spot_fraction(self, section: Section) -> NDArray[np.float64]:
        """Share of each of a section's spots that is tissue, (n,)."""
        return self.fraction(section.centers, section.radius_um / section.mpp)


def stored_tissue_mask(
    sdata: SpatialData, image: str, shape_yx: tuple[int, int]
) -> TissueMask | None:
    """Read the tissue mask of an image from its labels; None if it has none."""
    key = _keys.tissue(image)
    if key not in sdata.labels:
        return None
    levels = [level.transpose("y", "x") for level in pyramid_of(sdata.labels[key])]
    finest = levels[0]
    scale = _image_px_per_label_px(sdata, image, shape=finest.shape)
    # labels from other tools may be as large as the image: read a coarse level, thinned
    level = next((level for level in levels if level.size <= MOST_PX), levels[-1])
    step = max(1, int(np.ceil(np.sqrt(level.size / MOST_PX))))
    shrink_x, shrink_y = (finest.shape[axis] / level.shape[axis] * step for axis in (1, 0))
    return TissueMask(
        mask=np.asarray(level.data[::step, ::step] > 0),
        scale=(scale[0] * shrink_x, scale[1] * shrink_y),
        shape_yx=shape_yx,
    )


def _image_px_per_label_px(
    sdata: SpatialData, image: str, *, shape: tuple[int, ...]
) -> tuple[float, float]:
    """Pixels of the image per pixel of its labels, x and y, from a coordinate system they share."""
    key = _keys.tissue(image)
    label_systems = get_transformation(sdata.labels[key], get_all=True)
    image_systems = get_transformation(sdata.images[image], get_all=True)
    shared = [system for system in label_systems if system in image_systems]
    remedy = f"run stp.pp.detect_tissue(sdata, {image!r})"
    if not shared:
        raise ValueError(
            f"labels[{key!r}] and images[{image!r}] share no coordinate system: "
            f"{_validate.listing(label_systems)} and {_validate.listing(image_systems)}: {remedy}"
        )
    label_matrix = matrix_of(label_systems[shared[0]], what=f"labels[{key!r}]")
    image_matrix = matrix_of(image_systems[shared[0]], what=f"images[{image!r}]")
    affine = np.linalg.inv(image_matrix) @ label_matrix
    scale = np.diag(affine)[:2]
    # a pure scaling moves the far corner to the same place as the whole transformation
    corner = np.array([shape[1], shape[0], 1.0])
    if not (scale > 0).all() or (np.abs(affine @ corner - np.append(scale, 1) * corner) > 2).any():
        raise ValueError(
            f"labels[{key!r}] are rotated or shifted relative to images[{image!r}]: {remedy}"
        )
    return float(scale[0]), float(scale[1])
