"""Counts -> log-normalised expression."""

from __future__ import annotations

from typing import TYPE_CHECKING

import scanpy as sc
import scipy.sparse as sp
from anndata import AnnData

from stpredict import _keys, _validate
from stpredict._sdata import _provenance, _sections

if TYPE_CHECKING:
    from spatialdata import SpatialData


def normalize(
    sdata: SpatialData, *, target_sum: float = 1e4, copy: bool = False
) -> SpatialData | None:
    """Bring every spot to the same total, then take log(1 + x).

    Parameters
    ----------
    sdata
        Sections with a table of counts.
    target_sum
        Total counts of a spot afterwards.
    copy
        Return a changed copy instead of changing ``sdata``.

    Returns
    -------
    SpatialData | None
        Writes to ``tables["table"]``: ``layers["log1p"]`` (n_obs, n_vars) float32, and
        ``uns["stpredict"]["normalize"]``. ``X`` stays as it is.

    Raises
    ------
    ValueError
        If counts are negative or NaN.

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom()
    >>> stp.pp.normalize(sdata)
    >>> "log1p" in sdata.tables["table"].layers
    True
    """
    _validate.positive("target_sum", target_sum, unit="counts per spot")
    sdata = _sections.copy_of(sdata) if copy else sdata
    table = _sections.table_of(sdata)
    _validate.counts(table.X, what="counts in X")
    counts = table.X.astype("float32", copy=True)
    # scanpy 1.11 fails on scipy's sparse arrays
    scaled = AnnData(sp.csr_matrix(counts) if sp.issparse(counts) else counts)
    sc.pp.normalize_total(scaled, target_sum=target_sum)
    sc.pp.log1p(scaled)
    table.layers[_keys.LOG1P] = scaled.X
    _provenance.record(table, "normalize", target_sum=float(target_sum))
    return sdata if copy else None
