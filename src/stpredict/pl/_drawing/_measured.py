"""Measured values that belong to predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stpredict._sdata._provenance import recorded
from stpredict.targets._counts import COUNTS_UNITS, TARGET_SUM

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray


def measured_values(
    table: AnnData, predicted: AnnData, rows: NDArray[np.intp], genes: list[str]
) -> NDArray[np.float64] | None:
    """Measured values in the units of the predictions, (n_rows, n_genes), matched by name.

    None if the measured table lacks one of the spots or genes, or the layer.
    """
    record = recorded(predicted, "predict")
    layer = record.get("layer")  # None is X
    spots = table.obs_names.get_indexer(predicted.obs_names[rows])
    columns = table.var_names.get_indexer(genes)
    layer_exists = layer is None or layer in table.layers
    if (spots < 0).any() or (columns < 0).any() or not layer_exists:
        return None
    all_genes: Any = (table.X if layer is None else table.layers[layer])[spots]
    columns_of_genes = all_genes[:, columns]
    if hasattr(columns_of_genes, "toarray"):
        columns_of_genes = columns_of_genes.toarray()
    values = np.asarray(columns_of_genes, dtype=np.float64)
    if record.get("units") == COUNTS_UNITS:  # a model of counts predicts counts per 10,000
        library = np.asarray(all_genes.sum(axis=1), dtype=np.float64).reshape(-1, 1)
        values = values * np.divide(
            TARGET_SUM, library, out=np.zeros_like(library), where=library > 0
        )
    return values
