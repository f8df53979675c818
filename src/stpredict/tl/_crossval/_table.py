"""Out-of-fold predictions as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData

from stpredict import _keys
from stpredict._sdata._provenance import record
from stpredict.tl._crossval._outcome import Outcome

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stpredict._sdata._spot_table import SpotTable
    from stpredict.results import Scores
    from stpredict.tl._crossval._folds import Folds
    from stpredict.tl._crossval._jobs import Outcomes


def write_out_of_fold(
    spots: SpotTable, scores: Scores, folds: Folds, outcomes: Outcomes, *, key_added: str
) -> None:
    """Write the measured values and the predictions of every method."""
    finished = [outcome for outcome in outcomes.values() if isinstance(outcome, Outcome)]
    predicted_genes = {gene for outcome in finished for gene in outcome.genes}
    genes = pd.Index([gene for gene in spots.table.var_names if gene in predicted_genes])
    shape = (spots.table.n_obs, len(genes))
    measured = _empty(shape)
    by_method = {method: _empty(shape) for method in (*scores.methods, *scores.baselines)}
    n_folds = np.zeros(len(genes), dtype=np.int64)
    fold_of_row = np.empty(spots.table.n_obs, dtype=object)
    for fold in folds:
        # genes are selected in each fold: values of the others stay NaN
        fold_of_row[fold.rows] = fold.name
        in_fold = np.zeros(len(genes), dtype=bool)
        for method in by_method:
            outcome = outcomes[fold.name, method]
            if isinstance(outcome, Outcome):
                columns = genes.get_indexer(outcome.genes)
                by_method[method][np.ix_(fold.rows, columns)] = outcome.predicted
                measured[np.ix_(fold.rows, columns)] = outcome.measured
                in_fold[columns] = True
        n_folds += in_fold
    table = AnnData(
        X=measured, obs=spots.table.obs.copy(), var=pd.DataFrame(index=genes), layers=by_method
    )
    fold_names = [fold.name for fold in folds]
    table.obs[_keys.FOLD] = pd.Categorical(fold_of_row, categories=fold_names)
    table.obs[_keys.GROUP] = pd.Categorical(folds.labels)
    table.var["n_folds"] = n_folds
    names = {"methods": list(scores.methods), "baselines": list(scores.baselines)}
    options: dict[str, list[str]] = {}  # `tl.calibrate` compares them with those of the model
    for (_, method), outcome in outcomes.items():
        if isinstance(outcome, Outcome) and outcome.options not in options.get(method, []):
            options.setdefault(method, []).append(outcome.options)
    record(table, "cross_validate", **names, options=options, **scores.protocol.to_plain())
    spots.add_table(key_added, table)


def _empty(shape: tuple[int, int]) -> NDArray[np.float32]:
    return np.full(shape, np.nan, dtype=np.float32)
