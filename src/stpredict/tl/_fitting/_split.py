"""Rows to train on, and rows held out for early stopping."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stpredict import _keys, _validate
from stpredict._log import info
from stpredict._sdata._spacing import common_spacing, spacing_of
from stpredict.models._records import TrainingSpots

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stpredict._sdata._spot_table import SpotTable

#: Number of blocks of a section, one of which is held out.
N_BLOCKS = 5
#: Correlation and spread of fewer spots are not informative.
MIN_SPOTS = 10


@dataclass(frozen=True)
class Fold:
    """Rows that one network is trained on, and rows held out for early stopping; ascending."""

    training: NDArray[np.intp]
    validation: NDArray[np.intp]


@dataclass(frozen=True)
class Split:
    """Rows of a table to train on, and the rows that each network holds out of them."""

    training: NDArray[np.intp]  # of any network, ascending; scaling and targets are fitted on them
    folds: tuple[Fold, ...]  # of each network; empty for estimators
    groups: NDArray[np.str_]  # (n_obs,) group of each row; alpha of ridge is tuned over them
    held_out: str  # the held-out groups, in words
    sections: tuple[str, ...]  # all of the table
    spots: TrainingSpots | None  # layout of all spots
    donors: dict[str, tuple[str, ...]]  # all of the table, by column of obs


def hold_out_groups(
    spots: SpotTable, *, groups: str | None, seed: int, n_networks: int = 1
) -> Split:
    """Hold out one group (patient or section) per network, or a block of tissue of a single one."""
    labels, kind = group_labels(spots, groups)
    names = list(dict.fromkeys(labels))
    if len(names) > 1:
        first = np.random.default_rng(seed).integers(len(names))
        names = [*names[first:], *names[:first]][:n_networks]
        held_out = f"{kind} {_validate.listing(names)}{' in turn' * (len(names) > 1)}"
    else:
        single, labels = f"{kind} {names[0]}", block_labels(spots)
        names = sorted(set(labels), reverse=True)[:n_networks]  # the end of the tissue first
        of_blocks = f"{len(names)} contiguous blocks in turn"
        held_out = f"{of_blocks if len(names) > 1 else 'a contiguous block'} of {single}"
        info(f"only one {kind}: {held_out} held out for early stopping")
    folds = tuple(_fold(labels == names[number % len(names)]) for number in range(n_networks))
    training = np.unique(np.concatenate([fold.training for fold in folds]))
    return Split(
        training, folds, labels, held_out, *_described(spots), donors=_donors(spots, groups)
    )


def _fold(is_held_out: NDArray[np.bool_]) -> Fold:
    fold = Fold(np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out))
    n_training, n_validation = len(fold.training), len(fold.validation)
    if min(n_training, n_validation) < MIN_SPOTS:
        raise ValueError(
            f"too few spots to hold any out: {n_training} for training and {n_validation} for "
            f"early stopping, at least {MIN_SPOTS} of each"
        )
    return fold


def use_all_rows(spots: SpotTable, *, groups: str | None) -> Split:
    """Train on all rows; hyperparameters are tuned over groups, or blocks of a single one."""
    labels, _ = group_labels(spots, groups)
    if len(set(labels)) == 1:
        labels = block_labels(spots)
    rows = np.arange(len(labels))
    donors = _donors(spots, groups)
    return Split(rows, (), labels, "nothing", *_described(spots), donors=donors)


def _donors(spots: SpotTable, groups: str | None) -> dict[str, tuple[str, ...]]:
    """Patients, and groups of the column given, by column of ``obs``."""
    obs = spots.table.obs
    columns = [name for name in (_keys.PATIENT, groups or _keys.PATIENT) if name in obs]
    return {name: tuple(sorted(obs[name].dropna().astype(str).unique())) for name in columns}


def _described(spots: SpotTable) -> tuple[tuple[str, ...], TrainingSpots | None]:
    """Names of the sections, and layout of their spots; None where it cannot be measured."""
    names = tuple(spots.section_names)
    try:
        sections = spots.sections
    except ValueError:  # embeddings that were registered need no image
        return names, None
    spacing = common_spacing(spacing_of(part.centers_um) for part in sections)
    if spacing.layout is None or not spacing.pitch_um > 0:
        return names, None
    diameter = 2 * float(np.median(np.concatenate([part.radius_um for part in sections])))
    pitch, diameter = (float(f"{length:.4g}") for length in (spacing.pitch_um, diameter))
    return names, TrainingSpots(spacing.layout, pitch, diameter)


def group_labels(spots: SpotTable, column: str | None) -> tuple[NDArray[np.str_], str]:
    """Group of each row, (n_obs,), and what the groups are: a column of ``obs``, or sections."""
    obs = spots.table.obs
    if column is None:
        require_patients(spots)
    if column is None and _keys.PATIENT in obs and obs[_keys.PATIENT].nunique() > 1:
        column = _keys.PATIENT
    if column is None:
        return spots.section_of_row, "section"
    if column not in obs:
        columns = _validate.listing(obs.columns)
        raise KeyError(f"obs has no column groups={column!r}; columns: {columns}")
    n_missing = int(obs[column].isna().sum())
    if n_missing:
        raise ValueError(f"{n_missing} rows have no group in obs[{column!r}]")
    return obs[column].astype(str).to_numpy(), column


def require_patients(spots: SpotTable) -> None:
    """Require a patient for every row, if any row has one."""
    obs = spots.table.obs
    n_missing = int(obs[_keys.PATIENT].isna().sum()) if _keys.PATIENT in obs else 0
    if 0 < n_missing < len(obs):
        raise ValueError(
            f"{n_missing} rows have no patient in obs[{_keys.PATIENT!r}], so that a patient may be "
            "on both sides of a split: fill it in for all sections, or delete the column"
        )


def block_labels(spots: SpotTable, n_blocks: int = N_BLOCKS) -> NDArray[np.str_]:
    """Blocks of tissue that replace groups, (n_obs,): strips across the longer side."""
    labels = np.empty(spots.table.n_obs, dtype="<U32")
    for number in range(len(spots.sections)):
        blocks = np.array_split(_along_longer_side(spots, number), n_blocks)
        for place, rows in enumerate(blocks):
            labels[rows] = f"block {place}"
    return labels


def _along_longer_side(spots: SpotTable, number: int) -> NDArray[np.intp]:
    """Rows of a section, sorted along its longer side."""
    section = spots.sections[number]
    axis = int(np.argmax(np.ptp(section.centers_um, axis=0)))
    return section.rows[np.argsort(section.centers_um[:, axis], kind="stable")]
