"""Models to disk: JSON, safetensors, CSV."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import save_file

from stpredict.models._card import card
from stpredict.models._model import Model

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT = "stpredict model"
VERSION = 3
#: The oldest that is still read; what it lacks is not in it (3: the calibration).
OLDEST = 2
CONFIG, WEIGHTS, HISTORY, CARD = "config.json", "model.safetensors", "history.csv", "README.md"
HISTORY_COLUMNS = ("epoch", "step", "split", "loss")


def save(model: Model, path: str | Path) -> None:
    """Write a model to a folder; see :meth:`stpredict.models.Model.save`."""
    path = Path(path)
    if path.exists() and not _is_model(path):
        raise FileExistsError(f"{path} exists and is no stpredict model; choose another path")
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        _write(model, beside)
        beside.chmod(0o755)  # mkdtemp's folders are private
        _replace(path, beside)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _write(model: Model, folder: Path) -> None:
    text = json.dumps(_config(model), indent=2)
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")
    save_file(_tensors(model), folder / WEIGHTS)
    model.history.to_csv(folder / HISTORY, index=False)
    (folder / CARD).write_text(card(model), encoding="utf-8")
    for number, base in enumerate(model.bases):
        place = folder / base_folder(number)
        place.mkdir()
        _write(base, place)


def base_folder(number: int) -> str:
    """Name of the folder with one of the models that a stack stands on."""
    return f"base_{number}"


def _replace(path: Path, new: Path) -> None:
    """Move a folder to its place; what stood there goes only when the new one is in."""
    if not path.exists():
        new.rename(path)
        return
    old = new.with_name(f"{new.name}-old")
    path.rename(old)
    try:
        new.rename(path)
    except OSError:
        old.rename(path)
        raise
    shutil.rmtree(old)


def _is_model(path: Path) -> bool:
    try:
        return bool(json.loads((path / CONFIG).read_text())["format"] == FORMAT)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _config(model: Model) -> dict[str, Any]:
    from stpredict import __version__

    return {
        "format": FORMAT,
        "format_version": VERSION,
        "stpredict_version": __version__,
        "method": model.method,
        "context": model.context,
        "units": model.units,
        "n_features": len(model.inputs.mean),
        "ridge_alpha": None if model.ridge is None else model.ridge.alpha,
        "targets": model.targets.state()[0],
        "n_bases": len(model.bases),
        "calibration": None if model.calibration is None else model.calibration.state()[0],
        "hyperparameters": model.hyperparameters,
        "recipe": model.recipe,
        "training": model.training,
        "genes": list(model.genes),
    }


def _tensors(model: Model) -> dict[str, NDArray[Any]]:
    tensors = {f"network.{k}": v.numpy() for k, v in model.network.state_dict().items()}
    tensors |= {f"targets.{name}": array for name, array in model.targets.state()[1].items()}
    for name, scaler in (("inputs", model.inputs), ("subtiles", model.subtiles)):
        if scaler is not None:
            tensors |= {f"{name}.mean": scaler.mean, f"{name}.scale": scaler.scale}
    if model.ridge is not None:
        tensors |= {
            "ridge.coefficients": model.ridge.coefficients,
            "ridge.intercept": model.ridge.intercept,
        }
    if model.calibration is not None:
        known = model.calibration.state()[1]
        tensors |= {f"calibration.{name}": array for name, array in known.items()}
    return {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
