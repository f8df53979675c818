"""The boundary between SpatialData and arrays: all below `pp`, `tl` and `pl` works on `Section`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stpredict import _keys, _validate
from stpredict._sdata import _elements

if TYPE_CHECKING:
    from collections.abc import Sequence

    import dask.array as da
    from numpy.typing import NDArray
    from spatialdata import SpatialData

    from stpredict._sdata._steps import NormalizeStainStep

#: Default minimum of the total counts. Squidpy's tutorial on Xenium removes cells below 10.
_LEAST_COUNTS = {"spots": 100, "cells": 10}
#: Larger observations are spots: cells and the bins of Visium HD (8 and 16 µm) are smaller, spots
#: of Visium (55 µm) and legacy ST (100 µm) larger.
_LARGEST_CELL_UM = 20.0


@dataclass(frozen=True)
class Section:
    """One piece of tissue, as arrays."""

    name: str  # of the shapes element, and of the region in the table
    image: str  # name of the image element
    levels: tuple[da.Array, ...]  # image pyramid, finest first, each lazy (3, y, x) uint8
    mpp: float  # µm per pixel of the finest level
    rows: NDArray[np.intp]  # (n,) rows of the table
    centers: NDArray[np.float64]  # (n, 2) x and y in pixels of the finest level
    radius_um: NDArray[np.float64]  # (n,); of a polygon, that of the circle of equal area
    normalized: bool = False  # whether the image is one of pp.normalize_stain

    @property
    def centers_um(self) -> NDArray[np.float64]:
        """Centres of the spots in µm from the corner of the image."""
        return self.centers * self.mpp

    @property
    def shape_yx(self) -> tuple[int, int]:
        """Height and width of the finest level in pixels."""
        return self.levels[0].shape[1], self.levels[0].shape[2]


def read_section(
    sdata: SpatialData, name: str, rows: NDArray[np.intp], instances: NDArray[Any]
) -> Section:
    """Read one section: its image, spots and scale; ``instances`` are those of all rows."""
    if name not in sdata.shapes:
        names = _validate.listing(sdata.shapes)
        raise ValueError(
            f"the table annotates {name!r}, but there are no such shapes; shapes: {names}"
        )
    image = _elements.image_name(sdata, name)
    levels = _elements.levels_of(sdata, image)
    shapes = _elements.select(sdata.shapes[name], instances[rows], name)
    image_label, shapes_label = f"images[{image!r}]", f"shapes[{name!r}]"
    image_to_um, shapes_to_um = _elements.affines_to_um(sdata, name, image)
    mpp = _elements.scale_of(image_to_um, what=image_label)
    um_per_unit = _elements.scale_of(shapes_to_um, what=shapes_label)
    return Section(
        name=name,
        image=image,
        levels=levels,
        mpp=mpp,
        rows=rows,
        centers=_elements.centers_px(sdata, name, image, shapes),
        radius_um=_elements.radius_of(shapes) * um_per_unit,
    )


def default_min_counts(sections: Sequence[Section]) -> int:
    """Minimum counts of spots, or of cells and bins."""
    diameters_um = 2 * np.concatenate([section.radius_um for section in sections])
    return _LEAST_COUNTS["cells" if np.median(diameters_um) < _LARGEST_CELL_UM else "spots"]


def on_normalized_images(
    sdata: SpatialData, sections: tuple[Section, ...], step: NormalizeStainStep | None
) -> tuple[Section, ...]:
    """The same sections on their normalised images: on all of them, or on none."""
    names = {section.name: _keys.normalized(section.image) for section in sections}
    normalized = [section for section, image in names.items() if image in sdata.images]
    if not normalized:
        return sections
    remedy = "run stp.pp.normalize_stain again, or delete these images"
    images = _validate.listing(names[section] for section in normalized)
    if step is None:
        raise ValueError(f"no reference stain is recorded for the images {images}: {remedy}")
    missing = set(names) - set(normalized) - set(step.skipped)
    if missing:
        raise ValueError(
            f"sections {_validate.listing(sorted(missing))} have no normalised image, but "
            f"{_validate.listing(normalized)} have: {remedy} ({images})"
        )
    levels = {name: _elements.levels_of(sdata, names[name]) for name in normalized}
    return tuple(
        replace(section, image=names[section.name], levels=levels[section.name], normalized=True)
        if section.name in normalized
        else section
        for section in sections
    )
