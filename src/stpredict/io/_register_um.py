"""Set the image of a section and its µm per pixel."""

from __future__ import annotations

import numpy as np
from spatialdata import SpatialData
from spatialdata.transformations import (
    Scale,
    Sequence,
    get_transformation,
    remove_transformation,
    set_transformation,
)

from stpredict import _keys, _validate
from stpredict._arguments import checked
from stpredict._log import info
from stpredict._sdata import _elements
from stpredict._sdata._images import only_image
from stpredict.io._shared._plausible import require_plausible_mpp, warn_implausible_mpp


@checked
def register_um(sdata: SpatialData, section: str, *, image: str | None = None, mpp: float) -> None:
    """Set the image that a section lies on, and its µm per pixel.

    stpredict's readers do this themselves; objects from other sources need it once per section.
    For an image without spots, call it before :func:`stpredict.pp.grid`.

    Parameters
    ----------
    sdata
        Object with the image and, if they exist, the shapes in a common coordinate system.
    section
        Name of the shapes element; for an image without spots, of its future section, usually that
        of the image without ``"_image"``.
    image
        Name of the image element. May be left out if the object has only one.
    mpp
        µm per pixel of the image's full resolution.

    Returns
    -------
    None
        Sets the transformations of the elements to the coordinate system ``f"{section}_um"``.

    Raises
    ------
    KeyError
        If the image does not exist, or the section does not and other shapes lie on the image.
    ValueError
        If ``mpp`` is not plausible (0.05 to 20), the object has several images and none is named,
        or image and shapes share no coordinate system or several that disagree.

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom()
    >>> stp.io.register_um(sdata, "S1", mpp=0.5)
    """
    image = only_image(sdata, image)
    has_shapes = section in sdata.shapes
    if not has_shapes and section != _keys.section_of(image):
        # a name without shapes is misspelt if other shapes lie on the image
        systems = get_transformation(sdata.images[image], get_all=True).keys()
        others = (get_transformation(shapes, get_all=True) for shapes in sdata.shapes.values())
        if not all(systems.isdisjoint(other) for other in others):
            raise KeyError(f"no shapes {section!r}; shapes: {_validate.listing(sdata.shapes)}")
    require_plausible_mpp(mpp)
    to_um = Scale([mpp, mpp], axes=("x", "y"))
    um = _keys.um(section)
    if has_shapes:
        shapes_to_um = Sequence([_elements.shapes_to_image(sdata, section, image), to_um])
        set_transformation(sdata.shapes[section], shapes_to_um, to_coordinate_system=um)
    _warn_implausible(sdata, section, image, mpp)
    # a stain-normalised copy has the same pixels; any other image loses an earlier registration
    same_pixels = (image, _keys.normalized(image))
    for name, element in sdata.images.items():
        if name in same_pixels:
            set_transformation(element, to_um, to_coordinate_system=um)
        elif um in get_transformation(element, get_all=True):
            remove_transformation(element, to_coordinate_system=um)


def _warn_implausible(sdata: SpatialData, section: str, image: str, mpp: float) -> None:
    """Warn if the µm per pixel disagree with the image and, if they exist, the shapes."""
    finest = _elements.pyramid_of(sdata.images[image])[0]
    if _elements.has_alpha(finest):
        info(f"images[{image!r}] has an alpha channel, which is left out")
    pixels = finest.transpose("c", "y", "x").data
    centers = diameter_um = None
    if section in sdata.shapes:
        shapes = sdata.shapes[section]
        to_image = _elements.matrix_of(
            _elements.shapes_to_image(sdata, section, image), what=f"shapes[{section!r}]"
        )
        centroids = shapes.geometry.centroid
        points = np.column_stack([centroids.x, centroids.y, np.ones(len(shapes))])
        points = points[np.isfinite(points).all(axis=1)]
        centers = (points @ to_image.T)[:, :2]
        scale = float(np.sqrt(abs(np.linalg.det(to_image))))
        diameter_um = 2 * float(np.median(_elements.radius_of(shapes))) * scale * mpp
    warn_implausible_mpp(section, mpp, pixels, centers=centers, diameter_um=diameter_um)
