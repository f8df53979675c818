"""Ensembl ids and symbols of genes: one becomes the index, both are kept as columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stpredict import _keys, _validate

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd


def name_genes(var: pd.DataFrame, symbols: Iterable[str], gene_names: str) -> pd.DataFrame:
    """Add ``gene_symbols`` as written in the file, and index genes by symbol or by id.

    The index may have repeated names.
    """
    var = var.assign(**{_keys.GENE_SYMBOLS: list(symbols)})
    if gene_names == "ids" and _keys.GENE_IDS not in var:
        raise KeyError(
            f"the file has no Ensembl ids, only the columns {_validate.listing(var.columns)}. Use "
            'gene_names="symbols"'
        )
    names = var[_keys.GENE_SYMBOLS if gene_names == "symbols" else _keys.GENE_IDS]
    return var.set_axis(names.astype(str).to_numpy())
