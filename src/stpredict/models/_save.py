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
from stpredict.models._config import FORMAT, Config

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stpredict.models._config import ModelState

CONFIG, WEIGHTS, HISTORY, CARD = "config.json", "model.safetensors", "history.csv", "README.md"
HISTORY_COLUMNS = ("epoch", "step", "split", "loss")
#: Folders of a stack's bases are numbered, as the bases' own names may not be valid paths.
BASE = "base_{}"


def save(model: ModelState, path: str | Path) -> None:
    """Write a model to a folder; see :meth:`stpredict.models.Model.save`."""
    path = Path(path)
    if path.exists() and not _is_model(path):
        raise FileExistsError(f"{path} exists and is not an stpredict model: choose another path")
    path.parent.mkdir(parents=True, exist_ok=True)
    # next to the target, as renaming is atomic only within one file system
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        _write(model, temporary)
        temporary.chmod(0o755)  # mkdtemp's folders are private
        _replace(path, temporary)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(model: ModelState, folder: Path) -> None:
    text = json.dumps(Config.of(model).to_plain(), indent=2)
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")
    save_file(_tensors(model), folder / WEIGHTS)
    model.history.to_csv(folder / HISTORY, index=False)
    (folder / CARD).write_text(card(model), encoding="utf-8")
    for number, base in enumerate(model.bases.values()):
        subfolder = folder / BASE.format(number)
        subfolder.mkdir()
        _write(base, subfolder)


def _replace(path: Path, new: Path) -> None:
    """Move a folder to its final path; an older model there is removed only after that."""
    if not path.exists():
        new.rename(path)
        return
    old = new.with_name(f"{new.name}-old")
    path.rename(old)
    try:
        new.rename(path)
    except OSError:
        old.rename(path)  # the older model must survive
        raise
    shutil.rmtree(old)


def _is_model(path: Path) -> bool:
    try:
        return bool(json.loads((path / CONFIG).read_text())["format"] == FORMAT)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _tensors(model: ModelState) -> dict[str, NDArray[Any]]:
    """All arrays of a model; the first part of a name says which part of the model it is."""
    # state dicts are on the CPU: models keep their network there
    tensors = {f"network.{k}": v.numpy() for k, v in model.network.state_dict().items()}
    for part, saved in (("targets", model.targets), ("calibration", model.calibration)):
        if saved is not None:
            tensors |= {f"{part}.{name}": array for name, array in saved.state()[1].items()}
    for part, scaler in (("inputs", model.inputs), ("subtiles", model.subtiles)):
        if scaler is not None:
            tensors |= {f"{part}.mean": scaler.mean, f"{part}.scale": scaler.scale}
    return {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
