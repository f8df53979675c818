"""What was measured of a fitted model's genes, in the units that it predicts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from stpredict import _sections, _validate
from stpredict.targets._counts import Counts
from stpredict.tl._task import Values, library_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from numpy.typing import NDArray

    from stpredict.models import Model


def values_of_genes(table: AnnData, model: Model) -> Values:
    """What was measured of the genes that a model predicts."""
    return _read(table, model, model.genes, np.arange(len(model.genes)))


def values_of_targets(table: AnnData, model: Model) -> Values:
    """What was measured of the genes that a model's targets are made of: of factors, all."""
    if model.targets.outputs is None:
        return _read(table, model, model.genes, model.targets.columns)
    if "target_genes" not in model.training:
        raise ValueError(
            "the model does not tell which genes its factors are made of: fit it again"
        )
    return _read(table, model, model.training["target_genes"], model.targets.columns)


def _read(table: AnnData, model: Model, names: Sequence[str], columns: NDArray[np.intp]) -> Values:
    _validate.present(names, table.var_names)
    values: Any = _sections.layer_of(table, model.recipe["layer"])
    values = sp.csr_matrix(values) if sp.issparse(values) else np.asarray(values)
    library = None
    if isinstance(model.targets, Counts):
        library = library_of(values)
        n_empty = int((library <= 0).sum())
        if n_empty:
            raise ValueError(f"{n_empty} spots have no counts: drop them with stp.pp.filter_spots")
    places = table.var_names.get_indexer(list(names))
    return Values(list(model.genes), values[:, places], columns, library)
