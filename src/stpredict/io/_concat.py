"""Combine several sections into one SpatialData."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from spatialdata import SpatialData

from stpredict import _validate
from stpredict._arguments import checked
from stpredict._sdata._spot_table import open_table
from stpredict.io._shared._combine_tables import combine_tables

if TYPE_CHECKING:
    from anndata import AnnData


@checked
def concat(
    sdatas: Sequence[SpatialData],
    *,
    join: Literal["inner", "outer"] = "inner",
    table_name: str = "table",
) -> SpatialData:
    """Combine sections into one SpatialData with one table.

    Tables of the same name are combined, also those of predictions. Columns of ``obs`` and ``var``
    that only some sections have are kept, with missing values for the others. A column of ``var``
    in which sections differ, and a layer or other slot that only some sections have, is left out. A
    warning lists both.

    Parameters
    ----------
    sdatas
        Objects as the readers return them. Names of sections and spots must differ.
    join
        ``"inner"`` keeps the genes that all sections have. ``"outer"`` keeps every gene, with
        count 0 where a section does not list it, which is wrong for gene panels.
    table_name
        Name of the table in each object.

    Returns
    -------
    SpatialData
        All images and shapes, and one ``tables[table_name]`` that annotates all sections. Tables
        and shapes are copies.

    Warns
    -----
    UserWarning
        If columns have missing values, or slots are left out.

    Raises
    ------
    TypeError
        If `sdatas` is not a list of SpatialData objects.
    KeyError, ValueError
        If an object has no such table, `sdatas` is empty, or sections share a name, the name of a
        spot, or no gene.

    Examples
    --------
    >>> import stpredict as stp
    >>> phantom = stp.datasets.phantom(size_px=800)
    >>> table, image = phantom.tables["table"], phantom.images["S1_image"]["scale0"]["image"]
    >>> sections = [
    ...     stp.io.read_h5ad(table, image.data, section=name, mpp=1.0, diameter_um=55)
    ...     for name in ("A", "B")
    ... ]
    >>> sdata = stp.io.concat(sections)
    >>> sorted(sdata.shapes), sdata.tables["table"].n_obs == 2 * table.n_obs
    (['A', 'B'], True)
    """
    if not sdatas:
        raise ValueError("no sections to combine: the list is empty")
    copies = [open_table(sdata, table_name, copy=True).sdata for sdata in sdatas]
    sections = [name for sdata in copies for name in sdata.shapes]
    _validate.unique_names(sections, what="section names")
    others = [
        (name, element)
        for sdata in copies
        for kind, name, element in sdata.gen_elements()
        if kind != "tables"
    ]
    _validate.unique_names([name for name, _ in others], what="names of elements")
    tables = {}
    for name in dict.fromkeys(name for sdata in copies for name in sdata.tables):
        parts = [sdata.tables[name] for sdata in copies if name in sdata.tables]
        # a count of 0 for a gene that is not listed; other values are missing
        fill_value = 0.0 if name == table_name else None
        tables[name] = combine_tables(parts, name, join=join, fill_value=fill_value)
    _check_genes(tables[table_name].n_vars, [sdata.tables[table_name] for sdata in copies], join)
    attrs = {key: value for sdata in reversed(copies) for key, value in sdata.attrs.items()}
    return SpatialData.init_from_elements({**dict(others), **tables}, attrs=attrs)


def _check_genes(n_shared: int, tables: Sequence[AnnData], join: str) -> None:
    """Require a gene in common, if any table has genes."""
    n_genes = {table.n_vars for table in tables}
    if 0 in n_genes and len(n_genes) > 1 and join == "inner":
        raise ValueError("some sections have a table without genes. Combine them separately")
    if n_genes != {0} and n_shared == 0:
        hint = "Index all by Ensembl id, or all by symbol, with gene_names="
        raise ValueError(f"the sections have no gene in common. {hint}")
