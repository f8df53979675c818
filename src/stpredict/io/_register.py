"""Which image belongs to a section, and how large its pixels are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from spatialdata.transformations import (
    Scale,
    Sequence,
    get_transformation,
    remove_transformation,
    set_transformation,
)

from stpredict import _keys, _validate

if TYPE_CHECKING:
    from spatialdata import SpatialData


def register_um(sdata: SpatialData, section: str, *, image: str, mpp: float) -> None:
    """Say which image a section lies on, and how many µm a pixel of it is.

    Our readers do this themselves; objects from elsewhere need it once per section. An image
    without spots gets its µm per pixel so, before :func:`stpredict.pp.grid` lays some on it.

    Parameters
    ----------
    sdata
        Object with the image and, if there are any, the shapes in a common coordinate system.
    section
        Name of the shapes element; of an image on which none lie, a name for them to come, best
        that of the image without ``"_image"``.
    image
        Name of the image element.
    mpp
        µm per pixel of the full-resolution image.

    Returns
    -------
    None
        Registers the transformations of both elements, or of the image alone, to the coordinate
        system ``f"{section}_um"``.

    Raises
    ------
    KeyError
        If there is no such image, or other shapes lie on it than those of the section.
    ValueError
        If ``mpp`` is not a positive number, or image and shapes share no coordinate system, or
        several that place the shapes differently on the image.

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom()
    >>> stp.io.register_um(sdata, "S1", image="S1_image", mpp=0.5)
    """
    if image not in sdata.images:
        raise KeyError(f"no image {image!r}; images: {_validate.listing(sdata.images)}")
    if section not in sdata.shapes and not _to_come(sdata, section, image):
        raise KeyError(f"no shapes {section!r}; shapes: {_validate.listing(sdata.shapes)}")
    _validate.positive("mpp", mpp, unit="µm per pixel")
    to_image = _to_image(sdata, section, image) if section in sdata.shapes else None
    to_um = Scale([mpp, mpp], axes=("x", "y"))
    um = _keys.um(section)
    own = (image, _keys.normalized(image))  # the image and, if there is one, its normalised twin
    for name in own:
        if name in sdata.images:
            set_transformation(sdata.images[name], to_um, to_coordinate_system=um)
    if to_image is not None:
        to_shapes_um = Sequence([to_image, to_um])
        set_transformation(sdata.shapes[section], to_shapes_um, to_coordinate_system=um)
    for other, element in sdata.images.items():
        if other not in own and um in get_transformation(element, get_all=True):
            remove_transformation(element, to_coordinate_system=um)


def _to_come(sdata: SpatialData, section: str, image: str) -> bool:
    """Whether a section without shapes is one to come, rather than a slip of the pen."""
    if section == _keys.section_of(image):
        return True
    systems = set(get_transformation(sdata.images[image], get_all=True))
    others = (get_transformation(shapes, get_all=True) for shapes in sdata.shapes.values())
    return all(systems.isdisjoint(other) for other in others)


def _to_image(sdata: SpatialData, section: str, image: str) -> Sequence:
    """Transformation from the shapes to the pixels of the image, by a system they share."""
    from_shapes = get_transformation(sdata.shapes[section], get_all=True)
    from_image = get_transformation(sdata.images[image], get_all=True)
    shared = [system for system in from_shapes if system in from_image]
    if not shared:
        raise ValueError(
            f"shapes[{section!r}] and images[{image!r}] share no coordinate system: "
            f"{_validate.listing(from_shapes)} and {_validate.listing(from_image)}"
        )
    # what an earlier call registered follows from the others
    shared = [system for system in shared if system != _keys.um(section)] or shared
    paths = [Sequence([from_shapes[s], from_image[s].inverse()]) for s in shared]
    affines = [path.to_affine_matrix(("x", "y"), ("x", "y")) for path in paths]
    for system, affine in zip(shared, affines, strict=True):
        if not np.allclose(affine, affines[0], rtol=1e-3, atol=0.5):  # half a pixel
            raise ValueError(
                f"the coordinate systems {shared[0]!r} and {system!r} place shapes[{section!r}] "
                f"differently on images[{image!r}]: take the wrong one away with "
                "spatialdata.transformations.remove_transformation"
            )
    return paths[0]
