"""Groups that are left out in turn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from sklearn.model_selection import GroupKFold

from stpredict import _keys, _validate
from stpredict.tl._fitting._split import group_labels, require_patients

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from stpredict._sdata._spot_table import SpotTable


@dataclass(frozen=True, eq=False)
class Fold:
    """One fold: the groups that are left out."""

    name: str  # names of the groups, joined for display
    groups: tuple[str, ...]  # that are left out
    rows: NDArray[np.intp]  # rows of the table, ascending


@dataclass(frozen=True, eq=False)
class Folds:
    """All folds of a cross-validation, in the order of their first rows."""

    kind: str  # what the groups are: a column of obs, or "section"
    folds: tuple[Fold, ...]
    labels: NDArray[np.str_]  # (n_obs,) group of each row
    torn_sections: tuple[str, ...]  # with spots on both sides of a split
    torn_patients: tuple[str, ...]

    def __iter__(self) -> Iterator[Fold]:
        return iter(self.folds)

    def __len__(self) -> int:
        return len(self.folds)

    def refuse_leaks(self, groups: str | None, *, remedy: str = "") -> None:
        """Raise if a patient or section has spots on both sides of a split."""
        torn = {"patients": self.torn_patients, "sections": self.torn_sections}
        parts = [f"{what} {_validate.listing(names)}" for what, names in torn.items() if names]
        if parts:
            raise ValueError(
                f"groups={groups!r} splits {' and '.join(parts)} between training and test: give "
                f"another column{remedy}"
            )


def leave_groups_out(
    spots: SpotTable, groups: str | None, *, purpose: str, n_folds: int | None = None
) -> Folds:
    """Leave out every group in turn, or several at a time in ``n_folds`` of about equal size."""
    require_patients(spots)  # also where other groups are given, which may split a patient
    labels, kind = group_labels(spots, groups)
    names = list(dict.fromkeys(labels))
    if len(names) == 1:
        raise ValueError(
            f"{purpose} needs several groups, but there is only one {kind}, {names[0]!r}: give "
            "more sections, or groups= with a column of several groups"
        )
    if n_folds is None:  # one per group
        by_fold = [(name,) for name in names]
    else:
        _validate.whole_number("n_folds", n_folds, at_least=2)
        if n_folds > len(names):
            raise ValueError(
                f"n_folds={n_folds} must be at most {len(names)}, the number of groups"
            )
        splits = GroupKFold(n_folds).split(labels, groups=labels)
        by_fold = [tuple(dict.fromkeys(labels[rows].tolist())) for _, rows in splits]
    folds = tuple(
        Fold("+".join(group), group, np.flatnonzero(np.isin(labels, group))) for group in by_fold
    )
    return Folds(
        kind, folds, labels, _torn(spots.section_of_row, folds), _torn_patients(spots, folds)
    )


def _torn(values: NDArray[np.str_], folds: tuple[Fold, ...]) -> tuple[str, ...]:
    """Values that occur both among the rows left out and among the others."""
    torn: dict[str, None] = {}
    for fold in folds:
        training = set(np.delete(values, fold.rows))
        torn |= {str(name): None for name in dict.fromkeys(values[fold.rows]) if name in training}
    return tuple(torn)


def _torn_patients(spots: SpotTable, folds: tuple[Fold, ...]) -> tuple[str, ...]:
    obs = spots.table.obs
    if _keys.PATIENT not in obs or obs[_keys.PATIENT].nunique() < 2:
        return ()
    return _torn(obs[_keys.PATIENT].astype(str).to_numpy(), folds)
