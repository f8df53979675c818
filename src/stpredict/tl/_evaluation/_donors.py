"""Donors of scored sections of which another section was in training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stpredict import _keys
from stpredict.tl._fitting._split import group_labels

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from stpredict._sdata._spot_table import SpotTable


@dataclass(frozen=True)
class LeakingDonors:
    """Donors of whom one section was in training and another is scored; what is not recorded."""

    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def leaking_donors(
    spots: SpotTable, rows: NDArray[np.intp], records: dict[str, dict[str, Any]], groups: str | None
) -> LeakingDonors:
    """Donors in a column of ``obs``, by default the patients, that some table was trained on.

    They are recorded with the predictions, and known of training sections in the same table.
    """
    obs = spots.table.obs
    if groups is None and _keys.PATIENT not in obs:
        return LeakingDonors()
    column = _keys.PATIENT if groups is None else groups
    if groups is not None:
        group_labels(spots, groups)  # raises if the column is absent or has gaps
    donors = obs[column]
    training: set[str] = set()
    used = np.zeros(spots.table.n_obs, dtype=bool)
    notes = []
    for name, record in records.items():
        sections = record.get("training_sections", ())
        recorded = record.get("training_donors", {}).get(column)
        present = np.isin(spots.section_of_row, sections)
        used |= present
        training |= set(recorded or ()) | _names(donors[present])
        if recorded is None and set(sections) - set(spots.section_of_row[present]):
            notes.append(
                f"{name!r} does not record obs[{column!r}] of its training sections: other "
                "sections of the same donors may be among them."
            )
    others = rows[~used[rows]]  # sections that were in training are reported themselves
    scored = sorted(_names(donors.iloc[others]) & training)
    return LeakingDonors(tuple(scored), tuple(notes))


def _names(donors: pd.Series) -> set[str]:
    return set(donors.dropna().astype(str))
