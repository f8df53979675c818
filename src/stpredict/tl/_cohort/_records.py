"""What is recorded of each slide, and the manifest made of it."""

from __future__ import annotations

import glob
import json
import shutil
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

import pandas as pd
from filelock import FileLock

from stpredict._atomic import replaced

#: Hidden folder with the records and locks, next to the results.
_FOLDER = ".stpredict"
MANIFEST = "manifest.csv"


@dataclass(frozen=True)
class SlideRecord:
    """Outcome of one slide."""

    name: str
    slide: str  # path of the file
    state: Literal["running", "finished", "failed"]
    inputs: str  # hash of what the result depends on
    seconds: float | None = None
    peak_memory_gb: float | None = None  # of the process, since its start
    spots: int | None = None
    familiarity: float | None = None  # median over the spots, of a calibrated model
    error: str | None = None


class Records:
    """The records of an output folder, which several processes may use at once."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self._folder = out / _FOLDER

    def create(self) -> None:
        """Create the folder."""
        self.out.mkdir(parents=True, exist_ok=True)
        self._folder.mkdir(exist_ok=True)
        with self._manifest_lock():  # nobody writes these files now
            for unfinished in self.out.glob(f".{MANIFEST}-*"):
                unfinished.unlink()

    def lock(self, name: str, *, wait: bool) -> FileLock:
        """Lock of one slide, which the system releases when its process ends."""
        return FileLock(self._folder / f"{name}.lock", timeout=-1 if wait else 0)

    def _manifest_lock(self) -> FileLock:
        return FileLock(self._folder / "manifest.lock")

    def read(self, name: str) -> SlideRecord | None:
        """Record of a slide; None if there is none, or its file is damaged."""
        try:
            return _parse(self.file(name))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, record: SlideRecord) -> None:
        """Replace the record of a slide, and the manifest."""
        with replaced(self.file(record.name)) as file:
            json.dump(asdict(record), file, indent=1)
        with self._manifest_lock(), replaced(self.out / MANIFEST) as file:
            self.manifest().to_csv(file, index=False)

    def results(self, name: str, folder: Path | None = None) -> tuple[Path, Path]:
        """Paths of a slide's results."""
        folder = self.out if folder is None else folder
        return folder / f"{name}.zarr", folder / f"{name}.h5ad"

    def staging(self, name: str) -> Path:
        """Empty folder for the results of a slide until they are complete."""
        folder = self._folder / name
        shutil.rmtree(folder, ignore_errors=True)  # of a killed run
        return folder

    def publish(self, name: str, staging: Path) -> None:
        """Replace the results of a slide by the complete ones."""
        sources, targets = self.results(name, staging), self.results(name)
        for source, target in zip(sources, targets, strict=True):
            if target.exists():
                target.rename(staging / f"replaced{target.suffix}")
            source.rename(target)
        shutil.rmtree(staging)

    def manifest(self) -> pd.DataFrame:
        """All records of the folder, sorted by name."""
        names = sorted(path.stem for path in self._folder.glob("*.json"))
        records = [record for name in names if (record := self.read(name)) is not None]
        columns = [field.name for field in fields(SlideRecord) if field.name != "inputs"]
        manifest = pd.DataFrame([asdict(record) for record in records], columns=columns)
        numbers = ("seconds", "peak_memory_gb", "familiarity")
        return manifest.astype({"spots": "Int64", **dict.fromkeys(numbers, "float64")})

    def picture(self, name: str, version: str) -> Path:
        """Path of the picture of a slide, a data URI."""
        return self._folder / f"{name}~{version}.uri"  # "~" is in no name

    def replace_picture(self, name: str, path: Path, uri: str) -> None:
        """Write the picture of a slide, and remove earlier ones."""
        for earlier in self._folder.glob(f"{glob.escape(name)}~*.uri"):
            earlier.unlink(missing_ok=True)
        with replaced(path) as file:
            file.write(uri)

    def file(self, name: str) -> Path:
        """Path of the record of a slide."""
        return self._folder / f"{name}.json"


def _parse(file: Path) -> SlideRecord:
    return SlideRecord(**json.loads(file.read_text(encoding="utf-8")))
