"""Tissue in images -> labels, and the share of it under every spot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from spatialdata.models import Labels2DModel
from spatialdata.transformations import Scale, Sequence, get_transformation
from tqdm.auto import tqdm

from stpredict import _keys, _validate
from stpredict._log import tell
from stpredict._sdata import _elements, _images, _provenance, _sections
from stpredict._sdata._tissue import Tissue
from stpredict._settings import settings
from stpredict.pp._tissue._find import METHODS, find_tissue

if TYPE_CHECKING:
    from collections import abc

    from numpy.typing import NDArray
    from spatialdata import SpatialData


def detect_tissue(
    sdata: SpatialData,
    images: str | abc.Sequence[str] | None = None,
    *,
    method: Literal["otsu", "felzenszwalb", "weka"] = "otsu",
    copy: bool = False,
) -> SpatialData | None:
    """Tell tissue from glass, with squidpy, and measure how much of every spot lies on tissue.

    Works at a coarse level of the image's pyramid, 4 to 8 µm per pixel (about 2 million pixels
    where the µm per pixel are not known); an image without such a level is brought down chunk by
    chunk. Holes in the tissue up to 0.05 mm² are filled, so that pale stroma, fat and lumina count
    as tissue, and pieces below 0.1 mm² are left out (of small images, at most 0.1 % and 1 %). An
    image of which no corner is glass is taken for tissue as a whole.

    Parameters
    ----------
    sdata
        Images, with or without spots.
    images
        Names of the images; by default those of all sections of the table, or all images where
        there is no table.
    method
        ``"otsu"``: a threshold on brightness; takes a second. ``"felzenszwalb"``: a threshold on
        superpixels, with smoother outlines; ten times slower. ``"weka"``: a random forest on
        textures, trained on the corners of the image as glass and on what is least like them;
        finds the palest tissue, but takes stain spilled on the glass for tissue, and is slowest.
    copy
        Return a changed copy instead of changing ``sdata``.

    Returns
    -------
    SpatialData | None
        Writes ``labels["<image>_tissue"]``, (y, x) int32 at the coarse resolution: 0 for glass,
        1, 2, … for the pieces of tissue; it lies on the image in every coordinate system of the
        image, and replaces that of an earlier call. Where there is a table: writes
        ``obs["tissue_fraction"]``, float in [0, 1], for the sections on these images (others keep
        theirs, or get NaN), and ``uns["stpredict"]["detect_tissue"]``.

    Raises
    ------
    KeyError
        If there is no such image.
    ValueError
        If an image is not 8-bit RGB or has no tissue, or there is no such method.

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom(off_tissue=5)
    >>> stp.pp.detect_tissue(sdata)  # doctest: +ELLIPSIS
    detect_tissue: S1_image: ... % tissue
    >>> sdata.labels["S1_image_tissue"].dims
    ('y', 'x')
    """
    sdata = _sections.copy_of(sdata) if copy else sdata
    _sections.require_spatialdata(sdata)
    _validate.one_of("method", method, METHODS)
    annotated = _sections.sections(sdata) if _keys.TABLE in sdata.tables else []
    names = _choose(sdata, images, annotated)
    _check(sdata, names)

    labels: dict[str, Any] = {}
    fraction: dict[str, NDArray[np.float64]] = {}
    for name in tqdm(names, desc="detect_tissue", disable=settings.verbosity == 0, leave=False):
        levels = _elements.levels_of(sdata, name)
        pieces, scale = find_tissue(levels, mpp=_images.mpp_of(sdata, name), method=method)
        shape_yx = levels[0].shape[1], levels[0].shape[2]
        found = Tissue(mask=pieces > 0, scale=scale, shape_yx=shape_yx)
        if not found.mask.any():
            raise ValueError(
                f"there is no tissue in images[{name!r}]: nothing in it is clearly darker than its "
                f"corners (method={method!r}). Leave it out with images=, or try another method"
            )
        labels[name] = _labels(sdata.images[name], pieces, scale)
        for section in annotated:
            if section.image == name:
                fraction[section.name] = found.under(section)
        tell(f"detect_tissue: {name}: {found.mask.mean():.0%} tissue".replace("%", " %"))

    for name, element in labels.items():
        key = _keys.tissue(name)
        if key in sdata.labels:
            del sdata.labels[key]
        sdata.labels[key] = element
    if annotated:
        _write(sdata, annotated, fraction)
        _provenance.record(
            sdata.tables[_keys.TABLE], "detect_tissue", images=list(names), method=method
        )
    return sdata if copy else None


def _choose(
    sdata: SpatialData,
    images: str | abc.Sequence[str] | None,
    annotated: list[_sections.Section],
) -> list[str]:
    if isinstance(images, str):
        return [images]
    if images is not None:
        names = list(images)
    else:
        names = list(dict.fromkeys(section.image for section in annotated)) or list(sdata.images)
    if not names:
        raise ValueError(f"no images are named; images: {_validate.listing(sdata.images)}")
    _validate.unique_names(names, what="images")
    return names


def _check(sdata: SpatialData, names: list[str]) -> None:
    _images.require_images(sdata, names)
    for name in names:
        _elements.levels_of(sdata, name)
        key = _keys.tissue(name)
        if key in sdata and key not in sdata.labels:
            raise ValueError(
                f"the labels would be called {key!r}, but another element is: rename it"
            )


def _labels(image: Any, pieces: NDArray[np.int32], scale: tuple[float, float]) -> Any:
    """Labels that lie on the image in all its coordinate systems."""
    to_image = Scale(list(scale), axes=("x", "y"))
    return Labels2DModel.parse(
        pieces,
        dims=("y", "x"),
        transformations={
            system: Sequence([to_image, onwards])
            for system, onwards in get_transformation(image, get_all=True).items()
        },
    )


def _write(
    sdata: SpatialData, annotated: list[_sections.Section], fraction: dict[str, NDArray[np.float64]]
) -> None:
    obs = sdata.tables[_keys.TABLE].obs
    known = np.full(len(obs), np.nan)
    if _keys.TISSUE_FRACTION in obs:
        known = obs[_keys.TISSUE_FRACTION].to_numpy(dtype=float, copy=True)
    for section in annotated:
        if section.name in fraction:
            known[section.rows] = fraction[section.name]
    obs[_keys.TISSUE_FRACTION] = known
