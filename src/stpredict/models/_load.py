"""Models from disk: checked JSON, safetensors, CSV. Nothing is ever unpickled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file

from stpredict import _validate
from stpredict.models._config import FORMAT, OLDEST, VERSION, Config
from stpredict.models._methods import METHODS
from stpredict.models._model import Model
from stpredict.models._save import CONFIG, HISTORY, HISTORY_COLUMNS, WEIGHTS, base_folder
from stpredict.models._stack import check_bases, first_base
from stpredict.models._upgrade import upgrade
from stpredict.targets import Standard, from_state
from stpredict.uncertainty import Calibration

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


def load(path: str | Path) -> Model:
    """Load a model saved with :meth:`stpredict.models.Model.save`.

    Only JSON, safetensors and CSV are read, and checked; nothing is executed.

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
        If the folder does not exist.
    ValueError
        If the folder is not a model, is damaged, or was written by a newer version.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom()
    >>> stp.pp.normalize(sdata)
    >>> stp.pp.embed(sdata)
    >>> model = stp.tl.fit_ridge(sdata, genes=["morphology_001"], alpha=1.0, context="spot")
    >>> model.save(folder := f"{mkdtemp()}/ridge")
    >>> stp.models.load(folder).method
    'ridge'
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
        raise ValueError(f"{path} is not a complete model: it lacks {', '.join(missing)}")
    try:
        config = _read_config(path)
        bases = {name: load(path / base_folder(n)) for n, name in enumerate(config.bases)}
        return _assemble(config, load_file(path / WEIGHTS), _read_history(path), bases)
    except (OSError, SafetensorError, LookupError, TypeError, ValueError, RuntimeError) as error:
        reason = f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"the model at {path} cannot be read: {reason}") from error


def _read_config(path: Path) -> Config:
    try:
        config = json.loads((path / CONFIG).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{CONFIG} is not JSON ({error})") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise ValueError(f"{CONFIG} does not describe an {FORMAT}")
    version = config.get("format_version")
    if not isinstance(version, int) or not OLDEST <= version <= VERSION:
        is_old = isinstance(version, int) and version < OLDEST
        raise ValueError(
            f"its format version is {version!r}, this stpredict reads {OLDEST} to {VERSION}. It "
            f"was written by stpredict {config.get('stpredict_version')}: "
            + ("fit it again" if is_old else "upgrade to read it")
        )
    if version < VERSION:
        _validate.one_of("method", config.get("method"), METHODS)
        config = upgrade(config)
    return Config.from_plain(config)


def _read_history(path: Path) -> pd.DataFrame:
    history = pd.read_csv(path / HISTORY)
    if list(history.columns) != list(HISTORY_COLUMNS):
        raise ValueError(
            f"{HISTORY} has the columns {', '.join(history.columns)}, expected "
            f"{', '.join(HISTORY_COLUMNS)}"
        )
    return history


def _assemble(
    config: Config,
    tensors: dict[str, NDArray[Any]],
    history: pd.DataFrame,
    bases: dict[str, Model],
) -> Model:
    method = METHODS[config.method]
    targets = from_state(config.targets, _part(tensors, "targets"))
    # networks on pixels need no scaling of embeddings
    inputs = _scaling(tensors, "inputs", needed=method.inputs != "pixels")
    network = method.build(
        0 if inputs is None else len(inputs.mean),
        targets.n_outputs,
        context=config.context,
        options=config.hyperparameters.network,
    )
    weights = _part(tensors, "network")
    network.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in weights.items()})
    model = Model(
        method=config.method,
        network=network.eval(),
        genes=config.genes,
        context=config.context,
        hyperparameters=config.hyperparameters,
        recipe=config.recipe,
        training=config.training,
        units=config.units,
        targets=targets,
        history=history,
        inputs=inputs,
        subtiles=_scaling(tensors, "subtiles", needed=method.contexts[config.context][0]),
        bases=bases,
        calibration=_calibration(config.calibration, _part(tensors, "calibration")),
    )
    # load_state_dict has compared the network's weights with its inputs and outputs
    _check_shapes(model)
    check_bases(model)
    return model


def _part(tensors: Mapping[str, NDArray[Any]], part: str) -> dict[str, NDArray[Any]]:
    """Tensors of one part of a model, by their names in it."""
    prefix = f"{part}."
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _scaling(tensors: Mapping[str, NDArray[Any]], part: str, *, needed: bool) -> Standard | None:
    if not needed and f"{part}.mean" not in tensors:
        return None
    return Standard(tensors[f"{part}.mean"], tensors[f"{part}.scale"])


def _calibration(
    config: dict[str, Any] | None, tensors: dict[str, NDArray[Any]]
) -> Calibration | None:
    if config is None:
        if tensors:
            raise ValueError(f"{CONFIG} lacks calibration, but its arrays are saved")
        return None
    return Calibration.from_state(config, tensors)


def _check_shapes(model: Model) -> None:
    """Require arrays that fit the genes and the embedding."""
    n_genes, inputs = len(model.genes), first_base(model).inputs
    shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
        "targets.mean": (model.targets.mean.shape, (n_genes,))
    }
    if model.subtiles is not None and inputs is not None:
        shapes["subtiles.mean"] = (model.subtiles.mean.shape, inputs.mean.shape)
    if model.calibration is not None:
        edges = model.calibration.intervals.edges.shape
        shapes["calibration.intervals.edges"] = (edges, (n_genes, 2))
        if inputs is not None:
            width = model.calibration.familiarity.mean.shape
            shapes["calibration.familiarity.mean"] = (width, inputs.mean.shape)
    for name, (shape, expected) in shapes.items():
        if shape != expected:
            raise ValueError(f"{name} has shape {shape}, expected {expected}")
