"""Weights and sizes of the network in a pickled DeepSpot or DeepCell, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from stpredict.models._deepspot._inert import Foreign
from stpredict.nn import from_published_state

_PHI = ("Linear", "Dropout", "ReLU")
_RHO = ("Dropout", "ReLU", "Linear", "Dropout")


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


def state_of(module: Foreign, phi: str) -> dict[str, Tensor]:
    """Weights as `DeepSets` names them."""
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
                if not value.is_floating_point() or not torch.isfinite(value).all():
                    raise ValueError(f"{name} has values that are not finite")
                state[name] = value
    # the archive reads each storage once, so sharing can only come from the memo
    if len({id(value) for value in state.values()}) < len(state):
        raise ValueError(f"members of the {module.name.name} share weights")
    return from_published_state({name: value.float() for name, value in state.items()})


def sizes_of(state: Mapping[str, Tensor], context: str) -> dict[str, int]:
    """Sizes of the network, from weights that agree with each other and with the context."""
    n_phi, n_hidden, n_features = state["phi.weight"].shape
    n_rho, n_targets, n_inputs = state["rho.weight"].shape
    biases = (n_phi, n_hidden), (n_rho, n_targets)
    if (state["phi.bias"].shape, state["rho.bias"].shape) != biases:
        raise ValueError("its weights and biases differ in number or width")
    # rho reads the concatenated embeddings of the tile, its sub-tiles and its neighbours
    parts = 1 + ("subspot" in context) + ("neighbors" in context)
    if n_inputs != parts * n_hidden:
        raise ValueError(
            f"rho has {n_inputs} inputs, context {context!r} gives {parts} × {n_hidden}"
        )
    return {
        "n_features": n_features,
        "n_targets": n_targets,
        "n_hidden": n_hidden,
        "n_phi": n_phi,
        "n_rho": n_rho,
    }


def dropout_of(module: Foreign, part: str, position: str) -> float:
    """Dropout rate of a layer of phi or rho."""
    p = _layers(module, part)["0"][position].state.get("p")
    if not isinstance(p, int | float) or not 0 <= p < 1:
        raise ValueError(f"{part}.0.model.{position} has no dropout rate between 0 and 1")
    return float(p)
