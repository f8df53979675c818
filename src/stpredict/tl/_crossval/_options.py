"""Method and options of a model, to compare a model with the folds of a cross-validation."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from stpredict import _validate

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from stpredict.models import Model


def options_of(model: Model) -> str:
    """Method and options of a model as JSON, without anything that was fitted to rows."""
    return json.dumps(_options(model), sort_keys=True, default=str)


def match_method(
    model: Model,
    method: str | None,
    options: Mapping[str, Sequence[str]],  # of the models of all folds, by name of the method
    *,
    baselines: Collection[str],
) -> str:
    """The cross-validated method of a model: the given one, or the only one with its options."""
    own = options_of(model)
    if method is not None:
        if own not in options[method]:
            raise ValueError(
                f"method={method!r} was cross-validated with other options than the model's: "
                f"{_differences(own, options[method][0])}. Cross-validate and fit the same method"
            )
        return method
    matching = [name for name, of_folds in options.items() if own in of_folds]
    # a method of the user may be equal to the baseline
    matching = [name for name in matching if name not in baselines] or matching
    if len(matching) > 1:
        names = _validate.listing(matching)
        raise ValueError(f"the methods {names} all have the model's options: give one as method=")
    if not matching:
        differences = "; ".join(
            f"{name}: {_differences(own, of_folds[0])}" for name, of_folds in options.items()
        )
        raise ValueError(
            f"no cross-validated method has the model's options ({differences}). Cross-validate "
            "and fit the same method"
        )
    return matching[0]


def _options(model: Model) -> dict[str, Any]:
    if model.training.tuned is not None:  # the best candidate may differ between folds
        return {"candidates": sorted(model.training.tuned)}
    recipe, targets = model.recipe, model.targets.state()[0]
    weights, hyperparameters = model.training.sample_weight, asdict(model.hyperparameters)
    if (hyperparameters["estimator"] or {}).get("alpha_from") in ("tuned", "hest"):
        del hyperparameters["estimator"]["alpha"]
    inputs = [step for step in (recipe.embed, recipe.neighbors, recipe.tiles) if step is not None]
    return {
        "method": model.method,
        "context": model.context,
        "layer": recipe.layer,
        "embedding": recipe.embedding,
        "standardize": recipe.standardize,
        "targets": {name: value for name, value in targets.items() if name != "n_fit_genes"},
        "hyperparameters": hyperparameters,
        "sample_weight": None if weights is None else asdict(weights),
        "bases": {name: _options(base) for name, base in model.bases.items()},
        # the stain, like the selected genes, is fitted in each fold
        **{step.name: {**step.to_plain(), "stain": None} for step in inputs},
    }


def _differences(own: str, of_fold: str) -> str:
    """Options in which a model differs from that of a fold, in words."""
    model, fold = (_flat(json.loads(text)) for text in (own, of_fold))
    names = [name for name in {**model, **fold} if model.get(name) != fold.get(name)]
    names.sort(key=lambda name: name.count("."))  # the method before its options
    return _validate.listing(
        (f"{name}={fold.get(name)!r} (model: {model.get(name)!r})" for name in names), most=3
    )


def _flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by path, with one level."""
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        path = f"{prefix}{name}"
        flat |= _flat(value, f"{path}.") if isinstance(value, dict) else {path: value}
    return flat
