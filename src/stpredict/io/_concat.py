"""Combine several sections into one SpatialData."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import spatialdata as sd
from spatialdata import SpatialData

from stpredict import _keys, _validate
from stpredict._sdata import _provenance
from stpredict._sdata._spot_table import open_table


def concat(
    sdatas: Sequence[SpatialData],
    *,
    join: Literal["inner", "outer"] = "inner",
    table_name: str = "table",
) -> SpatialData:
    """Combine sections into one SpatialData with one table.

    Parameters
    ----------
    sdatas
        Objects as the readers return them. Section names must differ.
    join
        ``"inner"`` keeps the genes that all sections have. ``"outer"`` keeps every gene, with
        count 0 where a section does not list it, which is wrong for gene panels.
    table_name
        Name of the table in each object.

    Returns
    -------
    SpatialData
        All images and shapes, and one ``tables[table_name]`` that annotates all sections.

    Raises
    ------
    KeyError, ValueError
        If an object has no such table, `sdatas` is empty, or sections share a name or no gene.

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
    sdatas = list(sdatas)
    if not sdatas:
        raise ValueError("no sections to combine: the list is empty")
    names = [name for sdata in sdatas for name in sdata.shapes]
    _validate.unique_names(names, what="section names")
    if len(sdatas) == 1:
        return sdatas[0]
    tables = [open_table(sdata, table_name).table for sdata in sdatas]
    combined = sd.concatenate(
        sdatas, concatenate_tables=True, obs_names_make_unique=False, join=join, merge="first"
    )
    steps = _shared_steps([_provenance.recorded_steps(table) for table in tables])
    if steps:
        combined.tables[table_name].uns[_keys.UNS] = steps
    n_genes = {table.n_vars for table in tables}
    if 0 in n_genes and len(n_genes) > 1 and join == "inner":
        raise ValueError("some sections have a table without genes. Combine them separately")
    if n_genes != {0} and combined.tables[table_name].n_vars == 0:
        hint = "Index all by Ensembl id, or all by symbol, with gene_names="
        raise ValueError(f"the sections have no gene in common. {hint}")
    return combined


def _shared_steps(steps: list[dict[str, Any]]) -> dict[str, Any]:
    """Recorded steps that also hold for the combined table."""
    first, *others = steps
    shared = {key: x for key, x in first.items() if all(other.get(key) == x for other in others)}
    for key in (_keys.REALIGN, _keys.OUTSIDE):  # recorded by section, so that they combine
        by_section: dict[str, Any] = {}
        for each in steps:
            by_section |= each.get(key, {})
        if by_section:
            shared[key] = by_section
    return shared | _shared_stain([each.get("normalize_stain") for each in steps])


def _shared_stain(records: list[dict[str, Any] | None]) -> dict[str, Any]:
    """Record of stain normalisation, if all sections were normalised to the same reference."""
    normalized = [record for record in records if record]
    first = normalized[0] if normalized else {}
    if any(not record or record["reference"] != first["reference"] for record in records):
        return {}
    stains = {name: stain for record in normalized for name, stain in record["stains"].items()}
    skipped = [name for record in normalized for name in record["skipped"]]
    return {"normalize_stain": {**first, "stains": stains, "skipped": skipped}}
