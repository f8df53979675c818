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
from stpredict.models._config import FORMAT, OLDEST, SHARED, VERSION, Config
from stpredict.models._methods import METHODS
from stpredict.models._model import Model
from stpredict.models._save import BASE, CONFIG, HISTORY, HISTORY_COLUMNS, WEIGHTS
from stpredict.models._stack import check_bases, first_base
from stpredict.models._upgrade import upgrade
from stpredict.targets import Standard, from_state
from stpredict.uncertainty import Calibration

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Tensors = Mapping[str, NDArray[Any]]


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
        raise ValueError(f"{path} is a file, not a model's folder: pickled models are never opened")
    missing = [name for name in (CONFIG, WEIGHTS, HISTORY) if not (path / name).is_file()]
    if missing:
        raise ValueError(f"{path} is not a complete model: it lacks {', '.join(missing)}")
    try:
        config = _read_config(path)
        bases = {name: load(path / BASE.format(n)) for n, name in enumerate(config.bases)}
        history = pd.read_csv(path / HISTORY)
        return _assemble(config, load_file(path / WEIGHTS), history, bases)
    except (OSError, SafetensorError, LookupError, TypeError, ValueError, RuntimeError) as error:
        reason = f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"the model at {path} cannot be read: {reason}") from error


def _read_config(path: Path) -> Config:
    try:
        config = json.loads((path / CONFIG).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{CONFIG} is not JSON ({error})") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise ValueError(f"{CONFIG} does not describe an {FORMAT}")
    version = config.get("format_version")
    if not isinstance(version, int) or not OLDEST <= version <= VERSION:
        remedy = "fit it again" if version in range(OLDEST) else "upgrade"
        raise ValueError(
            f"its format version is {version!r}, this stpredict reads {OLDEST} to {VERSION}. It "
            f"was written by stpredict {config.get('stpredict_version')}: {remedy}"
        )
    if version < VERSION:
        _validate.one_of("method", config.get("method"), METHODS)
        config = upgrade(config)
    return Config.from_plain(config)


def _assemble(
    config: Config, tensors: Tensors, history: pd.DataFrame, bases: dict[str, Model]
) -> Model:
    if tuple(history.columns) != HISTORY_COLUMNS:
        raise ValueError(f"{HISTORY} needs the columns {', '.join(HISTORY_COLUMNS)}")
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
    errors = _part(tensors, "calibration")
    if errors and config.calibration is None:
        raise ValueError(f"{CONFIG} lacks calibration, but its arrays are saved")
    model = Model(
        network=network.eval(),
        targets=targets,
        history=history,
        inputs=inputs,
        subtiles=_scaling(tensors, "subtiles", needed=method.contexts[config.context][0]),
        bases=bases,
        calibration=None
        if config.calibration is None
        else Calibration.from_state(config.calibration, errors),
        **{name: getattr(config, name) for name in SHARED},
    )
    # load_state_dict has compared the network's weights with its inputs and outputs
    _check_shapes(model)
    check_bases(model)
    return model


def _part(tensors: Tensors, part: str) -> dict[str, NDArray[Any]]:
    """Tensors of one part of a model, by their names in it."""
    prefix = f"{part}."
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _scaling(tensors: Tensors, part: str, *, needed: bool) -> Standard | None:
    if not needed and f"{part}.mean" not in tensors:
        return None
    return Standard(tensors[f"{part}.mean"], tensors[f"{part}.scale"])


def _check_shapes(model: Model) -> None:
    """Require arrays that fit the genes and the embedding."""
    n_genes, inputs, calibration = len(model.genes), first_base(model).inputs, model.calibration
    shapes: list[tuple[str, NDArray[Any], tuple[int, ...]]] = [
        ("targets.mean", model.targets.mean, (n_genes,))
    ]
    if calibration is not None:
        shapes += [("calibration.intervals.edges", calibration.intervals.edges, (n_genes, 2))]
    if inputs is not None:
        # sub-tiles and familiarity are measured in the same embedding as the inputs
        if model.subtiles is not None:
            shapes += [("subtiles.mean", model.subtiles.mean, inputs.mean.shape)]
        if calibration is not None:
            mean = calibration.familiarity.mean
            shapes += [("calibration.familiarity.mean", mean, inputs.mean.shape)]
    for name, array, expected in shapes:
        if array.shape != expected:
            raise ValueError(f"{name} has shape {array.shape}, expected {expected}")
