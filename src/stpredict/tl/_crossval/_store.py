"""Finished folds on disk, from which an interrupted cross-validation continues."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
import zlib
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np

from stpredict import _validate
from stpredict._atomic import replaced, replaced_binary
from stpredict._describe import describe, hash_values
from stpredict._log import info
from stpredict._sdata._provenance import recorded_steps
from stpredict.models import load
from stpredict.models._folder import ModelFolder
from stpredict.tl._crossval._fingerprint import data_fingerprints
from stpredict.tl._crossval._outcome import Outcome

if TYPE_CHECKING:
    from stpredict._sdata._spot_table import SpotTable
    from stpredict.tl._crossval._folds import Folds
    from stpredict.tl._fitting._bases import FitFunctions

_RUN = "run.json"
#: Fields of an outcome that are arrays or plain values.
_ARRAYS = tuple(part.name for part in fields(Outcome) if part.name != "model")
#: What reading a damaged file raises.
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, KeyError, ValueError)


class Store:
    """A folder with the outcome of each method in each fold; None stores nothing.

    Several processes may use one folder: files are written whole, and never changed.
    """

    def __init__(
        self, folder: str | Path | None, spots: SpotTable, folds: Folds, *, device: str
    ) -> None:
        self.folder = None if folder is None else Path(folder)
        # files are numbered, since names of folds may not be names of files
        self._places = {fold.name: number for number, fold in enumerate(folds)}
        if self.folder is None:
            return
        if self.folder.exists() and not (self.folder / _RUN).exists() and _has_files(self.folder):
            raise FileExistsError(f"{self.folder} holds something else: give another folder=")
        run = _describe_run(spots, folds, device=device)
        self.folder.mkdir(parents=True, exist_ok=True)
        stored = _claim(self.folder / _RUN, run)
        different = [key for key in run if run[key] != stored.get(key)]
        if different:
            data = stored["data"] if isinstance(stored.get("data"), dict) else {}
            slots = [slot for slot in data | run["data"] if data.get(slot) != run["data"].get(slot)]
            details = f" (different: {_validate.listing(slots)})" if data and slots else ""
            self._refuse(", ".join(different), details)

    def add_methods(self, methods: FitFunctions) -> None:
        """Add methods to the folder; one of the same name must be the same."""
        if self.folder is None:
            return
        for name, function in methods.items():
            method = {"method": describe(function)}
            if _claim(self.folder / f"method_{name}.json", method) != method:
                self._refuse(f"method {name!r}")

    def read(self, fold: str, method: str, *, with_model: bool = False) -> Outcome | None:
        """Stored outcome; None if the method or its model is missing, or a file is damaged."""
        file = self._file(fold, method)
        if self.folder is None or not file.exists():
            return None
        try:
            with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
                values = {name: arrays[name] for name in _ARRAYS}
        except _DAMAGE as error:
            info(f"cross_validate: {file} is damaged ({error}) and is computed again")
            return None
        outcome = Outcome(**{name: x if x.ndim else x.item() for name, x in values.items()})
        if not with_model:
            return outcome
        folder = self._model(fold, method)
        if not folder.exists():  # models were not kept before
            return None
        try:
            return replace(outcome, model=load(folder))
        except (OSError, ValueError) as error:
            info(f"cross_validate: {error}; it is fitted again")
            return None

    def write(self, fold: str, method: str, outcome: Outcome) -> None:
        """Store an outcome; a file is complete or absent."""
        if self.folder is not None:
            if outcome.model is not None:  # before the outcome, which says that all is there
                path = self._model(fold, method)
                path.parent.mkdir(exist_ok=True)
                if path.is_dir() and not ModelFolder.at(path).is_model():  # it is damaged
                    shutil.rmtree(path)
                outcome.model.save(path)
            arrays = {name: getattr(outcome, name) for name in _ARRAYS}
            with replaced_binary(self._file(fold, method)) as file:
                np.savez(file, **arrays)

    def _file(self, fold: str, method: str) -> Path:
        return Path(self.folder or "") / f"fold{self._places[fold]}_{method}.npz"

    def _model(self, fold: str, method: str) -> Path:
        return Path(self.folder or "") / "models" / f"fold{self._places[fold]}_{method}"

    def _refuse(self, what: str, details: str = "") -> None:
        raise ValueError(
            f"{self.folder} holds a run with other {what}: give another folder={details}"
        )


def _describe_run(spots: SpotTable, folds: Folds, **options: Any) -> dict[str, Any]:
    """Everything but the methods that a cross-validation depends on, in plain types."""
    return {
        "folds": {fold.name: hash_values(fold.rows) for fold in folds},
        "training": {fold.name: hash_values(fold.training) for fold in folds},
        "data": data_fingerprints(spots),
        "steps": json.loads(json.dumps(recorded_steps(spots.table), default=str)),
        **options,
    }


def _has_files(folder: Path) -> bool:
    # hidden files may be those that another process is about to rename
    return not folder.is_dir() or any(not path.name.startswith(".") for path in folder.iterdir())


def _claim(file: Path, values: dict[str, Any]) -> dict[str, Any]:
    """Write values unless the file exists, and return those of the file."""
    if not file.exists():
        text = json.dumps(values, indent=1)
        temporary = file.with_name(f".{file.name}-{uuid4().hex}")  # used by no other process
        with replaced(temporary) as stream:
            stream.write(text)
        try:
            os.link(temporary, file)  # unlike a renaming, never replaces that of another process
        except OSError:
            if not file.exists():  # the file system has no links
                temporary.replace(file)
        temporary.unlink(missing_ok=True)
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{file} is damaged: delete its folder, or give another folder="
        ) from error
    return stored if isinstance(stored, dict) else {}
