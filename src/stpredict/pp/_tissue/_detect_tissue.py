"""Detect tissue in images, and measure its share under every spot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from spatialdata.models import Labels2DModel
from spatialdata.transformations import Scale, Sequence, get_transformation
from tqdm.auto import tqdm

from stpredict import _keys, _validate
from stpredict._log import info
from stpredict._sdata._elements import levels_of
from stpredict._sdata._images import mpp_of, require_images
from stpredict._sdata._provenance import record
from stpredict._sdata._spot_table import copy_of, open_table, require_spatialdata
from stpredict._sdata._tissue import TissueMask
from stpredict._settings import settings
from stpredict.pp._tissue._find import METHODS, find_tissue

if TYPE_CHECKING:
    from collections import abc

    from numpy.typing import NDArray
    from spatialdata import SpatialData

    from stpredict._sdata._sections import Section
    from stpredict._sdata._spot_table import SpotTable


def detect_tissue(
    sdata: SpatialData,
    images: str | abc.Sequence[str] | None = None,
    *,
    method: Literal["otsu", "felzenszwalb", "weka"] = "otsu",
    table_name: str = "table",
    copy: bool = False,
) -> SpatialData | None:
    """Separate tissue from glass, with squidpy, and measure the share of tissue under every spot.

    Detection uses a coarse level of the image pyramid, 4 to 8 µm per pixel (about 2 million pixels
    if the µm per pixel are unknown); an image without such a level is downsampled chunk by chunk.
    Holes in the tissue up to 0.05 mm² are filled, so that pale stroma, fat and lumina count as
    tissue, and pieces below 0.1 mm² are removed (in small images, at most 0.1 % and 1 % of the
    area). An image without glass in any corner counts as tissue as a whole.

    Parameters
    ----------
    sdata
        Images, with or without spots.
    images
        Names of the images. Default: those of all sections of the table, or all images if there is
        no table.
    method
        ``"otsu"``: a threshold on brightness; takes a second. ``"felzenszwalb"``: a threshold on
        superpixels, with smoother outlines; ten times slower. ``"weka"``: a random forest on
        textures, trained on the corners of the image as glass and on what differs most from them;
        it detects the palest tissue, but takes stain spilled on the glass for tissue, and is the
        slowest.
    table_name
        Name of the table; may be missing.
    copy
        Return a changed copy instead of changing ``sdata``.

    Returns
    -------
    SpatialData | None
        Writes ``labels["<image>_tissue"]``, (y, x) int32 at the coarse resolution: 0 for glass,
        1, 2, … for the pieces of tissue. It has all coordinate systems of the image and replaces
        that of an earlier call. If there is a table, writes ``obs["tissue_fraction"]``, float in
        [0, 1], for the sections on these images (others keep theirs, or get NaN), and
        ``uns["stpredict"]["detect_tissue"]``.

    Raises
    ------
    KeyError
        If there is no such image.
    ValueError
        If an image is not 8-bit RGB or has no tissue, or the method is unknown.

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom(off_tissue=5)
    >>> stp.pp.detect_tissue(sdata)  # doctest: +ELLIPSIS
    detect_tissue: S1_image: ... % tissue
    >>> sdata.labels["S1_image_tissue"].dims
    ('y', 'x')
    """
    require_spatialdata(sdata)
    _validate.one_of("method", method, METHODS)
    sdata = copy_of(sdata) if copy else sdata
    has_table = table_name in sdata.tables or table_name != _keys.TABLE
    spots = open_table(sdata, table_name) if has_table else None
    sections = spots.sections if spots is not None else ()
    names = _image_names(sdata, images, sections)
    masks: dict[str, TissueMask] = {}
    labels: dict[str, Any] = {}
    for name in tqdm(names, desc="detect_tissue", disable=settings.verbosity == 0, leave=False):
        levels = levels_of(sdata, name)
        pieces, scale = find_tissue(levels, mpp=mpp_of(sdata, name), method=method)
        shape_yx = levels[0].shape[1], levels[0].shape[2]
        masks[name] = TissueMask(mask=pieces > 0, scale=scale, shape_yx=shape_yx)
        if not masks[name].mask.any():
            raise ValueError(
                f"images[{name!r}] has no tissue: nothing is clearly darker than its corners "
                f"(method={method!r}). Omit it with images=, or try another method"
            )
        labels[_keys.tissue(name)] = _labels(sdata.images[name], pieces, scale)
        info(f"detect_tissue: {name}: {100 * masks[name].mask.mean():.0f} % tissue")
    for key, element in labels.items():
        sdata.labels.pop(key, None)  # SpatialData warns if an element is overwritten
        sdata.labels[key] = element
    if spots is not None:
        _write_fraction(spots, masks)
        record(spots.table, "detect_tissue", images=names, method=method)
    return sdata if copy else None


def _image_names(
    sdata: SpatialData, images: str | abc.Sequence[str] | None, sections: tuple[Section, ...]
) -> list[str]:
    """Names of the images to work on, checked before anything is written."""
    if isinstance(images, str):
        names = [images]
    elif images is not None:
        names = list(images)
    else:
        names = list(dict.fromkeys(section.image for section in sections)) or list(sdata.images)
    if not names:
        raise ValueError(f"no images are named; images: {_validate.listing(sdata.images)}")
    _validate.unique_names(names, what="images")
    require_images(sdata, names)
    for name in names:
        levels_of(sdata, name)
        key = _keys.tissue(name)
        if key in sdata and key not in sdata.labels:
            raise ValueError(
                f"the name {key!r} of the labels is used by another element: rename it"
            )
    return names


def _labels(image: Any, pieces: NDArray[np.int32], scale: tuple[float, float]) -> Any:
    """Labels aligned with the image in all its coordinate systems."""
    to_image = Scale(list(scale), axes=("x", "y"))
    return Labels2DModel.parse(
        pieces,
        dims=("y", "x"),
        transformations={
            system: Sequence([to_image, transformation])
            for system, transformation in get_transformation(image, get_all=True).items()
        },
    )


def _write_fraction(spots: SpotTable, masks: dict[str, TissueMask]) -> None:
    """Write the share of tissue under the spots of the sections on some images."""
    obs = spots.table.obs
    fraction: NDArray[np.float64] = np.full(len(obs), np.nan)
    if _keys.TISSUE_FRACTION in obs:
        fraction = obs[_keys.TISSUE_FRACTION].to_numpy(dtype=float, copy=True)
    for section in spots.sections:
        if section.image in masks:
            fraction[section.rows] = masks[section.image].spot_fraction(section)
    obs[_keys.TISSUE_FRACTION] = fraction
