"""Published DeepSpot and DeepCell models, whose files are checked against each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor

from stpredict.models._deepspot._files import (
    find,
    flat_values,
    read_genes,
    read_hyperparameters,
)
from stpredict.models._deepspot._inert import Array, Foreign
from stpredict.models._deepspot._network import LAYOUTS, Layout, dropout_of, sizes_of, state_of
from stpredict.models._deepspot._restricted import read_module
from stpredict.targets import Standard

_AGGREGATIONS = ("max", "mean", "sum")

#: For each scaler: attribute of its centre, and the flags for centring and scaling.
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
        Context of the network, named as in our methods.
    aggregation
        How the embeddings of neighbours are pooled.
    n_features, n_targets, n_hidden, n_phi, n_rho
        Sizes, read from the weights.
    dropout, output_dropout
        Dropout rates of phi and rho's input, and of rho's output.
    state
        Weights by their published names, float32.
    genes
        Names, in the order of the outputs.
    targets
        Scaling of the targets in training.
    knows_mean
        Whether its centre is the mean of the training data, not their median or 0.
    encoder
        Published name of the encoder; None if it is not reported.
    hyperparameters
        Published hyperparameters: numbers, strings, None.
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
    """Read a published model without executing it; see :func:`stpredict.models.from_deepspot`."""
    files = find(weights, hyperparameters, genes)
    module = read_module(files.weights)
    if module.name.name not in LAYOUTS:
        raise ValueError(f"{files.weights} holds {module.name}, expected DeepSpot or DeepCell")
    layout = LAYOUTS[module.name.name]
    in_pickle = flat_values(module.state.get("_hparams"))
    in_file = read_hyperparameters(files.hyperparameters) if files.hyperparameters else {}
    published = {**in_pickle, **in_file}
    context = _context(module, layout, published)
    state = state_of(module, layout)
    sizes = sizes_of(state, layout, context)
    aggregation = module.state.get("agg_neighbors", "max")
    if aggregation not in _AGGREGATIONS:
        raise ValueError(f"{files.weights} aggregates neighbours in an unknown way")
    for source, reported in (("the pickle", in_pickle), (str(files.hyperparameters), in_file)):
        expected = _expected(
            sizes, layout, context=context, aggregation=aggregation, reported=reported
        )
        _check_agreement(expected, reported, source=source, weights=files.weights)
    # the number of outputs is known only from the weights
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


def _context(module: Foreign, layout: Layout, published: Mapping[str, Any]) -> str:
    """Context of the model: its forward function in the pickle, else its hyperparameter."""
    forward = module.state.get("_forward_fn")
    reported = published.get(layout.context_key)
    context = forward.removeprefix("_forward_") if isinstance(forward, str) else reported
    if context not in layout.contexts:
        shown = repr(context)[:60] if isinstance(context, str) else "no name"
        raise ValueError(
            f"the {module.name.name} has the context {shown}, known contexts are "
            f"{', '.join(layout.contexts)}"
        )
    return str(context)


def _expected(
    sizes: Mapping[str, int],
    layout: Layout,
    *,
    context: str,
    aggregation: str,
    reported: Mapping[str, Any],
) -> dict[str, Any]:
    """Hyperparameters that follow from the weights."""
    expected = {
        "input_size": sizes["n_features"],
        "output_size": sizes["n_targets"],
        "phi2rho_size": sizes["n_hidden"],
        layout.context_key: context,
    }
    if layout.method == "deepcell":
        expected["agg_neighbors"] = aggregation
    for part in ("phi", "rho"):
        # releases report one size for both ensembles, or one for each
        is_separate = reported.get(f"n_ensemble_{part}") is not None
        expected[f"n_ensemble_{part}" if is_separate else "n_ensemble"] = sizes[f"n_{part}"]
    return expected


def _check_agreement(
    expected: Mapping[str, Any], reported: Mapping[str, Any], *, source: str, weights: Path
) -> None:
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


def _targets(scaler: Any, n_targets: int) -> Standard:
    """Scaling of the targets, from a fitted scaler of scikit-learn."""
    mean, scale = np.zeros(n_targets), np.ones(n_targets)
    if scaler is None:
        return Standard(mean.astype(np.float32), scale.astype(np.float32))
    if not isinstance(scaler, Foreign) or scaler.name.name not in _SCALERS:
        raise ValueError(f"its scaler is not one of {', '.join(_SCALERS)}")
    center, shifts, scales = _SCALERS[scaler.name.name]
    # StandardScaler has a mean_ even if with_mean is False
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
        problem = "is missing" if values is None else f"has shape {values.shape}"
        raise ValueError(
            f"{name} of its {scaler.name.name} {problem}, the network has {n_targets} outputs"
        )
    return values
