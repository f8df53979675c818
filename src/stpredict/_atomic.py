"""Files that are complete or absent."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO

#: Number of tries, and seconds between two, to replace a file that another process reads.
_TRIES, _WAIT = 40, 0.05


@contextmanager
def replaced(path: Path) -> Iterator[TextIO]:
    """Open a temporary text file that takes the place of `path` when it is written completely."""
    with (
        replaced_binary(path) as file,
        open(file.fileno(), "w", encoding="utf-8", newline="\n", closefd=False) as text,
    ):
        yield text


@contextmanager
def replaced_binary(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file that takes the place of `path` when it is written completely."""
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
        Path(temporary).chmod(0o644)  # files of mkstemp are private
        _replace(Path(temporary), path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _replace(written: Path, path: Path) -> None:
    for _ in range(_TRIES if sys.platform == "win32" else 0):
        try:
            written.replace(path)
            return
        except PermissionError:  # another process reads the file, which Windows then keeps
            time.sleep(_WAIT)
    written.replace(path)


def require_folder(path: Path) -> None:
    """Require that the folder of a new file exists."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {str(path.parent)!r} does not exist: create it first")
