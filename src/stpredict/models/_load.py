"""Models from disk: checked JSON, safetensors, CSV. Nothing is ever unpickled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file

from stpredict.models._methods import METHODS
from stpredict.models._model import Model
from stpredict.models._ridge import Ridge
from stpredict.models._save import (
    CONFIG,
    FORMAT,
    HISTORY,
    HISTORY_COLUMNS,
    OLDEST,
    VERSION,
    WEIGHTS,
    base_folder,
)
from stpredict.models._stack import check_bases
from stpredict.targets import Standard, from_state
from stpredict.uncertainty import Calibration

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

#: What the configuration must hold, and of which type.
_FIELDS: dict[str, type] = {
    "method": str,
    "context": str,
    "genes": list,
    "hyperparameters": dict,
    "recipe": dict,
    "training": dict,
    "units": str,
    "n_features": int,
    "targets": dict,
    "n_bases": int,
}

#: What is read of its parts after loading.
_PARTS = {
    "recipe": ("layer",),
    "training": ("sections", "held_out", "best_epoch"),
}


def load(path: str | Path) -> Model:
    """Load a model saved with :meth:`stpredict.models.Model.save`.

    Reads JSON, safetensors and CSV only and checks them; nothing is executed.

    Parameters
    ----------
    path
        Folder of the model.

    Returns
    -------
    Model
        Predicts bit-identically to the model that was saved, on the same device.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    ValueError
        If the folder is no model, is damaged, or was written by a newer version.

    Examples
    --------
    >>> import stpredict as stp
    >>> model = stp.models.load("deepspot_her2")  # doctest: +SKIP
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no model at {path}")
    if not path.is_dir():
        raise ValueError(
            f"{path} is a file; a model is a folder that Model.save wrote (pickled models are "
            "never opened)"
        )
    missing = [name for name in (CONFIG, WEIGHTS, HISTORY) if not (path / name).is_file()]
    if missing:
        raise ValueError(f"{path} is no whole model: it lacks {', '.join(missing)}")
    try:
        config = _read_config(path)
        bases = [load(path / base_folder(number)) for number in range(config["n_bases"])]
        return _assemble(config, load_file(path / WEIGHTS), _read_history(path), bases)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"the model at {path} cannot be read: {_message(error)}") from error


def _message(error: Exception) -> str:
    return f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads((path / CONFIG).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{CONFIG} is no JSON ({error})") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise ValueError(f"{CONFIG} does not describe an {FORMAT}")
    version = config.get("format_version")
    if isinstance(version, int) and version < OLDEST:
        raise ValueError(
            f"its format version is {version}, this stpredict reads {OLDEST} to {VERSION}: it was "
            f"written by stpredict {config.get('stpredict_version')}, fit it again"
        )
    if not isinstance(version, int) or version > VERSION:
        raise ValueError(
            f"its format version is {version!r}, this stpredict reads up to {VERSION}: it was "
            f"written by stpredict {config.get('stpredict_version')}, upgrade to read it"
        )
    for name, kind in _FIELDS.items():
        if not isinstance(config.get(name), kind):
            raise ValueError(f"{CONFIG} must give {name} as a {kind.__name__}")
    if config["method"] not in METHODS:
        raise ValueError(f"its method {config['method']!r} is not one of {', '.join(METHODS)}")
    if not all(isinstance(gene, str) for gene in config["genes"]) or not config["genes"]:
        raise ValueError(f"{CONFIG} must list the names of genes")
    for part, names in _PARTS.items():
        absent = [name for name in names if name not in config[part]]
        if absent:
            raise ValueError(f"the {part} in {CONFIG} lacks {', '.join(absent)}")
    return config


def _read_history(path: Path) -> pd.DataFrame:
    history = pd.read_csv(path / HISTORY)
    if list(history.columns) != list(HISTORY_COLUMNS):
        raise ValueError(
            f"{HISTORY} has the columns {', '.join(history.columns)}, expected "
            f"{', '.join(HISTORY_COLUMNS)}"
        )
    return history


def _assemble(
    config: Mapping[str, Any],
    tensors: dict[str, NDArray[Any]],
    history: pd.DataFrame,
    bases: list[Model],
) -> Model:
    method = METHODS[config["method"]]
    uses_subtiles, uses_neighbors = method.contexts.get(config["context"], (False, False))
    parts = (*method.recipe, "neighbors") if uses_neighbors else method.recipe
    absent = [part for part in parts if part not in config["recipe"]]
    if absent:
        raise ValueError(f"the recipe in {CONFIG} lacks {', '.join(absent)}")
    targets = from_state(config["targets"], _part(tensors, "targets"))
    arguments = {k: config["hyperparameters"][k] for k in method.hyperparameters}
    network = method.network(
        config["n_features"], targets.n_outputs, context=config["context"], **arguments
    )
    state = _part(tensors, "network")
    network.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in state.items()})
    alpha = config.get("ridge_alpha")
    model = Model(
        method=method.name,
        network=network.eval(),
        genes=tuple(config["genes"]),
        context=config["context"],
        hyperparameters=config["hyperparameters"],
        recipe=config["recipe"],
        training=config["training"],
        units=config["units"],
        inputs=Standard(tensors["inputs.mean"], tensors["inputs.scale"]),
        targets=targets,
        ridge=(
            None
            if alpha is None
            else Ridge(tensors["ridge.coefficients"], tensors["ridge.intercept"], float(alpha))
        ),
        history=history,
        subtiles=(
            Standard(tensors["subtiles.mean"], tensors["subtiles.scale"]) if uses_subtiles else None
        ),
        bases=tuple(bases),
        calibration=_calibration(config.get("calibration"), _part(tensors, "calibration")),
    )
    _check_shapes(model, config["n_features"])
    check_bases(model)
    return model


def _calibration(config: Any, tensors: dict[str, NDArray[Any]]) -> Calibration | None:
    """What the model knows of its errors; nothing of models that were saved without."""
    if config is None and not tensors:
        return None
    if not isinstance(config, dict):
        raise ValueError(f"{CONFIG} must give calibration as a dict, its arrays are there")
    return Calibration.from_state(config, tensors)


def _part(tensors: Mapping[str, NDArray[Any]], name: str) -> dict[str, NDArray[Any]]:
    """Tensors of one part of a model, by their names in it."""
    start = f"{name}."
    return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}


def _check_shapes(model: Model, n_features: int) -> None:
    n_genes = len(model.genes)
    found: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
        "inputs.mean": (model.inputs.mean.shape, (n_features,))
    }
    found["targets.mean"] = (model.targets.mean.shape, (n_genes,))
    if model.ridge is not None:
        found["ridge.coefficients"] = (model.ridge.coefficients.shape, (n_genes, n_features))
        found["ridge.intercept"] = (model.ridge.intercept.shape, (n_genes,))
    if model.subtiles is not None:
        found["subtiles.mean"] = (model.subtiles.mean.shape, (n_features,))
    if model.calibration is not None:
        edges = model.calibration.intervals.edges.shape
        found["calibration.intervals.edges"] = (edges, (n_genes, 2))
        seen = model  # a stack sees tiles as its first base does
        while seen.bases:
            seen = seen.bases[0]
        width = model.calibration.familiarity.mean.shape
        found["calibration.familiarity.mean"] = (width, seen.inputs.mean.shape)
    for name, (shape, expected) in found.items():
        if shape != expected:
            raise ValueError(f"{name} has shape {shape}, expected {expected}")
