"""Slides that the user opened with wsidata: their image is attached lazily."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from spatialdata.transformations import Identity, Scale, get_transformation, set_transformation

from stpredict import _keys
from stpredict._sdata._elements import matrix_of, um_system
from stpredict._sdata._pyramid import multiscale_image

if TYPE_CHECKING:
    from spatialdata import SpatialData


def attach_slide(sdata: SpatialData) -> None:
    """Attach the slide of a `WSIData` as a lazy image in µm, which is not written to disk."""
    # by name: importing wsidata takes seconds, and other objects do not need it
    if not any(base.__name__ == "WSIData" for base in type(sdata).__mro__):
        return
    slide: Any = sdata
    if slide.reader.name == "spatialdata":  # the slide is an image of the object itself
        return
    section = _keys.slide(Path(slide.reader.file))
    image = _keys.image(section)
    if image not in slide.images:
        from stpredict._sdata._slide_levels import slide_levels

        slide.set_exclude_elements([image, _keys.normalized(image)])
        levels = slide_levels(slide.reader)
        # LazySlide's shapes are in pixels of the full resolution, in "global"
        slide.images[image] = multiscale_image(levels, {"global": Identity()})
    _set_um(slide, section)


def _set_um(slide: Any, section: str) -> None:
    """Take the µm per pixel of the slide, unless the image has them."""
    mpp, image = slide.properties.mpp, _keys.image(section)
    element = slide.images[image]
    system = um_system(element, section)
    if mpp is None:
        return
    if system is None:
        to_um = Scale([mpp, mpp], axes=("x", "y"))
        set_transformation(element, to_um, to_coordinate_system=_keys.um(section))
        return
    registered = matrix_of(get_transformation(element, system), what=f"images[{image!r}]")[0, 0]
    if not np.isclose(registered, mpp, rtol=1e-3):
        raise ValueError(
            f"the slide has {mpp:g} µm per pixel, but images[{image!r}] was registered with "
            f"{registered:g}: open the slide again, and set them first with wsi.set_mpp"
        )
