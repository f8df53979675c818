"""Elements of a SpatialData, checked: images, shapes, and the transformations between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from spatialdata.transformations import Sequence, get_transformation
from xarray import DataTree

from stpredict import _keys, _validate

if TYPE_CHECKING:
    import dask.array as da
    from geopandas import GeoDataFrame
    from numpy.typing import NDArray
    from spatialdata import SpatialData
    from spatialdata.transformations import BaseTransformation
    from xarray import DataArray

_SIMILARITY_TOLERANCE = 0.02  # one mpp does not describe shear or unequal scales beyond this


def image_name(sdata: SpatialData, section: str) -> str:
    """Find the one image that shares the section's µm coordinate system."""
    um = _keys.um(section)
    systems = set(get_transformation(sdata.shapes[section], get_all=True))
    # an image of pp.normalize_stain lies on its original, and is no other image
    twins = {_keys.normalized(image) for image in sdata.images}
    sharing = {
        image: systems & set(get_transformation(element, get_all=True))
        for image, element in sdata.images.items()
        if image not in twins
    }
    in_um = [image for image, common in sharing.items() if um in common]
    if len(in_um) == 1:
        return in_um[0]
    candidates = in_um or [image for image, common in sharing.items() if common]
    # µm per pixel that are known for another section on the image hold for this one
    scaled = [image for image in candidates if um_system(sdata.images[image], section)]
    if len(scaled) == 1:
        return scaled[0]
    register = f"stp.io.register_um(sdata, {section!r}, image=…, mpp=…)"
    if not candidates:
        raise ValueError(
            f"shapes[{section!r}] (coordinate systems {_validate.listing(sorted(systems))}) shares "
            f"no coordinate system with an image; images: {_validate.listing(sdata.images)}: "
            "spatialdata.transformations.set_transformation aligns them"
        )
    if len(candidates) > 1:
        names = _validate.listing(candidates)
        raise ValueError(
            f"several images could belong to section {section!r}: {names}: choose with {register}"
        )
    raise ValueError(
        f"the µm per pixel of images[{candidates[0]!r}] are not known (no coordinate system "
        f"{um!r}): give them with {register}"
    )


def levels_of(sdata: SpatialData, image: str) -> tuple[da.Array, ...]:
    """Pyramid of an H&E image, finest level first, each lazy (3, y, x) uint8, without alpha."""
    arrays = [array.transpose("c", "y", "x") for array in pyramid_of(sdata.images[image])]
    levels = [array.data[:3] if has_alpha(array) else array.data for array in arrays]
    n_channels, dtype = levels[0].shape[0], levels[0].dtype
    if n_channels != 3 or dtype != np.uint8:
        raise ValueError(
            f"images[{image!r}] has {n_channels} channels of {dtype}; an H&E image must have "
            "3 channels (RGB) of uint8"
        )
    return tuple(levels)


def has_alpha(array: DataArray) -> bool:
    """Whether the channels are named r, g, b and a, as by spatialdata-io."""
    return [str(name).lower() for name in array.indexes.get("c", ())] == list("rgba")


def pyramid_of(element: DataArray | DataTree) -> list[DataArray]:
    """Levels of an image or of labels, finest first."""
    if isinstance(element, DataTree):
        return [element[scale].ds["image"] for scale in element.children]
    return [element]


def select(shapes: GeoDataFrame, instances: NDArray[Any], section: str) -> GeoDataFrame:
    """Shapes of a section in the order of the table's rows."""
    if not shapes.index.is_unique:
        raise ValueError(f"the index of shapes[{section!r}] is not unique")
    _validate.unique_names(instances, what=f"spot ids of section {section!r} in the table")
    missing = [i for i in instances if i not in shapes.index]
    if missing:
        ids = _validate.listing(missing)
        raise ValueError(f"{len(missing)} spots of the table are not in shapes[{section!r}]: {ids}")
    return shapes.loc[instances]


def um_system(image: DataArray | DataTree, section: str) -> str | None:
    """Coordinate system with an image's µm: the section's, else of another section; or None."""
    systems = get_transformation(image, get_all=True)
    others = (system for system in systems if _keys.section_of_um(system) is not None)
    return _keys.um(section) if _keys.um(section) in systems else next(others, None)


