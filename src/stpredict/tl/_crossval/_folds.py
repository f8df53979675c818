"""What is left out in turn, and the sections without it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from sklearn.model_selection import GroupKFold
from spatialdata import SpatialData
from spatialdata.models import TableModel, get_table_keys

from stpredict import _keys, _validate
from stpredict._sdata import _elements, _sections
from stpredict.tl._fitting._split import group_labels

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Folds:
    """What is left out in turn.

    Attributes
    ----------
    kind
        What the groups are: a column of ``obs``, or section.
    rows
        By the names of the groups left out, the rows of the table that are.
    torn
        Sections with spots on both sides of a split.
    shared
        Patients with spots on both sides of a split, where there are several patients.
    """

    kind: str
    rows: dict[str, NDArray[np.intp]]
    torn: tuple[str, ...]
    shared: tuple[str, ...]

    def __iter__(self) -> Iterator[tuple[str, NDArray[np.intp]]]:
        return iter(self.rows.items())

    def names(self) -> list[str]:
        """Names of the folds."""
        return list(self.rows)

    def leaks(self) -> str:
        """What stands on both sides of a split, in words; empty if nothing does."""
        parts = [
            f"{what} {_validate.listing(names)}"
            for what, names in (("patients", self.shared), ("spots of sections", self.torn))
            if names
        ]
        return " and ".join(parts)

    def refuse_leaks(self, groups: str | None, *, otherwise: str = "") -> None:
        """Raise where something stands on both sides of a split."""
        if self.leaks():
            raise ValueError(
                f"groups={groups!r}: {self.leaks()} would stand on both sides of a split, and be "
                "predicted from themselves: leave groups= out, or give a column that keeps them "
                f"together{otherwise}"
            )


def folds_of(
    table: AnnData, groups: str | None, *, purpose: str, n_folds: int | None = None
) -> Folds:
    """Leave out every group in turn, or some at a time in ``n_folds`` of about equal size."""
    labels, kind = group_labels(table, groups)
    names = list(dict.fromkeys(labels))
    if len(names) == 1:
        raise ValueError(
            f"there is only one {kind}, {names[0]!r}, but {purpose} predicts each by models that "
            "were fitted on the others: give more sections, or groups= with a column of several "
            f"groups (columns: {_validate.listing(table.obs.columns)})"
        )
    rows = {name: np.flatnonzero(labels == name) for name in names}
    if n_folds is not None:
        if not isinstance(n_folds, int) or not 2 <= n_folds <= len(names):
            raise ValueError(
                f"n_folds={n_folds!r} must lie between 2 and {len(names)}, the number of groups "
                f"({kind})"
            )
        splits = GroupKFold(n_folds).split(labels, groups=labels)
        rows = {"+".join(dict.fromkeys(labels[held])): held for _, held in splits}
    return Folds(
        kind, rows, torn=_torn(_sections.region_of(table), rows), shared=_shared(table, rows)
    )


def _torn(values: NDArray[np.str_], rows: dict[str, NDArray[np.intp]]) -> tuple[str, ...]:
    """Values that occur both among the rows left out and among the others."""
    found: dict[str, None] = {}
    for held_out in rows.values():
        left = np.delete(values, held_out)
        found |= dict.fromkeys(name for name in dict.fromkeys(values[held_out]) if name in left)
    return tuple(map(str, found))


def _shared(table: AnnData, rows: dict[str, NDArray[np.intp]]) -> tuple[str, ...]:
    if _keys.PATIENT not in table.obs or table.obs[_keys.PATIENT].nunique() < 2:
        return ()
    return _torn(table.obs[_keys.PATIENT].astype(str).to_numpy(), rows)


def only(sdata: SpatialData, rows: NDArray[np.intp]) -> SpatialData:
    """Copy some rows, with their sections and shapes; images, which are lazy, are shared."""
    table = _sections.table_of(sdata)
    _, region_key, instance_key = get_table_keys(table)
    kept = table[np.sort(rows)].copy()
    del kept.uns[TableModel.ATTRS_KEY]
    kept.obs[region_key] = kept.obs[region_key].astype(str).astype("category")
    names = list(dict.fromkeys(kept.obs[region_key]))
    images = {_elements.image_name(sdata, name) for name in names}
    images |= {_keys.normalized(image) for image in images}
    return SpatialData.init_from_elements(
        {
            **{name: image for name, image in sdata.images.items() if name in images},
            **{name: sdata.shapes[name].copy() for name in names},
            **{
                name: labels
                for name, labels in sdata.labels.items()
                if name in {_keys.tissue(image) for image in images}
            },
            _keys.TABLE: TableModel.parse(
                kept, region=names, region_key=region_key, instance_key=instance_key
            ),
        },
        attrs=dict(sdata.attrs),
    )
