"""Combine tables of several sections, and report what is missing or left out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import anndata as ad
import numpy as np
import pandas as pd
from spatialdata.models import TableModel, get_table_keys

from stpredict import _keys, _validate
from stpredict._log import warn
from stpredict._sdata._provenance import read_steps, recorded, recorded_steps
from stpredict._sdata._steps import NeighborsStep

if TYPE_CHECKING:
    from collections.abc import Sequence

_SLOTS = ("layers", "obsm", "obsp", "varm", "varp")


def combine_tables(
    tables: Sequence[ad.AnnData],
    name: str,
    *,
    join: Literal["inner", "outer"],
    fill_value: float | None = None,  # of genes that a section does not list; None: anndata's
) -> ad.AnnData:
    """Combine tables, which are changed, into one that annotates all their sections."""
    if len(tables) == 1:
        return tables[0]
    labels = [_sections_of(table) for table in tables]
    names = tables[0].obs_names.append([table.obs_names for table in tables[1:]])
    if not names.is_unique:
        repeated = _validate.listing(names[names.duplicated()].unique())
        raise ValueError(
            f"names of spots in tables[{name!r}] are not unique over the sections, repeated: "
            f"{repeated}. Change obs_names first, for example by a prefix with the section"
        )
    _, region_key, instance_key = get_table_keys(tables[0])
    frames = []
    for table in tables:
        _, region, instance = get_table_keys(table)
        frames.append(table.obs.rename(columns={region: region_key, instance: instance_key}))
    left_out = _drop_unequal_slots(tables, labels)
    combined = ad.concat(
        tables, join=join, merge="same", uns_merge="same", pairwise=True, fill_value=fill_value
    )
    combined.obs, _ = _combine_columns(frames, combined.obs_names)
    combined.var, differing = _combine_columns([t.var for t in tables], combined.var_names)
    left_out += [f"var[{column!r}] (sections differ)" for column in differing]
    left_out += [
        f"{kind}[{key!r}] (sections differ)"
        for kind in ("varm", "varp")
        for key in getattr(tables[0], kind)
        if key not in getattr(combined, kind)
    ]
    missing = [
        f"{what}[{column!r}] of {label}"
        for what, parts in (("obs", frames), ("var", [table.var for table in tables]))
        for column in dict.fromkeys(column for part in parts for column in part)
        for label, part in zip(labels, parts, strict=True)
        if column not in part and column not in differing
    ]
    _warn(name, missing, left_out, _differing_steps(tables))
    steps = _shared_steps([recorded_steps(table) for table in tables])
    graphs = [read_steps(table).neighbors for table in tables]
    if None not in graphs and _agree(graphs):
        steps[NeighborsStep.name] = recorded(tables[0], NeighborsStep.name)
    combined.uns.pop(_keys.UNS, None)
    if steps:
        combined.uns[_keys.UNS] = steps
    combined.uns.pop(TableModel.ATTRS_KEY, None)
    combined.obs[region_key] = combined.obs[region_key].astype("category")
    regions = list(combined.obs[region_key].unique())
    return TableModel.parse(
        combined, region=regions, region_key=region_key, instance_key=instance_key
    )


def _sections_of(table: ad.AnnData) -> str:
    """Sections of a table, for messages."""
    regions = get_table_keys(table)[0]
    return regions if isinstance(regions, str) else _validate.listing(regions)


def _drop_unequal_slots(tables: Sequence[ad.AnnData], labels: Sequence[str]) -> list[str]:
    """Drop slots that only some tables have, or in other shapes; returns what was dropped."""
    dropped = []
    for kind in _SLOTS:
        slots = [getattr(table, kind) for table in tables]
        for key in dict.fromkeys(key for slot in slots for key in slot if key is not None):
            absent = [label for label, slot in zip(labels, slots, strict=True) if key not in slot]
            # anndata would cut arrays to the smallest width
            widths = {np.shape(slot[key])[1:] for slot in slots if key in slot}
            if absent:
                reason = f"not in {_validate.listing(absent)}"
            elif kind == "obsm" and len(widths) > 1:
                reason = "sections differ in width"
            else:
                continue
            dropped.append(f"{kind}[{key!r}] ({reason})")
            for slot in slots:
                if key in slot:
                    del slot[key]
    return dropped


def _combine_columns(
    frames: Sequence[pd.DataFrame], index: pd.Index
) -> tuple[pd.DataFrame, list[str]]:
    """Union of the columns, and the columns left out because frames differ in a shared row."""
    combined, differing = pd.DataFrame(index=index), []
    for column in dict.fromkeys(column for frame in frames for column in frame):
        values = _join([frame[column] for frame in frames if column in frame])
        values = values[values.index.isin(index)].dropna()
        first = values[~values.index.duplicated()]
        if len(first) < len(values) and (first.reindex(values.index) != values).any():
            differing.append(column)
            continue
        if len(first) < len(index):  # types with missing values that can be written to disk
            if pd.api.types.is_bool_dtype(first.dtype):
                first = first.astype("boolean")
            elif pd.api.types.is_string_dtype(first.dtype):
                first = first.astype("category")
        combined[column] = first.reindex(index)
    return combined, differing


def _join(columns: list[pd.Series[Any]]) -> pd.Series[Any]:
    """Join columns; categories keep their order."""
    if any(isinstance(column.dtype, pd.CategoricalDtype) for column in columns):
        columns = [column.astype("category") for column in columns]
        if len({column.dtype for column in columns}) > 1:
            categories = dict.fromkeys(each for part in columns for each in part.cat.categories)
            joint = pd.CategoricalDtype(list(categories))
            columns = [column.astype(joint) for column in columns]
    return pd.concat(columns)


def _warn(name: str, missing: list[str], left_out: list[str], steps: list[str]) -> None:
    """Report how sections differ."""
    parts = {"missing values": missing, "left out": left_out, "steps run differently": steps}
    differences = "; ".join(
        f"{what}: {_validate.listing(items, most=12)}" for what, items in parts.items() if items
    )
    if differences:
        warn(f"the sections of tables[{name!r}] differ. {differences}")


def _differing_steps(tables: Sequence[ad.AnnData]) -> list[str]:
    """Steps that several tables have, with other parameters."""
    records = [vars(read_steps(table)) for table in tables]
    names = [name for name in records[0] if name != "normalize_stain"]  # reported by pp.embed
    steps = {name: [each[name] for each in records if each[name]] for name in names}
    return [name for name, each in steps.items() if not _agree(each)]


def _agree(steps: Sequence[Any]) -> bool:
    """Whether steps have the same parameters; measured distances may scatter."""
    if steps and isinstance(steps[0], NeighborsStep):
        return not any(steps[0].differences(step) for step in steps)
    return all(step == steps[0] for step in steps)


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
