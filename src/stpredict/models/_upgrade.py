"""Configurations of older formats, rewritten as the current one."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from stpredict import _validate
from stpredict.models._config import VERSION
from stpredict.models._methods import METHODS
from stpredict.models._records import (
    DeepSpotNetwork,
    Hyperparameters,
    TrainingRecord,
)
from stpredict.training import Schedule

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Fields that all formats share.
_SAME = ("format", "stpredict_version", "method", "context", "units", "genes", "targets")


def upgrade(old: Mapping[str, Any]) -> dict[str, Any]:
    """Rewrite a configuration of format 2 to 4."""
    _validate.one_of("method", old.get("method"), METHODS)
    try:
        # in formats 2 and 3, options were one flat dictionary
        return _with_networks(_upgrade(old) if old["format_version"] < 4 else old)
    # values are checked only in the current format
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        version = old.get("format_version")
        raise ValueError(f"its configuration of format {version} is damaged: {reason}") from error


def _upgrade(old: Mapping[str, Any]) -> dict[str, Any]:
    options = old["hyperparameters"]
    recipe = dict(old["recipe"])
    layer_steps = recipe.pop("layer_steps", [])
    # normalisation had a field of its own, before the other steps of the layer
    if "normalize" in recipe:
        layer_steps = [{"step": "normalize", **recipe.pop("normalize")}, *layer_steps]
    return {
        **{name: old[name] for name in _SAME},
        "bases": options["bases"] if old["n_bases"] else [],
        "calibration": old.get("calibration"),  # format 2 has none
        "recipe": {**recipe, "layer_steps": layer_steps},
        "training": _training(old["training"]),
        "hyperparameters": _hyperparameters(options, old["method"]),
    }


def _with_networks(old: Mapping[str, Any]) -> dict[str, Any]:
    """Rewrite a configuration of format 4, whose networks were all single ones."""
    hyperparameters = dict(old["hyperparameters"])
    options = METHODS[old["method"]].options
    if options is not None and issubclass(options, DeepSpotNetwork):
        hyperparameters["network"] = {**hyperparameters["network"], "n_networks": 1}
    return {
        **old,
        "format_version": VERSION,
        "hyperparameters": hyperparameters,
        "training": _with_best_epochs(old["training"]),
    }


def _with_best_epochs(old: Mapping[str, Any]) -> dict[str, Any]:
    training = dict(old)
    best_epoch = training.pop("best_epoch")
    training["best_epochs"] = [best_epoch] if best_epoch else []
    if training.get("before") is not None:
        training["before"] = _with_best_epochs(training["before"])
    return training


def _hyperparameters(options: Mapping[str, Any], name: str) -> dict[str, Any]:
    method = METHODS[name]
    hyperparameters = _fields_of(Hyperparameters, options)
    kinds: dict[str, type | None] = {
        "network": method.options,
        # of the stacks, those with meta="ridge" have some
        "estimator": method.estimator_options if method.estimate or "alpha" in options else None,
        # methods that are fitted in one go have no schedule
        "schedule": Schedule if "max_epochs" in options else None,
    }
    hyperparameters |= {part: _fields_of(kind, options) for part, kind in kinds.items() if kind}
    if "train" in options:
        hyperparameters["finetuned"] = options["train"]
    return hyperparameters


def _training(old: Mapping[str, Any]) -> dict[str, Any]:
    training = {
        "groups": [],
        "best_epoch": old["best_epoch"],
        **_fields_of(TrainingRecord, old),
    }
    weight = training.get("sample_weight")
    if weight is not None:
        balance = weight.get("balance")
        # without columns, pp.balance had drawn by expression clusters
        balanced_by = None if balance is None else balance.get("by", [])
        training["sample_weight"] = {"column": weight["column"], "balanced_by": balanced_by}
    if "tuned" in training:
        scores = training["tuned"]["pcc"]
        training["tuned"] = dict(sorted(scores.items(), key=lambda item: -item[1]))
    if "before" in training:
        training["before"] = _training(training["before"])
    return training


def _fields_of(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Values that are fields of a dataclass."""
    names = {field.name for field in fields(kind)}
    return {name: value for name, value in values.items() if name in names}
