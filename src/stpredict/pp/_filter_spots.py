"""Spots that cannot be trained on or predicted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stpredict import _keys, _validate
from stpredict._log import tell
from stpredict._sdata import _provenance, _sections
from stpredict.pp._tissue._find import tissue

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from spatialdata import SpatialData

    from stpredict._sdata._tissue import Tissue


def filter_spots(
    sdata: SpatialData,
    *,
    min_counts: int = 100,
    min_tissue_fraction: float = 0.1,
    copy: bool = False,
) -> SpatialData | None:
    """Remove spots without a position in the image, with too few counts, or off the tissue.

    Says how many went for each reason; a spot is counted under the first that applies.

    Parameters
    ----------
    sdata
        Sections with images, shapes and a table of counts.
    min_counts
        Least total counts of a spot.
    min_tissue_fraction
        Least share of a spot's area that is tissue: as ``obs["tissue_fraction"]`` says where it
        is there already, else as ``labels["<image>_tissue"]`` shows, else as
        :func:`stpredict.pp.detect_tissue` finds it, whose labels are not stored.
    copy
        Return a changed copy instead of changing ``sdata``.

    Returns
    -------
    SpatialData | None
        Removes rows of ``tables["table"]`` and the shapes they annotate; writes
        ``obs["tissue_fraction"]``, ``obs["total_counts"]`` and
        ``uns["stpredict"]["filter_spots"]``.

    Raises
    ------
    ValueError
        If counts are negative or NaN, or a section would be left without spots.

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom(off_tissue=5)
    >>> stp.pp.filter_spots(sdata)  # doctest: +ELLIPSIS
    filter_spots: ... of ... spots kept; ...
    """
    if not 0 <= min_tissue_fraction <= 1:
        raise ValueError(f"min_tissue_fraction must lie between 0 and 1: {min_tissue_fraction!r}")
    sdata = _sections.copy_of(sdata) if copy else sdata
    table = _sections.table_of(sdata)
    _validate.counts(table.X, what="counts in X")
    found = _sections.sections(sdata)

    total = np.asarray(table.X.sum(axis=1)).ravel()
    placed = np.zeros(table.n_obs, dtype=bool)
    for section in found:
        placed[section.rows] = _inside(section)
    fraction = _tissue_fraction(sdata, found)

    enough = total >= min_counts
    on_tissue = fraction >= min_tissue_fraction
    keep = placed & enough & on_tissue
    for section in found:
        if not keep[section.rows].any():
            raise ValueError(
                f"no spot of section {section.name!r} would be left: of {len(section.rows)}, "
                f"{int(placed[section.rows].sum())} lie in the image, "
                f"{int(enough[section.rows].sum())} have at least {min_counts} counts and "
                f"{int(on_tissue[section.rows].sum())} lie on tissue (min_tissue_fraction="
                f"{min_tissue_fraction:g})"
            )
    table.obs["total_counts"] = total
    table.obs[_keys.TISSUE_FRACTION] = fraction
    _drop(sdata, found, keep)
    removed = {
        "outside_image": int((~placed).sum()),
        "too_few_counts": int((placed & ~enough).sum()),
        "off_tissue": int((placed & enough & ~on_tissue).sum()),
    }
    _provenance.record(
        sdata.tables[_keys.TABLE],
        "filter_spots",
        min_counts=min_counts,
        min_tissue_fraction=min_tissue_fraction,
        removed=removed,
    )
    tell(
        f"filter_spots: {int(keep.sum())} of {len(keep)} spots kept; removed: "
        f"{removed['outside_image']} without a position in the image, "
        f"{removed['too_few_counts']} with fewer than {min_counts} counts, "
        f"{removed['off_tissue']} off the tissue"
    )
    return sdata if copy else None


def _tissue_fraction(sdata: SpatialData, found: list[_sections.Section]) -> NDArray[np.float64]:
    """Share of every spot that is tissue: as ``obs`` says, else as the images show."""
    obs = sdata.tables[_keys.TABLE].obs
    fraction = np.full(len(obs), np.nan)
    if _keys.TISSUE_FRACTION in obs:
        fraction = obs[_keys.TISSUE_FRACTION].to_numpy(dtype=float, copy=True)
    seen: dict[str, Tissue] = {}
    for section in found:
        unknown = np.isnan(fraction[section.rows])
        if unknown.any():
            if section.image not in seen:
                seen[section.image] = tissue(sdata, section.image)
            fraction[section.rows[unknown]] = seen[section.image].under(section)[unknown]
    return fraction


def _inside(section: _sections.Section) -> NDArray[np.bool_]:
    height, width = section.shape_yx
    centers = section.centers
    inside = (centers >= 0) & (centers <= (width, height))  # NaN: False
    return np.asarray(inside.all(axis=1))


def _drop(sdata: SpatialData, found: list[_sections.Section], keep: NDArray[np.bool_]) -> None:
    """Remove rows, and the shapes they annotate, from an object that was checked."""
    table = sdata.tables[_keys.TABLE]
    instances = table.obs[_sections.instance_key(table)].to_numpy()
    for section in found:
        gone = instances[section.rows[~keep[section.rows]]]
        if len(gone):
            sdata.shapes[section.name] = sdata.shapes[section.name].drop(index=gone)
    if not keep.all():
        sdata.tables[_keys.TABLE] = table[keep].copy()
