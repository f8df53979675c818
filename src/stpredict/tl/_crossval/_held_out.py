"""Out-of-fold predictions of a model's method, read with checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stpredict import _keys, _validate
from stpredict._sdata._provenance import recorded
from stpredict._sdata._spot_table import layer_names, open_table
from stpredict.targets._matrix import dense
from stpredict.tl._crossval._options import match_method
from stpredict.tl._fitting._split import group_labels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stpredict._sdata._spot_table import SpotTable
    from stpredict.models import Model

_REMEDY = "run stp.tl.cross_validate(sdata, …) on the model's training sections"


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Predictions of models that had not been fitted on the rows."""

    method: str  # name in the cross-validation
    measured: NDArray[np.float32]  # (n, n_genes), for the model's genes
    predicted: NDArray[np.float32]  # NaN where a gene was not predicted, or in one group only
    groups: NDArray[np.str_]  # (n,)
    sections: NDArray[np.str_]  # (n,)


def read_held_out(spots: SpotTable, model: Model, *, method: str | None, key: str) -> HeldOut:
    """Read out-of-fold predictions, which must be of this model's method, sections and units.

    Without a method, it is the one that has the model's options.
    """
    out_of_fold = open_table(spots.sdata, key)
    table = out_of_fold.table
    protocol = recorded(table, "cross_validate")
    _check_validated(spots, out_of_fold, protocol, method)
    method = _check_source(out_of_fold, protocol, model, method)
    groups = _groups(spots, protocol)
    columns = table.var_names.get_indexer(list(model.genes))
    predicted_before = columns >= 0
    if not predicted_before.any():
        reason = _validate.why_absent(model.genes, table.var_names)
        raise KeyError(f"tables[{key!r}] has none of the model's {len(model.genes)} genes{reason}")
    shape = (2, table.n_obs, len(columns))
    measured, predicted = np.full(shape, np.nan, dtype=np.float32)
    measured[:, predicted_before] = dense(table.X[:, columns[predicted_before]])
    predicted[:, predicted_before] = dense(table.layers[method][:, columns[predicted_before]])
    _check_values(measured, predicted, table.obs[_keys.FOLD].astype(str).to_numpy(), method)
    is_finite = np.isfinite(predicted)
    n_groups = sum(is_finite[groups == name].any(axis=0).astype(int) for name in np.unique(groups))
    predicted[:, n_groups < 2] = np.nan  # one group does not show how groups differ
    if (n_groups < 2).all():
        raise ValueError(f"{method!r} predicted no gene in two groups: {_REMEDY}")
    return HeldOut(method, measured, predicted, groups, spots.section_of_row)


def read_method(
    spots: SpotTable, *, method: str | None, key: str
) -> tuple[HeldOut, NDArray[np.str_]]:
    """Read out-of-fold predictions of a method, by default the only one, and names of its genes."""
    out_of_fold = open_table(spots.sdata, key)
    table = out_of_fold.table
    protocol = recorded(table, "cross_validate")
    _check_validated(spots, out_of_fold, protocol, method)
    if method is None:
        own = [name for name in layer_names(table) if name not in protocol.get("baselines", ())]
        if len(own) != 1:
            raise ValueError(f"method= must name one of {_validate.listing(own)}")
        method = own[0]
    groups = _groups(spots, protocol)
    measured, predicted = dense(table.X), dense(table.layers[method])
    _check_values(measured, predicted, table.obs[_keys.FOLD].astype(str).to_numpy(), method)
    held_out = HeldOut(method, measured, predicted, groups, spots.section_of_row)
    return held_out, table.var_names.to_numpy(dtype=str)


def _check_validated(
    spots: SpotTable, out_of_fold: SpotTable, protocol: dict[str, Any], method: str | None
) -> None:
    """Require a table of `tl.cross_validate` for these rows, without a leak."""
    table, name = out_of_fold.table, out_of_fold.name
    if not protocol or _keys.FOLD not in table.obs:
        raise ValueError(f"tables[{name!r}] was not written by stp.tl.cross_validate: {_REMEDY}")
    methods = layer_names(table)
    if method is not None and method not in methods:
        available = _validate.listing(methods)
        raise KeyError(f"method={method!r} was not cross-validated; methods: {available}")
    if protocol.get("leaky"):
        raise ValueError("the split leaks a group: cross-validate without allow_leak=True")
    if not table.obs_names.equals(spots.table.obs_names):
        raise ValueError(f"tables[{name!r}] and the table have different rows: {_REMEDY}")


def _check_source(
    out_of_fold: SpotTable, protocol: dict[str, Any], model: Model, method: str | None
) -> str:
    """Require a table of the model's method, sections and units; returns the method's name."""
    name = out_of_fold.name
    validated, trained = set(out_of_fold.section_names), set(model.training.sections)
    if validated != trained:
        raise ValueError(
            f"the model was trained on {_validate.listing(sorted(trained))}, but the "
            f"cross-validation used {_validate.listing(sorted(validated))}: {_REMEDY}"
        )
    if protocol.get("units") != model.units:
        units = protocol.get("units")
        raise ValueError(f"the cross-validation is in {units}, the model predicts {model.units}")
    options = protocol.get("options", {})
    if not options or (method is not None and method not in options):
        raise ValueError(f"tables[{name!r}] does not record the options of its models: {_REMEDY}")
    baselines = protocol.get("baselines", ())
    return match_method(model, method, options, baselines=baselines)


def _groups(spots: SpotTable, protocol: dict[str, Any]) -> NDArray[np.str_]:
    """Group of each row, as it was left out; at least two."""
    kind, groups = protocol.get("group_kind"), spots.section_of_row
    if protocol.get("buffer_um") is not None:  # blocks of tissue
        raise ValueError(
            "the cross-validation left out blocks, which do not show how sections differ: leave "
            "out sections or patients"
        )
    if kind not in (None, "section"):
        groups = group_labels(spots, str(kind))[0]
    if len(set(groups)) < 2:
        raise ValueError(f"there is only one group, {groups[0]!r}: give more sections or patients")
    return groups


def _check_values(
    measured: NDArray[np.float32],
    predicted: NDArray[np.float32],
    folds: NDArray[np.str_],
    method: str,
) -> None:
    """Require finite measured values, and predictions of a gene in all rows of a fold or none."""
    n_bad = int((~np.isfinite(measured) & ~np.isnan(predicted)).sum())
    if n_bad:
        raise ValueError(f"{n_bad} measured values out of fold are NaN or infinite: {_REMEDY}")
    if np.isinf(predicted).any():
        raise ValueError(f"{int(np.isinf(predicted).sum())} predictions of {method!r} are infinite")
    for fold in dict.fromkeys(folds):
        is_nan = np.isnan(predicted[folds == fold])
        n_partial = int((is_nan.any(axis=0) & ~is_nan.all(axis=0)).sum())
        if n_partial:
            raise ValueError(
                f"{method!r} predicts {n_partial} genes in only some rows of fold {fold!r}: "
                "check the embedding for NaN"
            )