def affines_to_um(
    sdata: SpatialData, section: str, image: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Affines (3, 3) from the image, and from the shapes of a section on it, to µm."""
    image_systems = get_transformation(sdata.images[image], get_all=True)
    system = str(um_system(sdata.images[image], section))
    image_to_um = matrix_of(image_systems[system], what=f"images[{image!r}]")
    shapes_systems = get_transformation(sdata.shapes[section], get_all=True)
    what = f"shapes[{section!r}]"
    if system in shapes_systems:
        return image_to_um, matrix_of(shapes_systems[system], what=what)
    to_image = matrix_of(shapes_to_image(sdata, section, image), what=what)
    return image_to_um, image_to_um @ to_image


def centers_px(
    sdata: SpatialData, name: str, image: str, shapes: GeoDataFrame
) -> NDArray[np.float64]:
    """Centres (n, 2) of selected shapes of an element, in pixels of the image's finest level."""
    image_to_um, shapes_to_um = affines_to_um(sdata, name, image)
    centroids = shapes.geometry.centroid
    points = np.column_stack([centroids.x, centroids.y, np.ones(len(shapes))])
    return np.ascontiguousarray((points @ (np.linalg.inv(image_to_um) @ shapes_to_um).T)[:, :2])


def shapes_to_image(sdata: SpatialData, section: str, image: str) -> Sequence:
    """Transformation from the shapes to the pixels of the image, by a shared system."""
    from_shapes = get_transformation(sdata.shapes[section], get_all=True)
    from_image = get_transformation(sdata.images[image], get_all=True)
    shared = [system for system in from_shapes if system in from_image]
    if not shared:
        raise ValueError(
            f"shapes[{section!r}] and images[{image!r}] share no coordinate system: "
            f"{_validate.listing(from_shapes)} and {_validate.listing(from_image)}"
        )
    # the µm system of an earlier call was derived from the others
    shared = [system for system in shared if system != _keys.um(section)] or shared
    paths = [Sequence([from_shapes[s], from_image[s].inverse()]) for s in shared]
    affines = [path.to_affine_matrix(("x", "y"), ("x", "y")) for path in paths]
    for system, affine in zip(shared, affines, strict=True):
        if not np.allclose(affine, affines[0], rtol=1e-3, atol=0.5):  # half a pixel
            raise ValueError(
                f"the coordinate systems {shared[0]!r} and {system!r} place shapes[{section!r}] "
                f"differently on images[{image!r}]. Remove the wrong one (remove_transformation)"
            )
    return paths[0]


def affine_to_um(element: Any, section: str, *, what: str) -> NDArray[np.float64]:
    """Affine (3, 3) from an element's x and y to the section's µm."""
    to_um = get_transformation(element, to_coordinate_system=_keys.um(section))
    return matrix_of(to_um, what=what)


def matrix_of(transformation: BaseTransformation, *, what: str) -> NDArray[np.float64]:
    """Affine (3, 3) of a transformation of x and y."""
    matrix = np.asarray(transformation.to_affine_matrix(("x", "y"), ("x", "y")), dtype=float)
    if not np.isfinite(matrix).all():
        raise ValueError(
            f"the transformation of {what} has values that are NaN or infinite: set it again with "
            "spatialdata.transformations.set_transformation"
        )
    return matrix


def scale_of(affine: NDArray[np.float64], *, what: str) -> float:
    """Scale of a similarity transformation."""
    stretch = np.linalg.svd(affine[:2, :2], compute_uv=False)
    if not stretch[1] > 0 or stretch[0] / stretch[1] > 1 + _SIMILARITY_TOLERANCE:
        raise ValueError(
            f"the transformation of {what} to µm stretches its axes by {stretch[0]:.4g} and "
            f"{stretch[1]:.4g}; it must scale both alike"
        )
    return float(np.sqrt(stretch[0] * stretch[1]))


def outlines_px(
    sdata: SpatialData, section: str, image: str, instances: NDArray[Any]
) -> NDArray[np.object_]:
    """Outlines of spots as polygons, in pixels of the image's finest level."""
    shapes = select(sdata.shapes[section], instances, section)
    image_to_um, shapes_to_um = affines_to_um(sdata, section, image)
    (a, b, x), (d, e, y), _ = np.linalg.inv(image_to_um) @ shapes_to_um
    geometry = shapes.geometry
    if "radius" in shapes.columns:  # circles become polygons of 32 corners
        geometry = geometry.buffer(radius_of(shapes), quad_segs=8)
    return np.asarray(geometry.affine_transform([a, b, d, e, x, y]).to_numpy())


def radius_of(shapes: GeoDataFrame) -> NDArray[np.float64]:
    """Radius of each shape; of a polygon, that of the circle of equal area."""
    if "radius" in shapes.columns:
        radius = shapes["radius"].to_numpy(dtype=float)
        invalid = ~(np.isfinite(radius) & (radius > 0))
        if invalid.any():
            names = _validate.listing(shapes.index[invalid])
            raise ValueError(f"{invalid.sum()} circles have no radius above 0: {names}")
        return radius
    return np.sqrt(shapes.geometry.area.to_numpy() / np.pi)
