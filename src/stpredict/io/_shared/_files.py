"""Checks of files before they are read, and while they are read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from stpredict._validate import listing, positive


def require_folder(folder: str | Path) -> Path:
    """Require an existing folder."""
    path = Path(folder)
    if not path.is_dir():
        raise FileNotFoundError(f"no such folder: {path}")
    return path


def require_file(file: str | Path, *, hint: str = "") -> Path:
    """Require an existing file."""
    path = Path(file)
    if not path.is_file():
        problem = f"{path} is a folder, not a file" if path.is_dir() else f"no such file: {path}"
        raise FileNotFoundError(problem + (f". {hint}" if hint else ""))
    return path


def require_entries(
    source: object, entries: Iterable[str], required: Iterable[str], *, error: type = ValueError
) -> None:
    """Require columns of a table, or keys of a dictionary, that was read from a source."""
    entries = dict.fromkeys(entries)  # in order, and fast for a table with all genes
    missing = [name for name in required if name not in entries]
    if missing:
        raise error(f"{source} has no {listing(missing)}; it has {listing(entries)}")


def number_columns(source: object, table: pd.DataFrame, columns: list[str]) -> NDArray[np.float64]:
    """Columns of numbers that a table from a source must have, (n, n_columns)."""
    require_entries(source, table, columns)
    for name, dtype in table[columns].dtypes.items():
        if len(table) and dtype.kind not in "iuf":
            text = listing(table[name].head(2))
            raise TypeError(f"column {name!r} of {source} must have numbers, not {text}")
    return np.asarray(table[columns].to_numpy(dtype=float, na_value=np.nan))


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """Name the file in whatever error a library raises while it reads the file."""
    try:
        yield
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(
            f"{file} cannot be read ({reason}). Check that it is complete and of this format"
        ) from error


def read_json(file: Path, numbers: Iterable[str]) -> dict[str, Any]:
    """Read a JSON file that must have these numbers above zero."""
    with reading(file):
        values = json.loads(file.read_bytes())
        entries = dict(values)
    require_entries(file, entries, numbers)
    for name in numbers:
        positive(f"{name} in {file}", entries[name])
    return entries


def check_10x(file: Path) -> None:
    """Check the sparse matrix of 10x's HDF5 file: other readers may crash if it is malformed."""
    with reading(file), h5py.File(file, "r") as opened:
        for group in opened.values():  # one; one per genome in files before Cell Ranger 3
            if "indptr" in group:
                values = np.broadcast_to(np.int8(0), group["data"].shape)  # need not be read
                parts = (values, group["indices"][()], group["indptr"][()])
                sp.csc_matrix(parts, shape=group["shape"][()]).check_format(full_check=True)
