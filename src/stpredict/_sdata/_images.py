"""Images by themselves, whether spots lie on them or not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from spatialdata.transformations import get_transformation

from stpredict import _keys, _validate
from stpredict._sdata._elements import affine_to_um, levels_of, matrix_of, scale_of, um_system
from stpredict._sdata._sections import Section
from stpredict._sdata._wsi import attach_slide

if TYPE_CHECKING:
    from collections.abc import Iterable

    from spatialdata import SpatialData


def require_images(sdata: SpatialData, images: Iterable[str]) -> None:
    """Require that there are such images."""
    attach_slide(sdata)
    unknown = [image for image in images if image not in sdata.images]
    if unknown:
        names, images = _validate.listing(map(repr, unknown)), _validate.listing(sdata.images)
        raise KeyError(f"no image {names}; images: {images}")


def only_image(sdata: SpatialData, image: str | None, *, scaled: bool = False) -> str:
    """Name of the one image, unless another is given; stain-normalised twins do not count.

    With ``scaled``, of several images only those with known µm per pixel count.
    """
    if image is not None:
        require_images(sdata, [image])
        return image
    attach_slide(sdata)
    twins = {_keys.normalized(name) for name in sdata.images}
    names = [name for name in sdata.images if name not in twins]
    if scaled and len(names) > 1:
        names = [name for name in names if mpp_of(sdata, name)] or names
    if len(names) != 1:
        which = _validate.listing(names)
        raise ValueError(f"the object has {len(names)} images: {which}. Select one with image=")
    return names[0]


def mpp_of(sdata: SpatialData, image: str) -> float | None:
    """µm per pixel of an image's finest level; None where they are not known."""
    element, what = sdata.images[image], f"images[{image!r}]"
    system = um_system(element, _keys.section_of(image))
    if system is None:
        return None
    return scale_of(matrix_of(get_transformation(element, system), what=what), what=what)


def without_spots(sdata: SpatialData, image: str, section: str) -> Section:
    """Section of an image on which no spots lie; its µm per pixel must be known."""
    require_images(sdata, [image])
    levels = levels_of(sdata, image)
    element, what = sdata.images[image], f"images[{image!r}]"
    if _keys.um(section) not in get_transformation(element, get_all=True):
        raise ValueError(
            f"the µm per pixel of images[{image!r}] are not known: give them with "
            f"stp.io.register_um(sdata, {section!r}, image={image!r}, mpp=…)"
        )
    return Section(
        name=section,
        image=image,
        levels=levels,
        mpp=scale_of(affine_to_um(element, section, what=what), what=what),
        rows=np.empty(0, dtype=np.intp),
        centers=np.empty((0, 2)),
        radius_um=np.empty(0),
    )
