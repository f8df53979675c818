"""Normalise counts to log1p expression."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
from anndata import AnnData

from stpredict import _keys, _validate
from stpredict._arguments import checked
from stpredict._log import info
from stpredict._sdata._layer_steps import forget_layer_steps
from stpredict._sdata._provenance import record_step
from stpredict._sdata._slots import check_slot, write_slot
from stpredict._sdata._spot_table import SpotTable, open_table
from stpredict._sdata._steps import NormalizeStep

if TYPE_CHECKING:
    from spatialdata import SpatialData

#: Range in which the logarithm of the scaled counts keeps its precision in float32.
_LEAST_SUM, _LARGEST_SUM = 1e-6, 1e12


@checked
def normalize(
    sdata: SpatialData,
    *,
    target_sum: float = 1e4,
    table_name: str = "table",
    key_added: str = "log1p",
    copy: bool = False,
) -> SpatialData | None:
    """Scale every spot to the same total count, then take log(1 + x).

    Parameters
    ----------
    sdata, target_sum
        Sections with a table of counts, and the total count per spot after scaling.
    table_name, key_added, copy
        Names of the table and of the new layer (only ``"log1p"`` is recorded as a step that
        :func:`stpredict.pp.prepare` repeats); and whether to change and return a copy.

    Returns
    -------
    SpatialData | None
        Writes to ``tables[table_name]``: ``layers[key_added]`` (n_obs, n_vars) float32, and
        ``uns["stpredict"]["normalize"]``. ``X`` is not changed.

    Raises
    ------
    ValueError
        If counts are negative or NaN, ``target_sum`` is out of range, or ``key_added`` is invalid
        or the name of your own layer.

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom()
    >>> stp.pp.normalize(sdata)
    >>> "log1p" in sdata.tables["table"].layers
    True
    """
    _validate.positive("target_sum", target_sum, unit="counts per spot")
    if not _LEAST_SUM <= target_sum <= _LARGEST_SUM:
        raise ValueError(
            f"target_sum={target_sum:g} must lie between {_LEAST_SUM:g} and {_LARGEST_SUM:g}, so "
            "that float32 can hold the result"
        )
    spots = open_table(sdata, table_name, copy=copy)
    check_slot(spots.table, "layers", key_added)
    normalize_counts(spots, NormalizeStep(target_sum=float(target_sum)), key_added=key_added)
    return spots.sdata if copy else None


def normalize_counts(
    spots: SpotTable, step: NormalizeStep, *, key_added: str = _keys.LOG1P
) -> None:
    """Write the normalised layer of an opened table."""
    import scanpy as sc

    table = spots.table
    # a copy, because scanpy scales in place
    counts = spots.counts.astype("float32", copy=True)
    # scanpy 1.11 fails on scipy's sparse arrays
    scaled = AnnData(sp.csr_matrix(counts) if sp.issparse(counts) else counts)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Some cells have zero counts")  # logged below
        sc.pp.normalize_total(scaled, target_sum=step.target_sum)
    sc.pp.log1p(scaled)
    n_empty = int(np.count_nonzero(np.asarray(counts.sum(axis=1)) == 0))
    if n_empty:
        info(f"normalize: {n_empty} spots have no counts, and keep 0 (stp.pp.filter_spots)")
    write_slot(table, "layers", key_added, scaled.X)
    # there is one record, which describes the layer that models read
    if key_added == _keys.LOG1P:
        record_step(table, step)
    else:
        forget_layer_steps(table, key_added)
