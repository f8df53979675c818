"""Embeddings of tiles on disk, found again in later sessions."""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from stpredict._atomic import replaced_binary
from stpredict._describe import describe
from stpredict._log import warn
from stpredict._settings import cache_folder
from stpredict.encoders._content import content_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from stpredict.encoders._encoder import Encoder
    from stpredict.tiles import Windows

_FORMAT = 1
#: Packages that compute embeddings.
_PACKAGES = ("stpredict", "torch", "torchvision", "timm", "lazyslide-models")
#: Packages whose code their version describes.
_KNOWN = ("stpredict", "timm")
#: Seconds of embedding that are lost at most when a process is killed.
_SECONDS = 5.0
#: Bytes of the id of a tile.
_ID = 16


def require_cache() -> None:
    """Require that embeddings can be stored."""
    folder = _folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(
            f"the cache folder {str(folder)!r} cannot be written ({error.strerror}): set "
            "stp.settings.cache_dir to another folder"
        ) from None


def _folder() -> Path:
    return cache_folder() / "embeddings"


@dataclass(eq=False)
class StoredTiles:
    """Embeddings of the tiles of a section, as far as they are stored.

    A tile is identified by its centre, if the image is recognised by the files it is read from,
    else by its pixels.
    """

    folder: Path
    width: int  # numbers per tile: embeddings of all fields and sub-tiles
    centers: NDArray[np.floating] | None  # (n, 2); None to identify tiles by their pixels
    values: dict[bytes, NDArray[np.float32]] = field(default_factory=dict)  # by the id of the tile
    pending: list[bytes] = field(default_factory=list)  # ids that are not written yet
    written: float = field(default_factory=time.monotonic)

    @property
    def by_center(self) -> bool:
        """Whether the tiles are known before they are read."""
        return self.centers is not None

    def fill(
        self, rows: NDArray[np.intp], tiles: Sequence[torch.Tensor], values: NDArray[np.float32]
    ) -> NDArray[np.bool_]:
        """Fill in stored embeddings of some rows; returns which rows have one.

        ``tiles`` of each field, (b, 3, h, w) uint8, are not used if the centres identify them.
        """
        is_stored = np.zeros(len(rows), dtype=bool)
        for k, tile in enumerate(self._ids(rows, tiles)):
            if (stored := self.values.get(tile)) is not None:
                values[rows[k]], is_stored[k] = stored, True
        return is_stored

    def add(
        self, rows: NDArray[np.intp], tiles: Sequence[torch.Tensor], values: NDArray[np.float32]
    ) -> None:
        """Store embeddings of some rows, at least every few seconds."""
        for row, tile in zip(rows, self._ids(rows, tiles), strict=True):
            if tile in self.values:  # equal tiles have equal embeddings, up to rounding
                values[row] = self.values[tile]
                continue
            self.values[tile] = values[row].copy()
            self.pending.append(tile)
        if time.monotonic() - self.written >= _SECONDS:
            self.write()

    def write(self) -> None:
        """Write new embeddings to a file of their own."""
        if self.pending:
            ids = np.frombuffer(b"".join(self.pending), dtype=np.uint8).reshape(-1, _ID)
            values = np.stack([self.values[tile] for tile in self.pending])
            name = hashlib.sha256(ids.tobytes()).hexdigest()[:_ID]
            try:
                with replaced_binary(self.folder / f"{name}.npz") as file:
                    np.savez(file, ids=ids, values=values)
            except OSError as error:  # hours of embedding are worth more than their copy
                warn(f"embeddings cannot be stored in {self.folder} ({error.strerror or error})")
            self.pending = []
        self.written = time.monotonic()

    def read(self) -> None:
        """Read all files; damaged ones are reported and removed."""
        for path in sorted(self.folder.glob("*.npz")):
            try:
                with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                    ids, values = arrays["ids"], arrays["values"]
                self._check(ids, values)
            except FileNotFoundError:  # another process has removed it
                continue
            except Exception as error:  # noqa: BLE001 readers of zip and npy files raise many types
                warn(f"stored embeddings in {path} are damaged and computed again ({error})")
                with suppress(OSError):
                    path.unlink()
                continue
            self.values |= {tile.tobytes(): value for tile, value in zip(ids, values, strict=True)}

    def _check(self, ids: NDArray[Any], values: NDArray[Any]) -> None:
        shapes = (len(values), _ID), (len(values), self.width)
        if (ids.shape, values.shape) != shapes or values.dtype != np.float32:
            raise ValueError(f"shapes {ids.shape} and {values.shape} of {values.dtype}")
        if ids.dtype != np.uint8 or not np.isfinite(values).all():
            raise ValueError("values are not finite")

    def _ids(self, rows: NDArray[np.intp], tiles: Sequence[torch.Tensor]) -> Iterator[bytes]:
        if self.centers is not None:
            for center in self.centers[rows].astype("<f8"):
                yield center.tobytes()
            return
        arrays = [field.numpy() for field in tiles]
        for k in range(len(rows)):
            digest = hashlib.blake2b(digest_size=_ID)
            for array in arrays:
                digest.update(array[k].tobytes())
            yield digest.digest()


@contextmanager
def stored_tiles(
    encoder: Encoder,
    fields: Sequence[Windows],
    centers: NDArray[np.floating],
    *,
    width: int,
    **options: Any,  # how tiles are read
) -> Iterator[StoredTiles]:
    """Open stored embeddings of a section; new ones are written when the context ends."""
    digests: dict[Path, str] = {}
    content = [content_of(windows.level, digests) for windows in fields]
    is_known = None not in content
    facts = {
        "format": _FORMAT,
        "versions": _versions(),
        "encoder": _describe_encoder(encoder),
        "content": content if is_known else None,
        "levels": [windows.level.shape for windows in fields],
        "width": width,
        **options,
    }
    key = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()
    folder = _folder() / key[:32]
    folder.mkdir(parents=True, exist_ok=True)
    stored = StoredTiles(folder, width, centers if is_known else None)
    stored.read()
    try:
        yield stored
    finally:
        stored.write()  # also if the user interrupts


def _describe_encoder(encoder: Encoder) -> dict[str, Any]:
    """Everything about an encoder that its embeddings depend on."""
    names = ("identity", "weights_hash", "input_px", "resize_px", "mean", "std", "autocast")
    facts = {name: getattr(encoder, name) for name in names}
    facts["device"] = encoder.device.type
    package = type(encoder.function).__module__.partition(".")[0]
    if package not in _KNOWN or not _has_weights(encoder):
        facts["code"] = describe(encoder.function)
        # what code and parameters do not show, such as values of other modules
        facts["response"] = [f"{value:.4g}" for value in encoder.response]
    return facts


def _has_weights(encoder: Encoder) -> bool:
    """Whether the hash of the weights identifies an encoder of a known package."""
    function = encoder.function
    return isinstance(function, torch.nn.Module) and any(True for _ in function.parameters())


def _versions() -> dict[str, str]:
    versions = {}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions
