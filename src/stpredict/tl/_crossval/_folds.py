"""Groups that are left out in turn."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from sklearn.model_selection import GroupKFold

from stpredict import _keys, _validate
from stpredict._sdata._buffer import block_buffer_um, rows_near
from stpredict.results import BLOCKS  # also the value of groups=
from stpredict.tl._fitting._split import (
    MIN_SPOTS,
    N_BLOCKS,
    block_labels,
    group_labels,
    require_patients,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from stpredict._sdata._spot_table import SpotTable


@dataclass(frozen=True, eq=False)
class Fold:
    """One fold: the groups that are left out."""

    name: str  # names of the groups, joined for display
    groups: tuple[str, ...]  # that are left out
    rows: NDArray[np.intp]  # rows of the table that are left out, ascending
    training: NDArray[np.intp]  # all others but those of the buffer, ascending
    buffer_um: float | None = None  # no training spot is nearer to one left out, in x and in y
    # rows whose images a prediction may read, ascending: those left out and, for a random split,
    # their neighbours; others are no context of a test spot
    visible: NDArray[np.intp] | None = None


@dataclass(frozen=True, eq=False)
class Folds:
    """All folds of a cross-validation, in the order of their first rows."""

    kind: str  # what the groups are: a column of obs, "section" or "block"
    folds: tuple[Fold, ...]
    labels: NDArray[np.str_]  # (n_obs,) group of each row
    torn_sections: tuple[str, ...]  # with spots on both sides of a split
    torn_patients: tuple[str, ...]

    @property
    def buffer_um(self) -> float | None:
        """Width of the buffer, which all folds share."""
        return self.folds[0].buffer_um

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
    spots: SpotTable,
    groups: str | None,
    *,
    purpose: str,
    n_folds: int | None = None,
    remedy: str = "",  # for a single group
) -> Folds:
    """Leave out every group in turn, or several at a time in ``n_folds`` of about equal size."""
    require_patients(spots)  # also where other groups are given, which may split a patient
    labels, kind = group_labels(spots, groups)
    names = list(dict.fromkeys(labels))
    if len(names) == 1:
        raise ValueError(
            f"{purpose} needs several groups, but there is only one {kind}, {names[0]!r}: give "
            f"more sections, or groups= with a column of several groups{remedy}"
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
    return folds_of(spots, kind, labels, by_fold)


def leave_blocks_out(
    spots: SpotTable, n_blocks: int | None = None, *, staggered: bool = False
) -> Folds:
    """Leave one block of every section out in turn, with a buffer between training and test.

    Staggered, the blocks that a fold leaves out lie at different places of the sections.
    """
    if BLOCKS in spots.table.obs:
        raise ValueError(
            f"groups={BLOCKS!r} means blocks of tissue, but obs has a column {BLOCKS!r}: rename it"
        )
    if n_blocks is not None:
        _validate.whole_number("n_folds", n_blocks, at_least=2)
    labels = block_labels(spots, n_blocks or N_BLOCKS)
    names = sorted(set(labels.tolist()), key=lambda name: int(name.split()[-1]))
    if staggered:
        for number, rows in enumerate(spots.section_rows.values()):
            # steps of two: blocks of successive sections are not next to each other
            shifted = {name: names[(n + 2 * number) % len(names)] for n, name in enumerate(names)}
            labels[rows] = [shifted[name] for name in labels[rows]]
    by_fold = [(name,) for name in names]
    folds = folds_of(spots, "block", labels, by_fold, buffer_um=block_buffer_um(spots))
    smallest = min(folds, key=lambda fold: len(fold.training))
    if len(smallest.training) < MIN_SPOTS:
        raise ValueError(
            f"without {smallest.name} and a buffer of {folds.buffer_um:g} µm, "
            f"{len(smallest.training)} spots remain for training, at least {MIN_SPOTS} are needed: "
            "embed smaller tiles, or leave out sections"
        )
    # a single section leaves no other choice, as a single patient does
    return folds if len(spots.section_names) > 1 else replace(folds, torn_sections=())


def folds_of(
    spots: SpotTable,
    kind: str,
    labels: NDArray[np.str_],
    by_fold: Sequence[tuple[str, ...]],
    *,
    buffer_um: float | None = None,
) -> Folds:
    """Leave out the groups of each fold, and from training the spots near them."""
    folds = []
    for names in by_fold:
        rows = np.flatnonzero(np.isin(labels, names))
        near = rows[:0] if buffer_um is None else rows_near(spots, rows, buffer_um)
        is_training = np.ones(len(labels), dtype=bool)
        is_training[rows] = is_training[near] = False
        training = np.flatnonzero(is_training)
        folds.append(Fold("+".join(names), names, rows, training, buffer_um))
    torn_sections, torn_patients = _torn(spots.section_of_row, folds), _torn_patients(spots, folds)
    return Folds(kind, tuple(folds), labels, torn_sections, torn_patients)


def _torn(values: NDArray[np.str_], folds: Iterable[Fold]) -> tuple[str, ...]:
    """Values that occur both among the rows left out and among the training rows."""
    torn: dict[str, None] = {}
    for fold in folds:
        training = set(values[fold.training])
        torn |= {str(name): None for name in dict.fromkeys(values[fold.rows]) if name in training}
    return tuple(torn)


def _torn_patients(spots: SpotTable, folds: Iterable[Fold]) -> tuple[str, ...]:
    obs = spots.table.obs
    if _keys.PATIENT not in obs or obs[_keys.PATIENT].nunique() < 2:
        return ()
    return _torn(obs[_keys.PATIENT].astype(str).to_numpy(), folds)
