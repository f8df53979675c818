"""Published DeepSpot and DeepCell models, whose files are checked against each other."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stpredict.models._deepspot._files import find, flat_values, read_genes, read_hyperparameters
from stpredict.models._deepspot._inert import Array, Foreign
from stpredict.models._deepspot._restricted import read_module
from stpredict.models._methods import METHODS
from stpredict.models._records import DeepCellNetwork, DeepSpotNetwork
from stpredict.nn import from_published_state
from stpredict.targets import Standard

#: Word in the names of a class's parts, hyperparameters and contexts.
_KINDS = {"DeepSpot": "spot", "DeepCell": "cell"}

# types of the layers of a member of each ensemble
_PHI = ("Linear", "Dropout", "ReLU")
_RHO = ("Dropout", "ReLU", "Linear", "Dropout")

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
    path, settings, gene_source = find(weights, hyperparameters, genes)
    module = read_module(path)
    if module.name.name not in _KINDS:
        raise ValueError(f"{path} holds {module.name}, expected DeepSpot or DeepCell")
    kind, method = _KINDS[module.name.name], module.name.name.lower()
    in_pickle = flat_values(module.state.get("_hparams"))
    in_file = read_hyperparameters(settings) if settings else {}
    published = {**in_pickle, **in_file}
    context = _context(module, f"{kind}_context", METHODS[method].contexts, published)
    state = _state(module, f"phi_{kind}", context)
    n_phi, n_hidden, n_features = state["phi.weight"].shape
    n_rho, n_targets, _ = state["rho.weight"].shape
    aggregation = module.state.get("agg_neighbors", "max")
    if aggregation not in ("max", "mean", "sum"):
        raise ValueError(f"{path} aggregates neighbours in an unknown way")
    expected = {
        "input_size": n_features,
        "output_size": n_targets,
        "phi2rho_size": n_hidden,
        "n_ensemble_phi": n_phi,
        "n_ensemble_rho": n_rho,
        f"{kind}_context": context,
        **({"agg_neighbors": aggregation} if kind == "cell" else {}),
    }
    for source, reported in (("the pickle", in_pickle), (str(settings), in_file)):
        _check_agreement(expected, reported, source=source, weights=path)
    dropout = _dropout(module, f"phi_{kind}", "1")
    options = DeepSpotNetwork(n_hidden, n_phi, n_rho, dropout, n_networks=1)
    if kind == "cell":
        options = DeepCellNetwork(**vars(options), aggregation=aggregation)
    targets, knows_mean = _targets(module.state.get("scaler"), n_targets)
    return Release(
        method=method,
        context=context,
        options=options,
        output_dropout=_dropout(module, "rho", "3"),
        # the number of outputs is known only from the weights
        genes=read_genes(gene_source, n_outputs=n_targets, weights=path),
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
        choices = ", ".join(contexts)
        raise ValueError(f"the context of {module.name.name} is {context!r:.60}, known: {choices}")
    return str(context)


def _children(module: Any, name: str) -> dict[str, Foreign]:
    """Submodules of a module."""
    children = module.state.get("_modules") if isinstance(module, Foreign) else None
    if type(children) is not dict or not all(isinstance(c, Foreign) for c in children.values()):
        raise ValueError(f"the module {name} is not as torch saves modules")
    return children


def _layers(module: Foreign, part: str) -> dict[str, dict[str, Foreign]]:
    """Layers of every member of phi or rho, which must be those of the published network."""
    kinds = _RHO if part == "rho" else _PHI
    members = {}
    for number, member in _children(_children(module, "model")[part], part).items():
        name = f"{part}.{number}"
        layers = _children(_children(member, name).get("model"), f"{name}.model")
        layer_kinds = tuple(layer.name.name for layer in layers.values())
        if layer_kinds != kinds or list(layers) != [str(i) for i in range(len(kinds))]:
            raise ValueError(
                f"{name} has the layers {', '.join(layer_kinds[:12])}, expected "
                f"{', '.join(kinds)}: this is another version of {module.name.name}"
            )
        members[number] = layers
    if list(members) != [str(i) for i in range(len(members))]:
        raise ValueError(f"{part} has members {', '.join(members)[:80]} instead of 0, 1, …")
    return members


def _state(module: Foreign, phi: str, context: str) -> dict[str, Tensor]:
    """Weights as `DeepSets` names them, which agree with each other and with the context."""
    parts = set(_children(module, "model"))
    if parts != {phi, "rho"}:
        raise ValueError(
            f"the {module.name.name} has the parts {', '.join(sorted(parts))[:200]}, expected "
            f"{phi}, rho: this is another version of it"
        )
    state: dict[str, Tensor] = {}
    for part, position in ((phi, "0"), ("rho", "2")):
        for number, layers in _layers(module, part).items():
            state_of_layer = layers[position].state.get("_parameters")
            parameters = state_of_layer if type(state_of_layer) is dict else {}
            for kind, ndim in (("weight", 2), ("bias", 1)):
                name, value = f"{part}.{number}.model.{position}.{kind}", parameters.get(kind)
                if not isinstance(value, Tensor) or value.ndim != ndim:
                    raise ValueError(f"{name} is missing, or does not have {ndim} dimensions")
                # as float32, in which larger values become infinite
                is_finite = value.is_floating_point() and torch.isfinite(value.float()).all()
                if not is_finite:
                    raise ValueError(f"{name} has values that are not finite")
                state[name] = value
    # the archive reads each storage once, so sharing can only come from the memo
    if len({id(value) for value in state.values()}) < len(state):
        raise ValueError(f"members of the {module.name.name} share weights")
    stacked = from_published_state({name: value.float() for name, value in state.items()})
    n_phi, n_hidden, _ = stacked["phi.weight"].shape
    n_rho, n_targets, n_inputs = stacked["rho.weight"].shape
    biases = (n_phi, n_hidden), (n_rho, n_targets)
    if (stacked["phi.bias"].shape, stacked["rho.bias"].shape) != biases:
        raise ValueError("its weights and biases differ in number or width")
    # rho reads the concatenated embeddings of the tile, its sub-tiles and its neighbours
    n_parts = 1 + ("subspot" in context) + ("neighbors" in context)
    if n_inputs != n_parts * n_hidden:
        raise ValueError(
            f"rho has {n_inputs} inputs, context {context!r} gives {n_parts} × {n_hidden}"
        )
    return stacked


def _dropout(module: Foreign, part: str, position: str) -> float:
    """Dropout rate of a layer of phi or rho."""
    p = _layers(module, part)["0"][position].state.get("p")
    if not isinstance(p, int | float) or not 0 <= p < 1:
        raise ValueError(f"{part}.0.model.{position} has no dropout rate between 0 and 1")
    return float(p)


def _check_agreement(
    expected: Mapping[str, Any], reported: Mapping[str, Any], *, source: str, weights: Path
) -> None:
    """Require published hyperparameters that agree with the weights."""
    different = []
    for name, value in expected.items():
        # releases report one size for both ensembles, or one for each
        is_shared = name.startswith("n_ensemble") and reported.get(name) is None
        key = "n_ensemble" if is_shared else name
        if reported.get(key) not in (None, value):
            different.append(f"{key} is {reported[key]!r:.60} but {value!r} in the weights")
    if different:
        raise ValueError(
            f"the hyperparameters of {source} are not those of {weights} "
            f"({'; '.join(different)}): pass hyperparameters= of the same release"
        )


def _targets(scaler: Any, n_targets: int) -> tuple[Standard, bool]:
    """Scaling of a fitted scaler of scikit-learn, and whether it is centred on the mean."""
    mean, scale, knows_mean = np.zeros(n_targets), np.ones(n_targets), False
    if scaler is not None:
        if not isinstance(scaler, Foreign) or scaler.name.name not in _SCALERS:
            raise ValueError(f"its scaler is not one of {', '.join(_SCALERS)}")
        center, shifts, scales = _SCALERS[scaler.name.name]
        # StandardScaler has a mean_ even if with_mean is False
        if scaler.state.get(shifts) is True:
            mean, knows_mean = _vector(scaler, center, n_targets), center == "mean_"
        if scaler.state.get(scales) is True:
            scale = _vector(scaler, "scale_", n_targets)
    # values beyond the range of float32 become infinite, or 0
    with np.errstate(over="ignore"):
        center32, scale32 = mean.astype(np.float32), scale.astype(np.float32)
    if not (np.isfinite(center32).all() and np.isfinite(scale32).all() and (scale32 > 0).all()):
        raise ValueError(
            "its scaler has values that are not finite, or a scale that is not above 0"
        )
    return Standard(center32, scale32), knows_mean


def _vector(scaler: Foreign, name: str, n_targets: int) -> np.ndarray[Any, Any]:
    array = scaler.state.get(name)
    values = array.values if isinstance(array, Array) else None
    if values is None or values.shape != (n_targets,):
        problem = "is missing" if values is None else f"has shape {values.shape}"
        raise ValueError(f"{name} of its {scaler.name.name} {problem}, outputs: {n_targets}")
    return values
