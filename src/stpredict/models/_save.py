"""Models to disk: JSON, safetensors, CSV."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import save_file

from stpredict._arguments import checked
from stpredict.models import _folder
from stpredict.models._card import card
from stpredict.models._config import Config
from stpredict.models._folder import BASE, CARD, CONFIG, HISTORY, WEIGHTS
from stpredict.models._methods import EXTERNAL

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stpredict.models._config import ModelState

#: Networks, epochs and steps count from 1.
HISTORY_COLUMNS = ("network", "epoch", "step", "split", "loss")


@checked
def save(model: ModelState, path: str | Path) -> None:
    """Write a model to a folder; see :meth:`stpredict.models.Model.save`."""
    path = Path(path)
    if model.method in EXTERNAL:
        raise ValueError(
            f"a model of {model.method} is not saved, as its own package reads its weights: use "
            f"stp.models.from_{model.method} again"
        )
    _folder.check_replaceable(path)
    is_new = not path.exists()
    path.mkdir(parents=True, exist_ok=True)
    # inside the folder, as renaming is atomic only within one file system
    written = Path(tempfile.mkdtemp(prefix=_folder.WRITING, dir=path))
    try:
        written.chmod(0o755)  # mkdtemp's folders are private
        _write(model, written)
        _folder.finish(path)  # an interrupted save
        _folder.commit(written, path)
        _remove_surplus_bases(model, path)
        _folder.remove_leftovers(path)
    except BaseException:
        shutil.rmtree(written, ignore_errors=True)
        if is_new:
            with suppress(OSError):  # not empty if the new files are complete
                path.rmdir()
        raise


def fingerprint(model: ModelState) -> str:
    """Hash of everything that is saved; equal for a model and its loaded copy."""
    digest = hashlib.sha256(_config_text(model).encode())
    for name, tensor in sorted(_tensors(model).items()):
        digest.update(f"{name} {tensor.dtype} {tensor.shape}".encode())
        digest.update(tensor.tobytes())
    for base in model.bases.values():
        digest.update(fingerprint(base).encode())
    return digest.hexdigest()


def _config_text(model: ModelState) -> str:
    return json.dumps(Config.of(model).to_plain(), indent=2, default=_plain_number)


def _write(model: ModelState, folder: Path) -> None:
    text = _config_text(model)
    Config.from_plain(json.loads(text))  # what could not be loaded raises here
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")
    save_file(_tensors(model), folder / WEIGHTS)
    # safetensors 0.8 writes files that only their owner can read
    (folder / WEIGHTS).chmod((folder / CONFIG).stat().st_mode)
    model.history.to_csv(folder / HISTORY, index=False)
    (folder / CARD).write_text(card(model), encoding="utf-8")
    for number, base in enumerate(model.bases.values()):
        subfolder = folder / BASE.format(number)
        subfolder.mkdir()
        _write(base, subfolder)


def _plain_number(value: object) -> object:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{value!r:.80} in the model is no value of JSON: use numbers and strings")


def _remove_surplus_bases(model: ModelState, path: Path) -> None:
    """Remove the bases that an older model had in addition."""
    for number, base in enumerate(model.bases.values()):
        _remove_surplus_bases(base, path / BASE.format(number))
    _folder.remove_bases(path, len(model.bases))


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
