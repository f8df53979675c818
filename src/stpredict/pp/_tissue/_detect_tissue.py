"""Detect tissue in images, and measure its share under every spot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from spatialdata.models import Labels2DModel
from spatialdata.transformations import Scale, Sequence, get_transformation

from stpredict import _keys, _validate
from stpredict._arguments import checked
from stpredict._log import info, progress_bar
from stpredict._sdata._elements import levels_of
from stpredict._sdata._images import require_images
from stpredict._sdata._provenance import record
from stpredict._sdata._spot_table import copy_of, open_table
from stpredict._sdata._wsi import attach_slide
from stpredict.pp._tissue._find import detect_mask

if TYPE_CHECKING:
    from collections import abc

    from spatialdata import SpatialData

    from stpredict._sdata._sections import Section
    from stpredict._sdata._tissue import TissueMask


@checked
def detect_tissue(
    sdata: SpatialData,
    images: str | abc.Sequence[str] | None = None,
    *,
    method: Literal["otsu", "felzenszwalb", "weka"] = "otsu",
    table_name: str = "table",
    copy: bool = False,
) -> SpatialData | None:
    """Separate tissue from glass, with squidpy, and measure the share of tissue under every spot.

    Detection works at 4 to 8 µm per pixel (about 2 million pixels if the µm per pixel are unknown).
    Holes up to 0.05 mm² are filled, so that pale stroma, fat and lumina count as tissue, and pieces
    below 0.1 mm² are removed (in small images, at most 0.1 % and 1 % of the area). An image without
    glass in any corner counts as tissue as a whole.

    Parameters
    ----------
    sdata
        Images, with or without spots.
    images
        Names of the images; by default those of the table's sections, or all without a table.
    method
        Threshold on brightness (``"otsu"``) or superpixels (``"felzenszwalb"``: smoother, slower),
        or random forest on textures (``"weka"``: finds the palest tissue and spilled stain).
    table_name, copy
        Name of the table, which may be missing, and whether to change and return a copy.

    Returns
    -------
    SpatialData | None
        Writes ``labels["<image>_tissue"]``, (y, x) int32 at the coarse resolution, in all
        coordinate systems of the image: 0 for glass, 1, 2, … for the pieces of tissue. If there is
        a table, writes ``obs["tissue_fraction"]``, float in [0, 1], for the sections on these
        images, and ``uns["stpredict"]["detect_tissue"]``.

    Raises
    ------
    KeyError
        If there is no such image.
    ValueError
        If an image is not 8-bit RGB or has no tissue.

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom(off_tissue=5)
    >>> stp.pp.detect_tissue(sdata)
    >>> sdata.labels["S1_image_tissue"].dims
    ('y', 'x')
    """
    attach_slide(sdata)
    sdata = copy_of(sdata) if copy else sdata
    has_table = table_name in sdata.tables or table_name != _keys.TABLE
    spots = open_table(sdata, table_name) if has_table else None
    sections = spots.sections if spots is not None else ()
    names = _image_names(sdata, images, sections)
    masks: dict[str, TissueMask] = {}
    labels: dict[str, Any] = {}
    for name in progress_bar(names, description="detect_tissue", leave=False):
        masks[name], pieces = detect_mask(sdata, name, method=method)
        if not masks[name].mask.any():
            raise ValueError(
                f"images[{name!r}] has no tissue: nothing is clearly darker than its corners "
                f"(method={method!r}). Omit it with images=, or try another method"
            )
        # the labels have all coordinate systems of the image
        to_image = Scale(list(masks[name].scale), axes=("x", "y"))
        systems = get_transformation(sdata.images[name], get_all=True)
        systems = {system: Sequence([to_image, path]) for system, path in systems.items()}
        labels[_keys.tissue(name)] = Labels2DModel.parse(
            pieces, dims=("y", "x"), transformations=systems
        )
        info(f"detect_tissue: {name}: {100 * masks[name].mask.mean():.0f} % tissue")
    for key, element in labels.items():
        sdata.labels.pop(key, None)  # SpatialData warns if an element is overwritten
        sdata.labels[key] = element
    if spots is not None:
        obs = spots.table.obs
        # sections on other images keep their fraction, or get NaN
        fraction = np.full(len(obs), obs.get(_keys.TISSUE_FRACTION, np.nan), dtype=float)
        for section in sections:
            if section.image in masks:
                fraction[section.rows] = masks[section.image].spot_fraction(section)
        obs[_keys.TISSUE_FRACTION] = fraction
        record(spots.table, "detect_tissue", images=names, method=method)
    return sdata if copy else None


def _image_names(
    sdata: SpatialData, images: str | abc.Sequence[str] | None, sections: tuple[Section, ...]
) -> list[str]:
    """Names of the images to work on, checked before anything is written."""
    if images is None:
        names = list(dict.fromkeys(section.image for section in sections) or sdata.images)
    else:
        names = [images] if isinstance(images, str) else list(images)
    if not names:
        raise ValueError(f"no images are named; images: {_validate.listing(sdata.images)}")
    _validate.unique_names(names, what="images")
    require_images(sdata, names)
    for name in names:
        levels_of(sdata, name)
        key = _keys.tissue(name)
        if key in sdata and key not in sdata.labels:
            raise ValueError(f"the name {key!r} of the labels is used by another element")
    return names
