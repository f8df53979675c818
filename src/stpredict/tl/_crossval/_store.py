"""Finished folds on disk, from which an interrupted cross-validation continues."""

from __future__ import annotations

import json
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
import scipy.sparse as sp

from stpredict._sdata._provenance import recorded_steps
from stpredict._sdata._spot_table import layer_names
from stpredict.tl._crossval._outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from stpredict._sdata._spot_table import SpotTable
    from stpredict.tl._crossval._folds import Folds
    from stpredict.tl._fitting._bases import FitFunctions

_RUN = "run.json"


class Store:
    """A folder with the outcome of each method in each fold; None stores nothing."""

    def __init__(
        self, folder: str | Path | None, spots: SpotTable, folds: Folds, *, device: str
    ) -> None:
        self.folder = None if folder is None else Path(folder)
        self._data = {} if folder is None else _describe_data(spots, folds, device=device)
        # files are numbered, since names of folds may not be names of files
        self._places = {fold.name: number for number, fold in enumerate(folds)}

    def add_methods(self, methods: FitFunctions) -> None:
        """Require the folder to be of the same run, and add methods to it."""
        if self.folder is None:
            return
        run = {"methods": {name: describe(one) for name, one in methods.items()}, **self._data}
        file = self.folder / _RUN
        if file.exists():
            stored = json.loads(file.read_text(encoding="utf-8"))
            _check_same_run(self.folder, stored, json.loads(json.dumps(run)))
            run = {**run, "methods": stored["methods"] | run["methods"]}
        elif self.folder.exists() and any(self.folder.iterdir()):
            raise FileExistsError(f"{self.folder} holds something else: give another folder=")
        self.folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(run, indent=1)
        _write_whole(file, lambda path: path.write_text(text, encoding="utf-8"))

    def read(self, fold: str, method: str) -> Outcome | None:
        """Stored outcome; None if the method did not finish."""
        if self.folder is None or not self._file(fold, method).exists():
            return None
        with np.load(self._file(fold, method), allow_pickle=False) as arrays:
            values = {part.name: arrays[part.name] for part in fields(Outcome)}
        return Outcome(**{name: x if x.ndim else x.item() for name, x in values.items()})

    def write(self, fold: str, method: str, outcome: Outcome) -> None:
        """Store an outcome; a file is complete or absent."""
        if self.folder is not None:
            _write_whole(self._file(fold, method), lambda path: _save(path, outcome))

    def _file(self, fold: str, method: str) -> Path:
        return Path(self.folder or "") / f"fold{self._places[fold]}_{method}.npz"


def _describe_data(spots: SpotTable, folds: Folds, **options: Any) -> dict[str, Any]:
    """Everything but the methods that a cross-validation depends on, as a fingerprint."""
    table = spots.table
    matrices = [table.X, *(table.layers[name] for name in layer_names(table))]
    embeddings = {slot: table.obsm[slot] for slot in spots.steps.embed if slot in table.obsm}
    names = [*table.obs_names, *table.var_names, *spots.section_of_row]
    return {
        "folds": {fold.name: joblib.hash(fold.rows) for fold in folds},
        "data": joblib.hash([*map(_arrays, matrices), embeddings, names]),
        "steps": json.loads(json.dumps(recorded_steps(table), default=str)),
        **options,
    }


def describe(function: Callable[..., Any]) -> str:
    """A function and its arguments as text; a function of the user's is known by its name."""
    if isinstance(function, partial):
        arguments = [_describe_value(value) for value in function.args]
        arguments += [
            f"{name}={_describe_value(value)}" for name, value in sorted(function.keywords.items())
        ]
        return f"{describe(function.func)}({', '.join(arguments)})"
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{getattr(function, '__module__', type(function).__module__)}.{name}"


def _describe_value(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {_describe_value(x)}" for key, x in value.items()) + "}"
    return describe(value) if callable(value) else repr(value)


def _arrays(matrix: Any) -> list[NDArray[Any]]:
    """Arrays of a matrix; a sparse one also has flags, which change without its values."""
    if not sp.issparse(matrix):
        return [np.asarray(matrix)]
    matrix = matrix.tocsr()
    return [matrix.data, matrix.indices, matrix.indptr]


def _check_same_run(folder: Path, stored: dict[str, Any], run: dict[str, Any]) -> None:
    different = [key for key in run if key != "methods" and run[key] != stored.get(key)]
    before = stored["methods"]
    changed = [name for name, text in run["methods"].items() if before.get(name, text) != text]
    different += [f"method {name!r}" for name in changed]
    if different:
        raise ValueError(
            f"{folder} holds a run with other {', '.join(different)}: give another folder="
        )


def _save(path: Path, outcome: Outcome) -> None:
    with path.open("wb") as file:
        np.savez(file, **{part.name: getattr(outcome, part.name) for part in fields(Outcome)})


def _write_whole(file: Path, write: Callable[[Path], Any]) -> None:
    """Write to a temporary name, then rename."""
    partial_file = file.with_name(f".{file.name}.part")
    write(partial_file)
    partial_file.replace(file)  # atomic: an interruption leaves no half file
