"""Several sections -> one SpatialData."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import spatialdata as sd

from stpredict import _keys
from stpredict._sdata import _provenance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spatialdata import SpatialData


def concat(
    sections: Sequence[SpatialData], *, join: Literal["inner", "outer"] = "inner"
) -> SpatialData:
    """Put sections into one SpatialData with one table.

    Parameters
    ----------
    sections
        Objects as the readers return them; section names must differ.
    join
        ``"inner"`` keeps the genes all sections measured. ``"outer"`` keeps every gene and counts
        0 where a section does not list it: right for whole-transcriptome data whose files leave
        out genes without a count, wrong for panels.

    Returns
    -------
    SpatialData
        All images and shapes, and one ``tables["table"]`` that annotates all sections.

    Raises
    ------
    ValueError
        If there is nothing to put together, or sections share a name or have no gene in common.

    Examples
    --------
    >>> import stpredict as stp
    >>> first = stp.datasets.phantom(seed=0)
    >>> stp.io.concat([first]).tables["table"].n_obs == first.tables["table"].n_obs
    True
    """
    sections = list(sections)
    if not sections:
        raise ValueError("there are no sections to put together")
    names = [name for section in sections for name in section.shapes]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(
            f"sections must have different names, but {', '.join(map(repr, repeated))} occurs more "
            "than once: read them again with another section="
        )
    if len(sections) == 1:
        return sections[0]
    together = sd.concatenate(
        sections, concatenate_tables=True, obs_names_make_unique=False, join=join, merge="first"
    )
    steps = [_provenance.recorded_steps(section.tables[_keys.TABLE]) for section in sections]
    # what was done alike to all still holds of the whole
    alike = {k: v for k, v in steps[0].items() if all(other.get(k) == v for other in steps)}
    alike |= _motions(steps)
    alike |= _stain([step.get("normalize_stain") for step in steps])
    if alike:
        together.tables[_keys.TABLE].uns[_keys.UNS] = alike
    columns = {section.tables[_keys.TABLE].n_vars for section in sections}
    if 0 in columns and len(columns) > 1 and join == "inner":
        raise ValueError(
            "some sections have a table without genes (slides to predict), others have genes: keep "
            "them in two objects"
        )
    if columns != {0} and together.tables[_keys.TABLE].n_vars == 0:
        raise ValueError(
            "the sections have no gene in common; are some indexed by Ensembl id and others by "
            "symbol? Make var_names agree first, or read them with the same gene_names="
        )
    return together


def _motions(steps: list[dict[str, Any]]) -> dict[str, Any]:
    """What was recorded section by section, of all sections."""
    motions: dict[str, Any] = {}
    for each in steps:
        motions |= each.get(_keys.REALIGN, {})
    return {_keys.REALIGN: motions} if motions else {}


def _stain(records: list[dict[str, Any] | None]) -> dict[str, Any]:
    """Sections normalised to one reference, each with its own stain, stay so together."""
    known = [record for record in records if record]
    first = known[0] if known else {}
    if len(known) < len(records) or any(r["reference"] != first["reference"] for r in known):
        return {}
    stains = {name: stain for record in known for name, stain in record["stains"].items()}
    left_alone = [name for record in known for name in record["skipped"]]
    return {"normalize_stain": {**first, "stains": stains, "skipped": left_alone}}
