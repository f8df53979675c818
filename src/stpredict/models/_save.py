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
VERSION = 1
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
        text = json.dumps(_config(model), indent=2)
        (beside / CONFIG).write_text(text + "\n", encoding="utf-8")
        save_file(_tensors(model), beside / WEIGHTS)
        model.history.to_csv(beside / HISTORY, index=False)
        (beside / CARD).write_text(card(model), encoding="utf-8")
        beside.chmod(0o755)  # mkdtemp's folders are private
        _replace(path, beside)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


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
        "ridge_alpha": model.ridge.alpha,
        "hyperparameters": model.hyperparameters,
        "recipe": model.recipe,
        "training": model.training,
        "genes": list(model.genes),
    }


def _tensors(model: Model) -> dict[str, NDArray[Any]]:
    tensors = {f"network.{k}": v.numpy() for k, v in model.network.state_dict().items()}
    tensors |= {
        "inputs.mean": model.inputs.mean,
        "inputs.scale": model.inputs.scale,
        "targets.mean": model.targets.mean,
        "targets.scale": model.targets.scale,
        "ridge.coefficients": model.ridge.coefficients,
        "ridge.intercept": model.ridge.intercept,
    }
    if model.subtiles is not None:
        tensors |= {"subtiles.mean": model.subtiles.mean, "subtiles.scale": model.subtiles.scale}
    return {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
