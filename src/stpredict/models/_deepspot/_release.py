"""Published DeepSpot and DeepCell models, whose files are checked against each other."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from stpredict.models._deepspot._files import find, flat_values, read_genes, read_hyperparameters
from stpredict.models._deepspot._inert import Array, Foreign
from stpredict.models._deepspot._network import dropout_of, sizes_of, state_of
from stpredict.models._deepspot._restricted import read_module
from stpredict.models._methods import METHODS
from stpredict.models._records import DeepCellNetwork, DeepSpotNetwork
from stpredict.targets import Standard

#: Word in the names of a class's parts, hyperparameters and contexts.
_KINDS = {"DeepSpot": "spot", "DeepCell": "cell"}
_AGGREGATIONS = ("max", "mean", "sum")

#: For each scaler: attribute of its centre, and the flags for centring and scaling.
_SCALERS = {
    "StandardScaler": ("mean_", "with_mean", "with_std"),
    "RobustScaler": ("center_", "with_centering", "with_scaling"),
}


@dataclass(frozen=True, eq=False)
class Release:
    """A published model."""

    method: str
    context: str
    n_features: int
    options: DeepSpotNetwork | DeepCellNetwork
    output_dropout: float
    genes: tuple[str, ...]  # in the order of the outputs
    targets: Standard  # scaling in training
    knows_mean: bool  # whether the scaling's centre is the training mean, not the median or 0
    encoder: str | None  # published name
    state: dict[str, Tensor] = field(repr=False)  # float32 weights, as `DeepSets` names them
    hyperparameters: dict[str, Any] = field(repr=False)  # numbers, strings, None


def read_release(
    weights: str | Path,
    hyperparameters: str | Path | None = None,
    genes: str | Path | Sequence[str] | None = None,
) -> Release:
    """Read a published model without executing it; see :func:`stpredict.models.from_deepspot`."""
    files = find(weights, hyperparameters, genes)
    module = read_module(files.weights)
    if module.name.name not in _KINDS:
        raise ValueError(f"{files.weights} holds {module.name}, expected DeepSpot or DeepCell")
    kind, method = _KINDS[module.name.name], module.name.name.lower()
    in_pickle = flat_values(module.state.get("_hparams"))
    in_file = read_hyperparameters(files.hyperparameters) if files.hyperparameters else {}
    published = {**in_pickle, **in_file}
    context = _context(module, f"{kind}_context", METHODS[method].contexts, published)
    state = state_of(module, f"phi_{kind}")
    sizes = sizes_of(state, context)
    n_features, n_targets = sizes.pop("n_features"), sizes.pop("n_targets")
    aggregation = module.state.get("agg_neighbors", "max")
    if aggregation not in _AGGREGATIONS:
        raise ValueError(f"{files.weights} aggregates neighbours in an unknown way")
    expected = {"input_size": n_features, "output_size": n_targets, f"{kind}_context": context}
    pooling = {"aggregation": aggregation} if method == "deepcell" else {}
    if pooling:
        expected["agg_neighbors"] = aggregation
    for source, reported in (("the pickle", in_pickle), (str(files.hyperparameters), in_file)):
        _check_agreement(expected, sizes, reported, source=source, weights=files.weights)
    # the number of outputs is known only from the weights
    names = read_genes(files.genes, n_outputs=n_targets, weights=files.weights)
    targets, knows_mean = _targets(module.state.get("scaler"), n_targets)
    options = DeepCellNetwork if method == "deepcell" else DeepSpotNetwork
    return Release(
        method=method,
        context=context,
        n_features=n_features,
        options=options(**sizes, **pooling, dropout=dropout_of(module, f"phi_{kind}", "1")),
        output_dropout=dropout_of(module, "rho", "3"),
        genes=names,
        targets=targets,
        knows_mean=knows_mean,
        encoder=published.get("image_feature_model"),
        state=state,
        hyperparameters=published,
    )


def _context(
    module: Foreign, key: str, contexts: Collection[str], published: Mapping[str, Any]
) -> str:
    """Context of the model: its forward function in the pickle, else its hyperparameter."""
    forward, reported = module.state.get("_forward_fn"), published.get(key)
    context = forward.removeprefix("_forward_") if isinstance(forward, str) else reported
    if context not in contexts:
        shown = repr(context)[:60] if isinstance(context, str) else "no name"
        raise ValueError(f"the context of {module.name.name} is {shown}: {', '.join(contexts)}")
    return str(context)


def _check_agreement(
    expected: Mapping[str, Any],
    sizes: Mapping[str, int],
    reported: Mapping[str, Any],
    *,
    source: str,
    weights: Path,
) -> None:
    """Require published hyperparameters that agree with the weights."""
    expected = {**expected, "phi2rho_size": sizes["n_hidden"]}
    for part in ("phi", "rho"):
        # releases report one size for both ensembles, or one for each
        is_separate = reported.get(f"n_ensemble_{part}") is not None
        expected[f"n_ensemble_{part}" if is_separate else "n_ensemble"] = sizes[f"n_{part}"]
    different = [
        f"{name} is {reported[name]!r:.60} but {value!r} in the weights"
        for name, value in expected.items()
        if reported.get(name) is not None and reported[name] != value
    ]
    if different:
        raise ValueError(
            f"the hyperparameters of {source} are not those of {weights} "
            f"({'; '.join(different)}): pass hyperparameters= of the same release"
        )


def _targets(scaler: Any, n_targets: int) -> tuple[Standard, bool]:
    """Scaling of a fitted scaler of scikit-learn, and whether it is centred on the mean."""
    mean, scale = np.zeros(n_targets), np.ones(n_targets)
    is_standard = False
    if scaler is not None:
        if not isinstance(scaler, Foreign) or scaler.name.name not in _SCALERS:
            raise ValueError(f"its scaler is not one of {', '.join(_SCALERS)}")
        center, shifts, scales = _SCALERS[scaler.name.name]
        is_standard = scaler.name.name == "StandardScaler"
        # StandardScaler has a mean_ even if with_mean is False
        if is_centred := scaler.state.get(shifts) is True:
            mean = _vector(scaler, center, n_targets)
        if scaler.state.get(scales) is True:
            scale = _vector(scaler, "scale_", n_targets)
        is_standard = is_standard and is_centred
    return Standard(mean.astype(np.float32), scale.astype(np.float32)), is_standard


def _vector(scaler: Foreign, name: str, n_targets: int) -> np.ndarray[Any, Any]:
    array = scaler.state.get(name)
    values = array.values if isinstance(array, Array) else None
    if values is None or values.shape != (n_targets,):
        problem = "is missing" if values is None else f"has shape {values.shape}"
        raise ValueError(f"{name} of its {scaler.name.name} {problem}, outputs: {n_targets}")
    return values
