"""Which genes each method can be trusted on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from stpredict import _keys, uncertainty
from stpredict._sdata import _sections

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from stpredict._sdata._sections import Section
    from stpredict.results import CrossValidation


def reliable(
    result: CrossValidation, table: AnnData, sections: Sequence[Section]
) -> pd.DataFrame | None:
    """Genes by methods, bool; None where a leak, or a single fold, lets nobody say."""
    folds = table.obs[_keys.FOLD].astype(str).to_numpy()
    if result.leaky or len(set(folds)) < 2:
        return None
    positions = np.empty((table.n_obs, 2))
    for section in sections:
        positions[section.rows] = section.centers_um
    region = _sections.region_of(table)
    return pd.DataFrame(
        {
            name: uncertainty.reliable(
                np.asarray(table.X),
                np.asarray(table.layers[name]),
                positions,
                sections=region,
                groups=folds,
            ).reliable
            for name in result.methods
        },
        index=table.var_names,
    )
