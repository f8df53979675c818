"""Out-of-fold predictions of a model's method, read with checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stpredict import _keys, _validate
from stpredict._sdata import _provenance, _sections
from stpredict.targets._matrix import dense
from stpredict.tl._fitting._split import group_labels

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from stpredict.models import Model

_AGAIN = "run stp.tl.cross_validate(sdata, …) on the model's training sections"


@dataclass(frozen=True)
class HeldOut:
    """What models that had not seen them predicted of rows.

    Attributes
    ----------
    measured, predicted
        (n, n_genes), of the model's genes; NaN where a gene was not predicted, or in one group.
    groups
        (n,) group of each row.
    sections
        (n,) section of each row.
    """

    measured: NDArray[np.float32]
    predicted: NDArray[np.float32]
    groups: NDArray[np.str_]
    sections: NDArray[np.str_]


def read(table: AnnData, own: AnnData, model: Model, method: str) -> HeldOut:
    """Read out-of-fold predictions, which must be of this model's method, sections and units."""
    how = _provenance.recorded(table, "cross_validate")
    _check_source(table, own, how, model, method)
    groups = _groups(own, how)
    places = table.var_names.get_indexer(list(model.genes))
    if (places < 0).all():
        raise KeyError(
            f"none of the model's {len(model.genes)} genes was predicted in the cross-validation: "
            f"it has {table.n_vars}, such as {_validate.listing(table.var_names[:3])}"
            + _validate.why_absent(model.genes, table.var_names)
        )
    there = places >= 0
    measured, predicted = np.full((2, table.n_obs, len(places)), np.nan, dtype=np.float32)
    measured[:, there] = dense(table.X[:, places[there]])
    predicted[:, there] = dense(table.layers[method][:, places[there]])
    _check_values(measured, predicted, table.obs[_keys.FOLD].astype(str).to_numpy(), method)
    seen = np.isfinite(predicted)
    n_groups = sum(seen[groups == group].any(axis=0).astype(int) for group in np.unique(groups))
    predicted[:, n_groups < 2] = np.nan  # one group does not say how groups differ
    if (n_groups < 2).all():
        raise ValueError(
            f"no gene was predicted in two groups by {method!r}: {_AGAIN}, with the same genes"
        )
    return HeldOut(measured, predicted, groups, _sections.region_of(table))


def _check_source(
    table: AnnData, own: AnnData, how: dict[str, Any], model: Model, method: str
) -> None:
    if not how or _keys.FOLD not in table.obs:
        raise ValueError(
            f"tables[{_keys.OUT_OF_FOLD!r}] was not written by stp.tl.cross_validate: {_AGAIN}"
        )
    known = [name for name in table.layers if name is not None]
    if method not in known:
        raise KeyError(
            f"method={method!r} was not cross-validated; there are: {_validate.listing(known)}"
        )
    if how.get("leaky"):
        raise ValueError(
            "the cross-validation is of a split that leaks a group, whose errors are too small for "
            "groups that are new: cross-validate without allow_leak=True"
        )
    if not table.obs_names.equals(own.obs_names):
        raise ValueError(
            f"tables[{_keys.OUT_OF_FOLD!r}] has other rows than the table ({table.n_obs} and "
            f"{own.n_obs}): were spots filtered since? {_AGAIN} again"
        )
    validated, trained = set(_sections.region_of(table)), set(model.training["sections"])
    if validated != trained:
        raise ValueError(
            f"the model was trained on {_validate.listing(sorted(trained))}, but cross-validated "
            f"were {_validate.listing(sorted(validated))}: {_AGAIN}, or fit the model to the "
            "sections that were cross-validated"
        )
    if how.get("units") != model.units:
        raise ValueError(
            f"the cross-validation is in {how.get('units')}, the model predicts {model.units}: "
            "cross-validate with the layer that the model was fitted to"
        )


def _groups(own: AnnData, how: dict[str, Any]) -> NDArray[np.str_]:
    """Group of each row, as it was left out; at least two."""
    column = how.get("groups")
    if column in (None, "section"):
        groups = _sections.region_of(own)
    else:
        groups = group_labels(own, str(column))[0]
    if len(set(groups)) < 2:
        raise ValueError(
            f"there is one group only, {groups[0]!r}: how far a model can be trusted in a new "
            "group is learnt from groups left out: give more sections or patients"
        )
    return groups


def _check_values(
    measured: NDArray[np.float32],
    predicted: NDArray[np.float32],
    folds: NDArray[np.str_],
    method: str,
) -> None:
    """Require predictions of a gene in all rows of a fold, or in none, and what was measured."""
    n_bad = int((~np.isfinite(measured) & ~np.isnan(predicted)).sum())
    if n_bad:
        raise ValueError(
            f"tables[{_keys.OUT_OF_FOLD!r}].X is NaN or infinite at {n_bad} of the predicted "
            f"values: {_AGAIN} again"
        )
    if np.isinf(predicted).any():
        raise ValueError(f"{int(np.isinf(predicted).sum())} predictions of {method!r} are infinite")
    for fold in dict.fromkeys(folds):
        lacking = np.isnan(predicted[folds == fold])
        n_torn = int((lacking.any(axis=0) & ~lacking.all(axis=0)).sum())
        if n_torn:
            raise ValueError(
                f"in fold {fold!r}, {n_torn} genes are predicted in some rows and NaN in others by "
                f"{method!r}: {_AGAIN} again, and look at the embedding for NaN"
            )
