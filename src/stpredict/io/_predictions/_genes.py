"""Genes of predictions among the measured ones, by name or by Ensembl id."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from stpredict import _validate

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class GeneMatch:
    """Genes that predictions and measured table share, in the order of the measured table."""

    measured: NDArray[np.intp]  # (n,) columns of the measured table
    predicted: NDArray[np.intp]  # (n,) columns of the predictions
    by: str  # column of var of the measured table by which they were matched, or "name"
    n_unmatched: int  # genes of the predictions that were not measured


def match_genes(predicted: pd.DataFrame, measured: pd.DataFrame) -> GeneMatch:
    """Match by the pair of names or ids that most genes share; both are tables of genes."""
    best, by = pd.Series(dtype=np.intp), "name"
    ids = pd.Series(dtype=object)
    for own_label, own in _identifiers(measured).items():
        own = own[~own.duplicated(keep=False)]  # an ambiguous symbol matches no gene
        for other in _identifiers(predicted).values():
            shared = other[other.isin(own)]
            if shared.nunique() > len(best):
                places = pd.Series(own.index.to_numpy(), index=own.to_numpy())
                best, by, ids = places.loc[shared.to_numpy()], own_label, shared
    if best.empty:
        reason = _validate.why_absent(predicted.index, measured.index)
        examples = [_validate.listing(var.index[:3]) for var in (predicted, measured)]
        raise ValueError(
            f"predictions and measured table share no gene: {' and '.join(examples)}{reason}"
        )
    _validate.unique_names(ids, what="genes of the predictions")
    order = np.argsort(best.to_numpy(), kind="stable")
    return GeneMatch(
        measured=best.to_numpy(dtype=np.intp)[order],
        predicted=ids.index.to_numpy(dtype=np.intp)[order],
        by=by,
        n_unmatched=len(predicted) - len(ids),
    )


def _identifiers(var: pd.DataFrame) -> dict[str, pd.Series]:
    """Names and all columns of text, by label, each with the number of the gene as index."""
    columns = {"name": var.index, **{str(name): var[name] for name in var}}
    return {
        label: pd.Series([_validate.without_version(str(value)) for value in values])
        for label, values in columns.items()
        if not is_numeric_dtype(values.dtype)
    }
