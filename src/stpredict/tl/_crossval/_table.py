"""Out-of-fold predictions as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData
from spatialdata.models import TableModel, get_table_keys

from stpredict import _keys
from stpredict._sdata import _provenance, _sections
from stpredict.tl._crossval._run import Outcome
from stpredict.tl._crossval._score_folds import ridge_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from spatialdata import SpatialData

    from stpredict.tl._crossval._folds import Folds
    from stpredict.tl._crossval._jobs import Outcomes


def write_table(
    sdata: SpatialData,
    methods: Sequence[str],
    folds: Folds,
    outcomes: Outcomes,
    *,
    settings: dict[str, Any],
) -> None:
    """Write ``tables["out_of_fold"]``."""
    table = _sections.table_of(sdata)
    done = [outcome for outcome in outcomes.values() if isinstance(outcome, Outcome)]
    predicted = {gene for outcome in done for gene in outcome.genes}
    genes = pd.Index([gene for gene in table.var_names if gene in predicted])
    names = ridge_names(done)
    layers = {name: _empty(table.n_obs, len(genes)) for name in (*methods, *names.values())}
    measured = _empty(table.n_obs, len(genes))
    n_folds = np.zeros(len(genes), dtype=np.int64)
    fold = np.empty(table.n_obs, dtype=object)
    for name, rows in folds:
        fold[rows] = name
        there = np.zeros(len(genes), dtype=bool)
        for method in reversed(methods):  # of one embedding, the first method's ridge stays
            outcome = outcomes[name, method]
            if not isinstance(outcome, Outcome):
                continue
            places = genes.get_indexer(outcome.genes)
            _put(layers[method], rows, places, outcome.predicted)
            _put(measured, rows, places, outcome.measured)
            if outcome.ridge.size:
                _put(layers[names[outcome.embedding]], rows, places, outcome.ridge)
            there[places] = True
        n_folds += there
    found = AnnData(X=measured, obs=table.obs.copy(), var=pd.DataFrame(index=genes), layers=layers)
    found.obs[_keys.FOLD] = pd.Categorical(fold, categories=folds.names())
    found.var["n_folds"] = n_folds
    if _keys.SPATIAL in table.obsm:
        found.obsm[_keys.SPATIAL] = table.obsm[_keys.SPATIAL].copy()
    for key in (_keys.CONNECTIVITIES, _keys.DISTANCES):
        if key in table.obsp:
            found.obsp[key] = table.obsp[key].copy()
    _provenance.record(found, "cross_validate", **settings)
    region, region_key, instance_key = get_table_keys(table)
    sdata.tables[_keys.OUT_OF_FOLD] = TableModel.parse(
        found, region=region, region_key=region_key, instance_key=instance_key
    )


def _empty(n_obs: int, n_genes: int) -> NDArray[np.float32]:
    return np.full((n_obs, n_genes), np.nan, dtype=np.float32)


def _put(
    values: NDArray[np.float32],
    rows: NDArray[np.intp],
    columns: NDArray[np.intp],
    given: NDArray[np.float32],
) -> None:
    values[np.ix_(rows, columns)] = given
