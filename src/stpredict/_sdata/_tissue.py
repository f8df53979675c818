"""The tissue mask of an image: how it is stored, and which share of a spot it covers."""

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

#: Masks are thinned to about this many pixels.
MOST_PX = 5_000_000
#: Points per spot: the share is exact to 1 % at a straight edge, to 4 % on a patchwork.
_N_POINTS = 128
#: Spots at a time.
_BATCH = 4096


@dataclass(frozen=True, eq=False)
class TissueMask:
    """Pixels of an image that are tissue.

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
        """Share of each circle that is tissue, (n,) in [0, 1]; NaN positions give 0.

        Centres (n, 2) and radius (n,) in pixels of the finest level. Area outside the image does
        not count as tissue.
        """
        disc = _disc()
        share = np.empty(len(centers))
        for start in range(0, len(centers), _BATCH):
            rows = slice(start, start + _BATCH)
            points = centers[rows, None] + np.asarray(radius)[rows, None, None] * disc
            share[rows] = self.contains(points).mean(axis=1)
        return share

    def spot_fraction(self, section: Section) -> NDArray[np.float64]:
        """Share of each of a section's spots that is tissue, (n,)."""
        return self.fraction(section.centers, section.radius_um / section.mpp)


def _disc() -> NDArray[np.float64]:
    """Points evenly over the unit disc, (n, 2), on Fermat's spiral."""
    index = np.arange(_N_POINTS)
    angle = index * np.pi * (3 - np.sqrt(5))  # the golden angle
    return np.sqrt((index + 0.5) / _N_POINTS)[:, None] * np.column_stack(
        [np.cos(angle), np.sin(angle)]
    )


def stored_tissue_mask(
    sdata: SpatialData, image: str, shape_yx: tuple[int, int]
) -> TissueMask | None:
    """Read the tissue mask of an image from its labels; None if it has none."""
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
    scale = _image_px_per_label_px(sdata, image, shape=finest.shape)
    # labels from other tools may be as large as the image: read a coarse level, thinned
    level = next((level for level in levels if level.size <= MOST_PX), levels[-1])
    level = level.transpose("y", "x")
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
    path = Sequence([label_systems[shared[0]], image_systems[shared[0]].inverse()])
    affine = matrix_of(path)
    scale = np.diag(affine)[:2]
    # a pure scaling moves the far corner to the same place as the whole transformation
    corner = np.array([shape[1], shape[0], 1.0])
    if not (scale > 0).all() or (np.abs(affine @ corner - np.append(scale, 1) * corner) > 2).any():
        raise ValueError(
            f"labels[{key!r}] are rotated or shifted relative to images[{image!r}], by "
            f"{affine[:2].round(2).tolist()}: {remedy}"
        )
    return float(scale[0]), float(scale[1])
