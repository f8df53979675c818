"""Where tissue was found, and how much of it lies under the spots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.colors import Normalize

from stpredict import _keys, _validate
from stpredict._sdata import _images, _sections, _tissue
from stpredict.pl._drawing import _section

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray
    from spatialdata import SpatialData

    from stpredict._sdata._tissue import TissueMask

#: Seen on haematoxylin, on eosin and on glass.
_OUTLINE = "#00c853"


def tissue(sdata: SpatialData, section: str | None = None, *, ax: Axes | None = None) -> Axes:
    """Draw the H&E with the outline of the tissue, and the spots by how much of them it covers.

    Parameters
    ----------
    sdata
        Object on which :func:`stpredict.pp.detect_tissue` was run.
    section
        Name of a section, or of an image; needed where there are several.
    ax
        Axes to draw on; by default new ones.

    Returns
    -------
    The :class:`matplotlib.axes.Axes`, in µm, the origin at the upper left of the image. Spots are
    coloured by ``obs["tissue_fraction"]``, or outlined where it is not known.

    Raises
    ------
    KeyError
        If there is no such section or image, or no tissue was detected in it.
    ValueError
        If there are several and none is named, or the µm per pixel of an image are not known.

    Examples
    --------
    >>> import stpredict as stp
    >>> ax = stp.pl.tissue(sdata, "C5")  # doctest: +SKIP
    """
    found, fraction = _choose(sdata, section)
    mask = _tissue.stored_tissue_mask(sdata, found.image, found.shape_yx)
    if mask is None:
        raise KeyError(
            f"there is no labels[{_keys.tissue(found.image)!r}]; labels: "
            f"{_validate.listing(sdata.labels)}: run stp.pp.detect_tissue first"
        )
    within = _section.limits(found, more=[_corners(mask) * found.mpp])
    if ax is None:
        (ax,) = _section.new_axes(1, within, width=6.0)
    _section.draw_image(ax, found, within)
    _draw_outline(ax, mask, found.mpp)
    if len(found.rows):
        _draw_spots(ax, found, fraction)
    _section.frame(ax, within)
    covered = mask.mask.mean() * np.prod(np.array(found.shape_yx) * found.mpp / 1000)
    ax.set_title(f"{found.name}: {covered:.2g} mm² of tissue")
    return ax


def _choose(
    sdata: SpatialData, name: str | None
) -> tuple[_sections.Section, NDArray[np.float64] | None]:
    """Section of that name, or on the image of that name, and the tissue under its spots."""
    _sections.require_spatialdata(sdata)
    found = _sections.sections(sdata) if _keys.TABLE in sdata.tables else []
    named = [section for section in found if name in (section.name, section.image)]
    if not named and name in sdata.images:
        return _images.without_spots(sdata, str(name), _keys.section_of(str(name))), None
    if not found:
        images = list(sdata.images)
        if name is None and len(images) == 1:
            return _images.without_spots(sdata, images[0], _keys.section_of(images[0])), None
        if name is None and images:
            raise ValueError(
                f"there are {len(images)} images, choose one: section={images[0]!r}, …"
            )
        raise KeyError(f"no section or image {name!r}; images: {_validate.listing(images)}")
    section = named[0] if len(named) == 1 else _section.choose(found, name)
    obs = sdata.tables[_keys.TABLE].obs
    if _keys.TISSUE_FRACTION not in obs:
        return section, None
    fraction = obs[_keys.TISSUE_FRACTION].to_numpy(dtype=float)[section.rows]
    return section, None if np.isnan(fraction).any() else fraction


def _corners(mask: TissueMask) -> NDArray[np.float64]:
    """Upper left and lower right corner of the tissue, in pixels of the image's finest level."""
    rows, columns = (np.flatnonzero(mask.mask.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return np.empty((0, 2))
    ends = np.array([[columns[0], rows[0]], [columns[-1] + 1, rows[-1] + 1]])
    return np.asarray(ends * np.array(mask.scale))


def _draw_outline(ax: Axes, mask: TissueMask, mpp: float) -> None:
    # a rim of glass, so that outlines are closed where tissue meets the border of the image
    value = np.pad(mask.mask, 1).astype(float)
    y, x = (
        (np.arange(size) - 0.5) * scale * mpp
        for size, scale in zip(value.shape, mask.scale[::-1], strict=True)
    )
    ax.contour(x, y, value, levels=[0.5], colors=_OUTLINE, linewidths=1.2)


def _draw_spots(ax: Axes, section: _sections.Section, fraction: NDArray[np.float64] | None) -> None:
    if fraction is None:
        _section.draw_spots(ax, section, facecolors="none", edgecolors="black", linewidths=0.6)
        return
    how: dict[str, Any] = {"cmap": "viridis", "alpha": 0.7, "linewidths": 0}
    spots = _section.draw_spots(ax, section, fraction, Normalize(0, 1), **how)
    _section.draw_bar(ax, spots, "tissue under the spot (share)")
