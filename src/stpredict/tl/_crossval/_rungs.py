"""Splits of the same data, from the leakiest to the strictest."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from stpredict import _keys, results
from stpredict._sdata._buffer import largest_tile_um, rows_near
from stpredict.tl._crossval._folds import folds_of, leave_blocks_out
from stpredict.tl._fitting._split import require_patients

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stpredict._sdata._spot_table import SpotTable
    from stpredict.tl._crossval._folds import Folds

#: What training and test spots have in common.
NEIGHBORS, SECTION, PATIENT = "neighbouring spots", "the section", "the patient"


def splits_of(
    spots: SpotTable, *, n_folds: int, seed: int
) -> tuple[dict[str, tuple[Folds, tuple[str, ...]]], dict[str, str]]:
    """Folds of each rung with what they share, and why other rungs are not possible."""
    require_patients(spots)
    splits: dict[str, tuple[Folds, tuple[str, ...]]] = {}
    impossible: dict[str, str] = {}
    random = _random_spots(spots, n_folds=n_folds, seed=seed)
    splits[results.RANDOM_SPOTS] = random, (NEIGHBORS, SECTION, PATIENT)
    try:
        splits[results.BLOCKS] = _blocks(spots, n_folds), (SECTION, PATIENT)
    except ValueError as error:  # too few spots for the buffer
        impossible[results.BLOCKS] = str(error)
    patients = _patients(spots)
    sections = _sections_by_patient(spots, patients)
    n_patients = 0 if patients is None else len(np.unique(patients))
    if len(sections) == 1:
        impossible[results.SECTIONS] = "there is a single section"
    elif n_patients == len(sections):
        impossible[results.SECTIONS] = "every patient has a single section"
    else:
        folds = _in_folds(spots, "section", spots.section_of_row, sections, n_folds)
        common = PATIENT if n_patients else f"perhaps {PATIENT}, not recorded"
        splits[results.SECTIONS] = folds, (common,)
    if patients is None:
        impossible[results.PATIENTS] = f"obs has no column {_keys.PATIENT!r}"
    elif n_patients == 1:
        impossible[results.PATIENTS] = "all sections are of one patient"
    else:
        names = [str(name) for name in dict.fromkeys(patients)]
        splits[results.PATIENTS] = _in_folds(spots, _keys.PATIENT, patients, names, n_folds), ()
    return splits, impossible


def _patients(spots: SpotTable) -> NDArray[np.str_] | None:
    """Patient of each row, (n_obs,); None if they are not recorded."""
    obs = spots.table.obs
    if _keys.PATIENT not in obs or obs[_keys.PATIENT].isna().all():
        return None
    return obs[_keys.PATIENT].astype(str).to_numpy()


def _sections_by_patient(spots: SpotTable, patients: NDArray[np.str_] | None) -> list[str]:
    """Names of the sections, those of a patient next to each other."""
    table = pd.DataFrame({"section": spots.section_of_row, "patient": patients})
    table = table.drop_duplicates("section").sort_values("patient", kind="stable")
    return [str(name) for name in table["section"]]


def _random_spots(spots: SpotTable, *, n_folds: int, seed: int) -> Folds:
    """Spots at random; a test spot sees the images of its neighbours, as is usual."""
    rows = np.arange(spots.table.n_obs)
    number = np.random.default_rng(seed).permutation(rows) % n_folds
    labels = np.array([f"part {n}" for n in number])
    by_fold = [(f"part {n}",) for n in range(n_folds)]
    folds = folds_of(spots, "spot", labels, by_fold)
    return replace(folds, folds=tuple(replace(fold, visible=rows) for fold in folds))


def _blocks(spots: SpotTable, n_folds: int) -> Folds:
    """Blocks of some sections at a time; a test spot sees images in the buffer.

    The buffer takes many spots from training. Blocks of fewer sections are left out at a time, so
    that about as many remain as in the other rungs. In the buffer, those spots are seen whose tiles
    share no pixel with tiles of training spots.
    """
    folds = leave_blocks_out(spots, n_folds, staggered=True)
    n_obs, names = spots.table.n_obs, spots.section_names
    unused = 1 - float(np.mean([len(fold.training) for fold in folds])) / n_obs
    n_parts = int(np.clip(round(unused * n_folds), 1, len(names)))
    side, rows = largest_tile_um(spots), np.arange(n_obs)
    parts = []
    for number in range(n_parts):
        in_part = np.isin(spots.section_of_row, names[number::n_parts])
        for fold in folds:
            training = np.union1d(fold.training, rows[~in_part])
            hidden = np.union1d(training, rows_near(spots, training, side))
            test = fold.rows[in_part[fold.rows]]
            parts.append(
                replace(
                    fold,
                    name=f"{fold.name}, part {number}",
                    rows=test,
                    training=training,
                    visible=np.union1d(test, np.setdiff1d(rows, hidden)),
                )
            )
    return replace(folds, folds=tuple(parts))


def _in_folds(
    spots: SpotTable, kind: str, labels: NDArray[np.str_], names: Sequence[str], n_folds: int
) -> Folds:
    """Deal the groups to the folds in turn, so that those next to each other are separated."""
    n = min(n_folds, len(names))
    by_fold = [tuple(names[first::n]) for first in range(n)]
    return folds_of(spots, kind, labels, by_fold)
