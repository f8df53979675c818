"""Published DeepSpot and DeepCell models: what their files say, checked against each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor

from stpredict.models._deepspot._files import find, read_genes, read_hyperparameters
from stpredict.models._deepspot._inert import Array, Foreign
from stpredict.models._deepspot._network import LAYOUTS, Layout, dropout_of, sizes_of, state_of
from stpredict.models._deepspot._restricted import read_module
from stpredict.targets import Standard

_AGGREGATIONS = ("max", "mean", "sum")

#: Of each scaler: attribute of its centre, and the flags by which it shifts and scales.
_SCALERS = {
    "StandardScaler": ("mean_", "with_mean", "with_std"),
    "RobustScaler": ("center_", "with_centering", "with_scaling"),
}


@dataclass(frozen=True, eq=False)
class Release:
    """A published model.

    Attributes
    ----------
    method
        ``"deepspot"`` or ``"deepcell"``.
    context
        What the network looks at, as the methods name it.
    aggregation
        How neighbours are reduced: ``"max"``, ``"mean"`` or ``"sum"``.
    n_features, n_targets, n_hidden, n_phi, n_rho
        Sizes, read from the weights.
    dropout, output_dropout
        Of phi and rho's input, and of rho's output.
    state
        Weights by their published names, float32.
    genes
        Names, in the order of the outputs.
    targets
        The scaler the model was trained with.
    knows_mean
        Whether its centre is the mean of the training data, not their median or 0.
    encoder
        The published name of the encoder of its tiles, None where it is not said.
    hyperparameters
        Everything else that was published with it: numbers, strings, None.
    """

    method: str
    context: str
    aggregation: Literal["max", "mean", "sum"]
    n_features: int
    n_targets: int
    n_hidden: int
    n_phi: int
    n_rho: int
    dropout: float
    output_dropout: float
    genes: tuple[str, ...]
    targets: Standard
    knows_mean: bool
    encoder: str | None
    state: dict[str, Tensor] = field(repr=False)
    hyperparameters: dict[str, Any] = field(repr=False)


def read_release(
    weights: str | Path,
    hyperparameters: str | Path | None = None,
    genes: str | Path | Sequence[str] | None = None,
) -> Release:
    """Read a published model, executing nothing; see :func:`stpredict.models.from_deepspot`."""
    files = find(weights, hyperparameters, genes)
    module = read_module(files.weights)
    if module.name.name not in LAYOUTS:
        raise ValueError(f"{files.weights} holds a {module.name}, not a DeepSpot or DeepCell")
    layout = LAYOUTS[module.name.name]
    inside = _plain(module.state.get("_hparams"))
    beside = read_hyperparameters(files.hyperparameters) if files.hyperparameters else {}
    published = {**inside, **beside}
    context = _context(module, layout, published)
    state = state_of(module, layout)
    sizes = sizes_of(state, layout, context)
    aggregation = module.state.get("agg_neighbors", "max")
    if aggregation not in _AGGREGATIONS:
        raise ValueError(f"{files.weights} aggregates neighbours by something unknown")
    for source, said in (("the pickle", inside), (str(files.hyperparameters), beside)):
        facts = _facts(sizes, layout, context=context, aggregation=aggregation, said=said)
        _check_agreement(facts, said, source=source, weights=files.weights)
    names = read_genes(files.genes, n_outputs=sizes["n_targets"], weights=files.weights)
    return Release(
        method=layout.method,
        context=context,
        aggregation=aggregation,
        dropout=dropout_of(module, layout.phi, "1"),
        output_dropout=dropout_of(module, "rho", "3"),
        state=state,
        genes=names,
        targets=_targets(module.state.get("scaler"), sizes["n_targets"]),
        knows_mean=_knows_mean(module.state.get("scaler")),
        encoder=published.get("image_feature_model"),
        hyperparameters=published,
        **sizes,
    )


def _plain(values: Any) -> dict[str, Any]:
    """Keep the numbers and strings of a mapping."""
    if not isinstance(values, Mapping):
        return {}
    return {
        str(name): value
        for name, value in values.items()
        if value is None or isinstance(value, str | int | float)
    }


def _context(module: Foreign, layout: Layout, published: Mapping[str, Any]) -> str:
    """Which of its forward functions the model ran, as the pickle says, else its settings."""
    forward = module.state.get("_forward_fn")
    said = published.get(layout.context_key)
    context = forward.removeprefix("_forward_") if isinstance(forward, str) else said
    if context not in layout.contexts:
        shown = repr(context)[:60] if isinstance(context, str) else "no name"
        raise ValueError(
            f"the {module.name.name} has the context {shown}; contexts: "
            f"{', '.join(layout.contexts)}"
        )
    return str(context)


def _facts(
    sizes: Mapping[str, int],
    layout: Layout,
    *,
    context: str,
    aggregation: str,
    said: Mapping[str, Any],
) -> dict[str, Any]:
    """What the weights tell, by the names that hyperparameters have."""
    facts = {
        "input_size": sizes["n_features"],
        "output_size": sizes["n_targets"],
        "phi2rho_size": sizes["n_hidden"],
        layout.context_key: context,
    }
    if layout.method == "deepcell":
        facts["agg_neighbors"] = aggregation
    for part in ("phi", "rho"):
        own = said.get(f"n_ensemble_{part}") is not None
        facts[f"n_ensemble_{part}" if own else "n_ensemble"] = sizes[f"n_{part}"]
    return facts


def _check_agreement(
    facts: Mapping[str, Any], said: Mapping[str, Any], *, source: str, weights: Path
) -> None:
    different = [
        f"{name} is {said[name]!r:.60} but {found!r} in the weights"
        for name, found in facts.items()
        if said.get(name) is not None and said[name] != found
    ]
    if different:
        raise ValueError(
            f"the hyperparameters of {source} are not those of {weights}: {'; '.join(different)}; "
            "pass hyperparameters= of the same release"
        )


def _targets(scaler: Any, n_targets: int) -> Standard:
    """Scaling of the targets, from a fitted scaler of scikit-learn."""
    mean, scale = np.zeros(n_targets), np.ones(n_targets)
    if scaler is None:
        return Standard(mean.astype(np.float32), scale.astype(np.float32))
    if not isinstance(scaler, Foreign) or scaler.name.name not in _SCALERS:
        raise ValueError(f"its scaler is none of {', '.join(_SCALERS)}")
    center, shifts, scales = _SCALERS[scaler.name.name]
    if scaler.state.get(shifts) is True:
        mean = _vector(scaler, center, n_targets)
    if scaler.state.get(scales) is True:
        scale = _vector(scaler, "scale_", n_targets)
    return Standard(mean.astype(np.float32), scale.astype(np.float32))


def _knows_mean(scaler: Any) -> bool:
    """Whether a scaler is centred on the mean."""
    centred: bool = (
        isinstance(scaler, Foreign)
        and scaler.name.name == "StandardScaler"
        and scaler.state.get("with_mean") is True
    )
    return centred


def _vector(scaler: Foreign, name: str, n_targets: int) -> np.ndarray[Any, Any]:
    array = scaler.state.get(name)
    values = array.values if isinstance(array, Array) else None
    if values is None or values.shape != (n_targets,):
        found = "nothing" if values is None else f"shape {values.shape}"
        raise ValueError(
            f"{name} of its {scaler.name.name} has {found}, the network has {n_targets} outputs"
        )
    return values
