"""The folder of a saved model: its files, also while they are being replaced."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from stpredict.models._config import FORMAT

CONFIG, WEIGHTS, HISTORY, CARD = "config.json", "model.safetensors", "history.csv", "README.md"
#: Folders of a stack's bases are numbered, as the bases' own names may not be valid paths.
BASE = "base_{}"
#: Folder inside the model's folder with the complete new files, while they are moved to their
#: places. One rename makes it, so that an interrupted save leaves the old model or the new one.
_COMMITTED = ".saved"
#: Prefix of the folder in which new files are written.
WRITING = ".saving-"


@dataclass(frozen=True)
class ModelFolder:
    """Folder of a model or of a stack's base; files that are not moved yet are read instead."""

    path: Path
    committed: Path

    @classmethod
    def at(cls, path: Path) -> ModelFolder:
        """Folder of a whole model."""
        return cls(path, path / _COMMITTED)

    def file(self, name: str) -> Path:
        """Path of a file."""
        committed = self.committed / name
        return committed if committed.is_file() else self.path / name

    def base(self, number: int) -> ModelFolder:
        """Folder of a base of a stack."""
        name = BASE.format(number)
        base = ModelFolder(self.path / name, self.committed / name)
        # links can form circles, and multiply a few folders to any number of models
        for folder in (base.path, base.committed):
            if folder.is_symlink():
                raise ValueError(f"{folder} is a link: replace it by a copy of the model")
        return base

    def is_model(self) -> bool:
        """Whether the configuration is that of a model."""
        try:
            return bool(json.loads(self.file(CONFIG).read_text("utf-8"))["format"] == FORMAT)
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            return False


def check_replaceable(path: Path) -> None:
    """Require a path that does not exist, an empty folder, or a model."""
    if path.is_symlink() and not path.exists():
        raise FileExistsError(f"{path} is a link to a missing folder: choose another path")
    if not path.exists() or ModelFolder.at(path).is_model():
        return
    if not path.is_dir() or any(not part.name.startswith(WRITING) for part in path.iterdir()):
        raise FileExistsError(f"{path} exists and is not an stpredict model: choose another path")


def commit(written: Path, path: Path) -> None:
    """Replace the files of a model by complete new ones; other files are not touched."""
    for file in _files(written):
        target = path / file
        folders = [path / parent for parent in file.parents[:-1]]
        if target.is_dir() or any(each.is_symlink() or each.is_file() for each in folders):
            raise FileExistsError(f"{target} cannot be written: remove what is in its place")
    written.rename(path / _COMMITTED)
    finish(path)


def finish(path: Path) -> None:
    """Move files that are complete to their places, each at once."""
    committed = path / _COMMITTED
    if not committed.is_dir():
        return
    for file in _files(committed):
        (path / file).parent.mkdir(parents=True, exist_ok=True)
        (committed / file).replace(path / file)
    shutil.rmtree(committed)


def remove_leftovers(path: Path) -> None:
    """Remove what interrupted saves had written."""
    for folder in path.glob(f"{WRITING}*"):
        shutil.rmtree(folder, ignore_errors=True)


def remove_bases(path: Path, first: int) -> None:
    """Remove the bases of an older stack from a number on; other files are not touched."""
    number = first
    while ModelFolder.at(base := path / BASE.format(number)).is_model() and not base.is_symlink():
        remove_bases(base, 0)
        # the configuration last, so that the next save continues an interrupted removal
        for name in (WEIGHTS, HISTORY, CARD, CONFIG):
            (base / name).unlink(missing_ok=True)
        with suppress(OSError):  # the user's own files stay
            base.rmdir()
        number += 1


def _files(folder: Path) -> list[Path]:
    return [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
