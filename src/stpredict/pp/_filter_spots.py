"""Remove spots that cannot be trained on or predicted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from spatialdata.models import get_table_keys

from stpredict import _keys, _validate
from stpredict._log import info
from stpredict._sdata._provenance import record
from stpredict._sdata._spot_table import SpotTable, open_table
from stpredict.pp._tissue._find import tissue_mask

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from spatialdata import SpatialData

    from stpredict._sdata._tissue import TissueMask


def filter_spots(
    sdata: SpatialData,
    *,
    min_counts: int = 100,
    min_tissue_fraction: float = 0.1,
    table_name: str = "table",
    copy: bool = False,
) -> SpatialData | None:
    """Remove spots without a position in the image, with too few counts, or off the tissue.

    The number of spots removed for each reason, the first that applies, is logged.

    Parameters
    ----------
    sdata
        Sections with images, shapes and a table of counts.
    min_counts
        Minimum total counts of a spot.
    min_tissue_fraction
        Minimum share of a spot's area that is tissue, from ``obs["tissue_fraction"]``, else from
        ``labels["<image>_tissue"]``, else detected as :func:`stpredict.pp.detect_tissue` does.
    table_name, copy
        Name of the table, and whether to change and return a copy.

    Returns
    -------
    SpatialData | None
        Removes rows and the shapes they annotate; writes ``obs["tissue_fraction"]``,
        ``obs["total_counts"]`` and ``uns["stpredict"]["filter_spots"]``.

    Raises
    ------
    ValueError
        If counts are negative or NaN, or a section would keep no spots.

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom(off_tissue=5)
    >>> stp.pp.filter_spots(sdata)  # doctest: +ELLIPSIS
    """
    _validate.share("min_tissue_fraction", min_tissue_fraction)
    spots = open_table(sdata, table_name, copy=copy)
    table = spots.table
    _validate.counts(table.X, what="counts in X")
    total = np.asarray(table.X.sum(axis=1)).ravel()
    inside = np.zeros(table.n_obs, dtype=bool)
    for section in spots.sections:
        height, width = section.shape_yx
        within = (section.centers >= 0) & (section.centers <= (width, height))  # NaN: False
        inside[section.rows] = within.all(axis=1)
    fraction = _tissue_fraction(spots)
    enough = total >= min_counts
    on_tissue = fraction >= min_tissue_fraction
    keep = inside & enough & on_tissue
    # checked for all sections before anything is removed
    for section in spots.sections:
        if not keep[section.rows].any():
            n_spots = [int(passed[section.rows].sum()) for passed in (inside, enough, on_tissue)]
            raise ValueError(
                f"no spot of section {section.name!r} would be left: of {len(section.rows)}, "
                f"{n_spots[0]} lie in the image, {n_spots[1]} have at least {min_counts} counts "
                f"and {n_spots[2]} lie on tissue (min_tissue_fraction={min_tissue_fraction:g})"
            )
    table.obs["total_counts"] = total
    table.obs[_keys.TISSUE_FRACTION] = fraction
    removed = {
        "outside_image": int((~inside).sum()),
        "too_few_counts": int((inside & ~enough).sum()),
        "off_tissue": int((inside & enough & ~on_tissue).sum()),
    }
    thresholds = {"min_counts": min_counts, "min_tissue_fraction": min_tissue_fraction}
    record(table, "filter_spots", **thresholds, removed=removed)
    _remove_spots(spots, keep)
    info(
        f"filter_spots: {int(keep.sum())} of {len(keep)} spots kept; removed: "
        f"{removed['outside_image']} without a position in the image, "
        f"{removed['too_few_counts']} with fewer than {min_counts} counts, "
        f"{removed['off_tissue']} off the tissue"
    )
    return spots.sdata if copy else None


def _tissue_fraction(spots: SpotTable) -> NDArray[np.float64]:
    """Share of every spot that is tissue: from ``obs`` where it is known, else from the images."""
    obs = spots.table.obs
    fraction = np.full(len(obs), obs.get(_keys.TISSUE_FRACTION, np.nan), dtype=float)
    masks: dict[str, TissueMask] = {}  # several sections may share an image
    for section in spots.sections:
        unknown = np.isnan(fraction[section.rows])
        if unknown.any():
            if section.image not in masks:
                masks[section.image] = tissue_mask(spots.sdata, section.image)
            measured = masks[section.image].spot_fraction(section)
            fraction[section.rows[unknown]] = measured[unknown]
    return fraction


def _remove_spots(spots: SpotTable, keep: NDArray[np.bool_]) -> None:
    """Remove rows and the shapes they annotate, after all checks have passed."""
    instances = spots.table.obs[get_table_keys(spots.table)[2]].to_numpy()
    for section in spots.sections:
        removed = instances[section.rows[~keep[section.rows]]]
        if len(removed):
            shapes = spots.sdata.shapes[section.name]
            spots.sdata.shapes[section.name] = shapes.drop(index=removed)
    if not keep.all():
        spots.sdata.tables[spots.name] = spots.table[keep].copy()
