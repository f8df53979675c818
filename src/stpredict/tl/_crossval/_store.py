"""Finished folds on disk, where an interrupted cross-validation takes up again."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from stpredict._sdata import _provenance, _sections
from stpredict.tl._crossval._run import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData

    from stpredict.tl._crossval._folds import Folds
    from stpredict.tl._fitting._bases import Fits

_RUN = "run.json"


class Store:
    """A folder with what each method predicted in each fold.

    Parameters
    ----------
    folder
        Made where it is not there. None: nothing is kept.
    known
        What the run is: a folder of another run is refused.
    """

    def __init__(self, folder: str | Path | None, known: dict[str, Any]) -> None:
        self.folder = None if folder is None else Path(folder)
        if self.folder is None:
            return
        file = self.folder / _RUN
        if file.exists():
            kept = json.loads(file.read_text(encoding="utf-8"))
            _check_same(self.folder, kept, known)
            known = known | {"methods": kept["methods"] | known["methods"]}
        elif self.folder.exists() and any(self.folder.iterdir()):
            raise FileExistsError(
                f"{self.folder} holds something else than a cross-validation: give another folder="
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        _write(file, lambda path: path.write_text(json.dumps(known, indent=1), encoding="utf-8"))

    def read(self, fold: int, method: str) -> Outcome | None:
        """What was kept; None if the method did not finish."""
        if self.folder is None or not self._file(fold, method).exists():
            return None
        with np.load(self._file(fold, method), allow_pickle=False) as kept:
            return Outcome(
                **{
                    field.name: kept[field.name] if kept[field.name].ndim else kept[field.name][()]
                    for field in fields(Outcome)
                }
            )

    def write(self, fold: int, method: str, outcome: Outcome) -> None:
        """Keep an outcome; whole, or not at all."""
        if self.folder is not None:
            _write(self._file(fold, method), lambda path: _save(path, outcome))

    def _file(self, fold: int, method: str) -> Path:
        return Path(self.folder or "") / f"fold{fold}_{method}.npz"


def fingerprint(table: AnnData, methods: Fits, folds: Folds, **options: Any) -> dict[str, Any]:
    """What a cross-validation depends on, in short."""
    digest = hashlib.blake2b(digest_size=16)
    for values in (table.X, *(table.layers[name] for name in _named(table.layers))):
        _digest(digest, values)
    for slot in sorted(_provenance.recorded(table, "embed").keys() & set(table.obsm.keys())):
        _digest(digest, table.obsm[slot])
    names = [*table.obs_names, *table.var_names, *_sections.region_of(table)]
    digest.update("\n".join(map(str, names)).encode())
    return {
        "methods": {name: describe(fit) for name, fit in methods.items()},
        "folds": {name: hashlib.blake2b(rows.tobytes()).hexdigest()[:16] for name, rows in folds},
        "data": digest.hexdigest(),
        "steps": json.loads(json.dumps(_provenance.recorded_steps(table), default=str)),
        **options,
    }


def describe(fit: Callable[..., Any]) -> str:
    """A function and its arguments, as far as they can be told."""
    if isinstance(fit, partial):
        given = [describe(part) if callable(part) else repr(part) for part in fit.args]
        given += [
            f"{key}={describe(value) if callable(value) else _repr(value)}"
            for key, value in sorted(fit.keywords.items())
        ]
        return f"{describe(fit.func)}({', '.join(given)})"
    name = getattr(fit, "__qualname__", type(fit).__qualname__)
    return f"{getattr(fit, '__module__', type(fit).__module__)}.{name}"


def _repr(value: Any) -> str:
    if isinstance(value, dict):
        items = (f"{key!r}: {describe(v) if callable(v) else _repr(v)}" for key, v in value.items())
        return "{" + ", ".join(items) + "}"
    return repr(value)


def _named(layers: Any) -> list[str]:
    return sorted(name for name in layers if name is not None)  # anndata 0.13: None is X


def _digest(digest: Any, values: Any) -> None:
    if sp.issparse(values):
        values = values.tocsr()
        parts = [values.data, values.indices, values.indptr]
    else:
        parts = [np.asarray(values)]
    for part in parts:
        digest.update(np.ascontiguousarray(part).data)


def _check_same(folder: Path, kept: dict[str, Any], known: dict[str, Any]) -> None:
    known = json.loads(json.dumps(known))
    other = [key for key in known if key != "methods" and known[key] != kept.get(key)]
    other += [
        f"method {name!r}"
        for name, fit in known["methods"].items()
        if kept["methods"].get(name, fit) != fit
    ]
    if other:
        raise ValueError(
            f"{folder} holds a cross-validation with other {', '.join(other)}: give another "
            "folder=, or delete it to start again"
        )


def _save(path: Path, outcome: Outcome) -> None:
    with path.open("wb") as file:
        np.savez(file, **{field.name: getattr(outcome, field.name) for field in fields(Outcome)})


def _write(file: Path, make: Callable[[Path], Any]) -> None:
    """Write beside its place, then move there."""
    beside = file.with_name(f".{file.name}.part")
    make(beside)
    beside.replace(file)
