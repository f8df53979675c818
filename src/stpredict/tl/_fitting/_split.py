"""What is held out for early stopping."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stpredict import _keys, _validate
from stpredict._log import tell
from stpredict._sdata import _sections

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

#: Of a single section, this share of the spots is held out.
_BLOCK_SHARE = 0.2
#: A correlation, or a spread, of fewer spots says nothing.
_LEAST_SPOTS = 10


@dataclass(frozen=True)
class Split:
    """Rows to train on, rows to stop early by, and what the latter are.

    Attributes
    ----------
    training, validation
        Rows of the table.
    groups
        Group of each row of the table, (n_obs,): what ridge's alpha is tuned over.
    held_out
        In words.
    """

    training: NDArray[np.intp]
    validation: NDArray[np.intp]
    groups: NDArray[np.str_]
    held_out: str


def split(
    table: AnnData, found: list[_sections.Section], *, groups: str | None, seed: int
) -> Split:
    """Hold out one group (patient, section), or a block of tissue of a single section."""
    labels, kind = group_labels(table, groups)
    names = list(dict.fromkeys(labels))
    if len(names) == 1:
        return _block(found, kind=kind, name=names[0])
    chosen = names[np.random.default_rng(seed).integers(len(names))]
    held_out = labels == chosen
    _check_sizes(int((~held_out).sum()), int(held_out.sum()))
    return Split(
        training=np.flatnonzero(~held_out),
        validation=np.flatnonzero(held_out),
        groups=labels,
        held_out=f"{kind} {chosen}",
    )


def whole(
    table: AnnData, found: list[_sections.Section], *, groups: str | None, seed: int
) -> Split:
    """Train on all rows; what is tuned is tuned over groups, or blocks of a single section."""
    labels, _ = group_labels(table, groups)
    if len(set(labels)) == 1:
        labels = _blocks(found)[0]
    return Split(
        training=np.arange(len(labels)),
        validation=np.arange(0),
        groups=labels,
        held_out="nothing",
    )


def group_labels(table: AnnData, column: str | None) -> tuple[NDArray[np.str_], str]:
    """Group of each row, (n_obs,), and what the groups are: a column, or sections."""
    if column is not None:
        if column not in table.obs:
            raise KeyError(
                f"groups={column!r} is no column of obs: {_validate.listing(table.obs.columns)}"
            )
        if table.obs[column].isna().any():
            raise ValueError(
                f"{int(table.obs[column].isna().sum())} rows have no group in obs[{column!r}]"
            )
        return table.obs[column].astype(str).to_numpy(), column
    if _keys.PATIENT in table.obs and table.obs[_keys.PATIENT].nunique() > 1:
        return group_labels(table, _keys.PATIENT)
    return _sections.region_of(table), "section"


def _block(found: list[_sections.Section], *, kind: str, name: str) -> Split:
    """One end of the tissue, along its longer side, of every section."""
    groups, training, validation = _blocks(found)
    n_rows = len(groups)
    rows = np.sort(np.concatenate(training)), np.sort(np.concatenate(validation))
    _check_sizes(len(rows[0]), len(rows[1]))
    tell(
        f"only one {kind} ({name}): a contiguous block of {len(rows[1])} of {n_rows} spots at one "
        "end of the tissue is held out for early stopping"
    )
    return Split(
        training=rows[0],
        validation=rows[1],
        groups=groups,
        held_out=f"a contiguous block of {kind} {name}",
    )


def _blocks(
    found: list[_sections.Section],
) -> tuple[NDArray[np.str_], list[NDArray[np.intp]], list[NDArray[np.intp]]]:
    """Blocks of tissue that stand in for groups; rows of all but the last, rows of the last."""
    training, validation = [], []
    groups = np.empty(sum(len(section.rows) for section in found), dtype="<U32")
    for section in found:
        longer = int(np.argmax(np.ptp(section.centers_um, axis=0)))
        along = section.rows[np.argsort(section.centers_um[:, longer], kind="stable")]
        cut = len(along) - round(len(along) * _BLOCK_SHARE)
        training.append(along[:cut])
        validation.append(along[cut:])
        for number, block in enumerate(np.array_split(along, round(1 / _BLOCK_SHARE))):
            groups[block] = f"block {number}"
    return groups, training, validation


def _check_sizes(n_training: int, n_validation: int) -> None:
    if min(n_training, n_validation) < _LEAST_SPOTS:
        raise ValueError(
            f"too few spots to hold any out: {n_training} to train on and {n_validation} to stop "
            f"early by, at least {_LEAST_SPOTS} of each are needed"
        )
