"""Remove spots that cannot be trained on or predicted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from spatialdata.models import TableModel, get_table_keys

from stpredict import _keys, _validate
from stpredict._arguments import checked
from stpredict._log import info
from stpredict._sdata._provenance import record
from stpredict._sdata._sections import default_min_counts
from stpredict._sdata._spot_table import SpotTable, open_table
from stpredict.pp._tissue._find import tissue_mask

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from spatialdata import SpatialData

    from stpredict._sdata._tissue import TissueMask


@checked
def filter_spots(
    sdata: SpatialData,
    *,
    min_counts: float | None = None,
    min_tissue_fraction: float = 0.1,
    table_name: str = "table",
    copy: bool = False,
) -> SpatialData | None:
    """Remove spots without a position in the image, with too few counts, or off the tissue.

    Other tables of the same spots, such as predictions, lose the same rows. The number of spots
    removed for each reason, the first that applies, is logged.

    Parameters
    ----------
    sdata
        Sections with images, shapes and a table of counts.
    min_counts
        Minimum total counts of a spot. By default 100, or 10 for cells and bins: rows whose median
        diameter is less than 20 µm. 10 is usual for Xenium.
    min_tissue_fraction
        Minimum share of a spot's area that is tissue, from ``obs["tissue_fraction"]``, else from
        ``labels["<image>_tissue"]``, else detected as :func:`stpredict.pp.detect_tissue` does.
    table_name, copy
        Name of the table, and whether to change and return a copy.

    Returns
    -------
    SpatialData | None
        Removes rows of all tables and the shapes they annotate; writes to ``tables[table_name]``
        ``obs["tissue_fraction"]``, ``obs["total_counts"]`` and
        ``uns["stpredict"]["filter_spots"]``.

    Raises
    ------
    ValueError
        If counts are negative or NaN, a threshold is out of range, or a section would keep no
        spots.

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom(off_tissue=5)
    >>> stp.pp.filter_spots(sdata)
    """
    _validate.share("min_tissue_fraction", min_tissue_fraction)
    if min_counts is not None:
        _validate.not_negative("min_counts", min_counts)
    spots = open_table(sdata, table_name, copy=copy)
    least = default_min_counts(spots.sections) if min_counts is None else min_counts
    total = np.asarray(spots.counts.sum(axis=1), dtype=np.float64).ravel()
    inside = np.zeros(spots.table.n_obs, dtype=bool)
    for section in spots.sections:
        inside[section.rows] = _validate.is_inside(section.centers, section.shape_yx)
    fraction = _tissue_fraction(spots)
    enough = total >= least
    on_tissue = fraction >= min_tissue_fraction
    keep = inside & enough & on_tissue
    # checked for all sections before anything is removed
    for section in spots.sections:
        if not keep[section.rows].any():
            n_spots = [int(passed[section.rows].sum()) for passed in (inside, enough, on_tissue)]
            raise ValueError(
                f"no spot of section {section.name!r} would be left: of {len(section.rows)}, "
                f"{n_spots[0]} lie in the image, {n_spots[1]} have at least min_counts={least:g} "
                f"and {n_spots[2]} lie on tissue (min_tissue_fraction={min_tissue_fraction:g})"
            )
    removed = {
        "outside_image": int((~inside).sum()),
        "too_few_counts": int((inside & ~enough).sum()),
        "off_tissue": int((inside & enough & ~on_tissue).sum()),
    }
    _remove_spots(spots, keep)
    table = spots.sdata.tables[table_name]
    table.obs["total_counts"] = total[keep]
    table.obs[_keys.TISSUE_FRACTION] = fraction[keep]
    thresholds = {"min_counts": least, "min_tissue_fraction": min_tissue_fraction}
    record(table, "filter_spots", **thresholds, removed=removed)
    info(
        f"filter_spots: {int(keep.sum())} of {len(keep)} spots kept; removed: "
        f"{removed['outside_image']} without a position in the image, "
        f"{removed['too_few_counts']} with fewer than {least:g} counts, "
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
    """Remove rows of all tables, and their shapes; everything is computed before it is written."""
    if keep.all():
        return
    instances = spots.table.obs[get_table_keys(spots.table)[2]].to_numpy()
    removed = {
        section.name: pd.Index(instances[section.rows[~keep[section.rows]]])
        for section in spots.sections
    }
    shapes = {
        name: spots.sdata.shapes[name].drop(index=names)
        for name, names in removed.items()
        if len(names)
    }
    tables, emptied = {spots.name: spots.rows(keep)}, []
    for name, table in spots.sdata.tables.items():
        if name == spots.name or TableModel.ATTRS_KEY not in table.uns:
            continue
        other = SpotTable(spots.sdata, name, table)
        is_removed = np.zeros(table.n_obs, dtype=bool)
        other_instances = table.obs[get_table_keys(table)[2]]
        for section, rows in other.section_rows.items():
            is_removed[rows] = other_instances.iloc[rows].isin(removed.get(section, ()))
        if is_removed.all():
            emptied.append(name)
        elif is_removed.any():
            tables[name] = other.rows(~is_removed)
    for name, each in {**shapes, **tables}.items():
        spots.sdata[name] = each
    for name in emptied:
        del spots.sdata.tables[name]
    others = [repr(name) for name in (*tables, *emptied) if name != spots.name]
    if others:
        info(f"filter_spots: the same spots are removed from tables {_validate.listing(others)}")
