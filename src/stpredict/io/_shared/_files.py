"""Checks of files before they are read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from stpredict._validate import listing


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
        raise FileNotFoundError(f"no such file: {path}" + (f". {hint}" if hint else ""))
    return path


def require_entries(
    source: object, entries: Iterable[str], required: Iterable[str], *, error: type = ValueError
) -> None:
    """Require columns of a table, or keys of a dictionary, that was read from a source."""
    entries = list(entries)
    missing = [name for name in required if name not in entries]
    if missing:
        raise error(f"{source} has no {listing(missing)}; it has {listing(entries)}")
