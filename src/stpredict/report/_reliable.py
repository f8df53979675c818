"""Genes that each method predicts reliably."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from stpredict import _keys, uncertainty

if TYPE_CHECKING:
    from stpredict._sdata._spot_table import SpotTable
    from stpredict.results import Scores


def reliable_genes(spots: SpotTable, scores: Scores) -> pd.DataFrame | None:
    """Genes by methods, bool; None if the split leaks or has a single fold."""
    table = spots.table
    folds = table.obs[_keys.FOLD].astype(str).to_numpy()
    if scores.leaky or len(set(folds)) < 2:
        return None
    return pd.DataFrame(
        {
            name: uncertainty.reliable(
                np.asarray(table.X),
                np.asarray(table.layers[name]),
                spots.positions_um,
                sections=spots.section_of_row,
                groups=folds,
            ).reliable
            for name in scores.methods
        },
        index=table.var_names,
    )
