"""Ensembl ids and symbols of 10x's feature tables: both kept, one as the index."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from stpredict import _keys, _validate

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd

GeneNames = Literal["symbols", "ids"]


def check_gene_names(gene_names: str) -> None:
    """Require a known choice."""
    _validate.one_of("gene_names", gene_names, ["symbols", "ids"])


def named_genes(
    var: pd.DataFrame, symbols: Iterable[str], *, gene_names: GeneNames
) -> tuple[list[str], pd.DataFrame]:
    """Choose the index of the genes, and keep both names as columns.

    Parameters
    ----------
    var
        Columns of the genes, with ``gene_ids`` where the file has them.
    symbols
        Symbols as the file has them, repeated ones too.
    gene_names
        Which become the index.

    Returns
    -------
    tuple
        Names for the index, not yet unique, and the columns.
    """
    columns = var.assign(**{_keys.GENE_SYMBOLS: list(symbols)})
    if gene_names == "ids" and _keys.GENE_IDS not in columns:
        raise KeyError(
            'the file has no Ensembl ids, only names: read it with gene_names="symbols"; columns: '
            f"{_validate.listing(columns.columns)}"
        )
    chosen = _keys.GENE_SYMBOLS if gene_names == "symbols" else _keys.GENE_IDS
    return [str(name) for name in columns[chosen]], columns
