"""What was measured where something was predicted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stpredict import _keys
from stpredict._sdata import _provenance, _sections
from stpredict.targets._counts import COUNTS_UNITS, TARGET_SUM

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray
    from spatialdata import SpatialData


def measured(
    sdata: SpatialData, predicted: AnnData, rows: NDArray[np.intp], genes: list[str]
) -> NDArray[np.float64] | None:
    """Values in the units of the predictions, (n_rows, n_genes), matched by name.

    None where a spot, a gene, or the layer is not there.
    """
    table = _sections.table_of(sdata)
    how = _provenance.recorded(predicted, "predict")
    layer = how.get("layer")  # None is X
    at = table.obs_names.get_indexer(predicted.obs_names[rows])
    columns = table.var_names.get_indexer(genes)
    if (at < 0).any() or (columns < 0).any() or (layer is not None and layer not in table.layers):
        return None
    values: Any = (table.X if layer is None else table.layers[layer])[at]
    picked = values[:, columns]
    found = np.asarray(picked.toarray() if hasattr(picked, "toarray") else picked, dtype=np.float64)
    if how.get("units") == COUNTS_UNITS:  # of a model of counts, which were measured as counts
        library = np.asarray(values.sum(axis=1), dtype=np.float64).reshape(-1, 1)
        found = found * np.divide(
            TARGET_SUM, library, out=np.zeros_like(library), where=library > 0
        )
    return found


def genes_of(sdata: SpatialData, predicted: AnnData) -> list[str]:
    """Genes that were predicted and measured, in the order of the predictions."""
    return [gene for gene in predicted.var_names if gene in sdata.tables[_keys.TABLE].var_names]
