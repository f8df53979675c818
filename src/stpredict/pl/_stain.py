"""H&E before and after its stain was normalised."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dask
import matplotlib.pyplot as plt
import numpy as np

from stpredict import _validate
from stpredict._sdata import _sections
from stpredict.pl._drawing import _section

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from numpy.typing import NDArray
    from spatialdata import SpatialData


def stain(
    sdata: SpatialData,
    *,
    sections: str | Sequence[str] | None = None,
    axes: Sequence[Axes] | NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Draw sections before and after their stain was normalised, side by side.

    Only a coarse level of the images is read.

    Parameters
    ----------
    sdata
        Sections after :func:`stpredict.pp.normalize_stain`.
    sections
        Which sections, in this order; by default all.
    axes
        Axes to draw on, two rows of as many as there are sections; by default new ones.

    Returns
    -------
    Array (2, n_sections) of :class:`matplotlib.axes.Axes`: above as scanned, below normalised.
    Axes are in µm, the origin at the upper left of the image.

    Raises
    ------
    KeyError
        If there is no such section.
    ValueError
        If the stain was not normalised, or the number of axes is wrong.

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom(3, size_px=800, stain_variation=1.0)
    >>> stp.pp.normalize_stain(sdata)
    normalize_stain: 3 sections to the stain of S1, S2, S3 (macenko)
    >>> stp.pl.stain(sdata, sections=["S1", "S3"]).shape
    (2, 2)
    """
    raw = {section.name: section for section in _sections.sections(sdata)}
    normalized = {s.name: s for s in _sections.sections(sdata, normalized=True)}
    if not any(section.normalized for section in normalized.values()):
        raise ValueError(
            "the stain of no section was normalised: run stp.pp.normalize_stain(sdata) first"
        )
    names = [sections] if isinstance(sections, str) else list(sections or raw)
    absent = [name for name in names if name not in raw]
    if absent:
        raise KeyError(
            f"no section {_validate.listing(map(repr, absent))}; sections: {_validate.listing(raw)}"
        )
    drawn = _axes(axes, [raw[name] for name in names])
    for (above, below), name in zip(drawn.T, names, strict=True):
        after = "normalised" if normalized[name].normalized else "left as it is"
        above.set_title(f"{name}: as scanned")
        below.set_title(f"{name}: {after}")
        within = _section.limits(raw[name])
        crops, extents = zip(
            *(_section.crop(found[name], within) for found in (raw, normalized)), strict=True
        )
        # together: the normalised image is made of the raw one, which may be slow to decode
        for ax, pixels, extent in zip((above, below), dask.compute(*crops), extents, strict=True):
            _section.show(ax, pixels, extent)
            _section.frame(ax, within)
    return drawn


def _axes(
    axes: Sequence[Axes] | NDArray[Any] | None, found: list[_sections.Section]
) -> NDArray[Any]:
    n = len(found)
    if axes is None:
        extents = [high - low for low, high in map(_section.limits, found)]
        height = float(np.clip(max(3 * y / x for x, y in extents), 2, 6)) + 0.6
        _, made = plt.subplots(
            2, n, figsize=(3.2 * n + 0.5, 2 * height), layout="constrained", squeeze=False
        )
        return np.asarray(made)
    given = np.asarray(axes).ravel()
    if len(given) != 2 * n:
        raise ValueError(f"{2 * n} axes are needed, two for each section; {len(given)} given")
    return given.reshape(2, n)
