"""Files that are complete or absent."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO


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
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def require_folder(path: Path) -> None:
    """Require that the folder of a new file exists."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {str(path.parent)!r} does not exist: create it first")
