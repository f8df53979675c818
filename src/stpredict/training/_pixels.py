"""Tiles for networks on pixels: batches from a cache, and streams of batches."""

from __future__ import annotations

import errno
import math
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from stpredict.nn._tiles import N_SYMMETRIES, symmetry
from stpredict.training._augment import Augmentation
from stpredict.training._data import Measured

# Batches of rows, (b,) int, and their tiles, (b, 3, h, w) uint8.
Tiles = Iterable[tuple[NDArray[np.intp], torch.Tensor]]


class TileBatch(NamedTuple):
    """Tiles and targets of some spots."""

    tiles: torch.Tensor  # (n, 3, h, w) uint8
    targets: torch.Tensor  # (n, g) float32, scaled
    log_expected: torch.Tensor | None = None  # this and the next as in `Batch`
    section: torch.Tensor | None = None

    def predict(self, network: nn.Module) -> torch.Tensor:
        """Run a network on the batch, (n, g)."""
        return network(self.tiles)


@dataclass(frozen=True)
class Pixels:
    """Tiles of all spots, the counterpart of `Inputs` for networks on pixels."""

    tiles: NDArray[np.uint8]  # (n, 3, h, w), in memory or memory-mapped
    augmentation: Augmentation = field(default_factory=Augmentation)  # of training batches
    order: None = field(default=None, init=False)  # patches would save nothing

    def __post_init__(self) -> None:
        if self.tiles.dtype != np.uint8:
            raise TypeError(f"tiles must be uint8, not {self.tiles.dtype}")
        if self.tiles.ndim != 4 or self.tiles.shape[1] != 3:
            raise ValueError(f"tiles must be (n, 3, h, w), RGB, not {self.tiles.shape}")

    def __len__(self) -> int:
        return len(self.tiles)

    def batch(
        self, rows: NDArray[np.intp], measured: Measured, *, training: bool = False
    ) -> TileBatch:
        """Tiles and targets of some rows; augmented in training."""
        tiles = self.read(rows)
        # the augmentation uses torch's global generator, which `fit_network` seeds
        return TileBatch(
            tiles=self.augmentation(tiles) if training else tiles,
            targets=torch.from_numpy(measured.targets[rows]),
            log_expected=measured.log_expected(rows),
            section=measured.sections_of(rows),
        )

    def read(self, rows: NDArray[np.intp]) -> torch.Tensor:
        """Copy the tiles of some rows, (m, 3, h, w) uint8."""
        # copy, also for a slice: memory-mapped tiles are then read from disk once
        return torch.from_numpy(np.array(self.tiles[rows]))


@dataclass(frozen=True)
class TileStream:
    """Tiles of all spots, predicted once while they are read."""

    tiles: Tiles  # in any order
    n_tiles: int
    symmetries: bool = False  # average over the eight flips and rotations of a tile, as in ST-Net

    def walk(
        self, network: nn.Module, device: torch.device, *, members: bool = True
    ) -> Iterator[tuple[NDArray[np.intp], torch.Tensor, None]]:
        """Yield rows, in the order of reading, their predictions (b, g), and None for members."""
        network.eval()
        turns = range(N_SYMMETRIES if self.symmetries else 1)
        for rows, batch in self.tiles:
            with torch.inference_mode():
                on_device = batch.to(device)
                outputs = [network(symmetry(on_device, k)).float() for k in turns]
                yield rows, torch.stack(outputs).mean(0), None


@contextmanager
def cached(tiles: Tiles, *, n: int, tile_px: int) -> Iterator[NDArray[np.uint8]]:
    """Write tiles, each row once, to a temporary file: memory-mapped, (n, 3, px, px) uint8.

    OSError if the temporary folder has too little space.
    """
    shape = (n, 3, tile_px, tile_px)
    # on POSIX the file has no name, so that nothing remains of it even if the process is killed
    with tempfile.TemporaryFile(prefix="stpredict-tiles-") as file:
        reserve(file, math.prod(shape), what="tiles")
        cache = np.memmap(file, dtype=np.uint8, mode="r+", shape=shape)
        _fill(cache, tiles)
        cache.flags.writeable = False
        yield cache


def reserve(file: IO[bytes], n_bytes: int, *, what: str) -> None:
    """Reserve space for data: writing to a mapped file on a full disk would end the process."""
    folder = Path(tempfile.gettempdir())
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, n_bytes)
            return
        if shutil.disk_usage(folder).free < n_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        file.truncate(n_bytes)
    except OSError as error:
        raise OSError(
            error.errno,
            f"the temporary folder cannot hold {n_bytes / 1e9:.3g} GB of {what} "
            f"({error.strerror}): free space, or set the environment variable TMPDIR to another",
            str(folder),
        ) from error


def _fill(cache: NDArray[np.uint8], tiles: Tiles) -> None:
    n_writes = np.zeros(len(cache), dtype=int)
    for rows, batch in tiles:
        cache[rows] = batch.numpy()
        np.add.at(n_writes, rows, 1)  # counts rows that repeat within a batch
    invalid = np.flatnonzero(n_writes != 1)
    if invalid.size:
        example = f"row {invalid[0]}: {n_writes[invalid[0]]} times"
        raise ValueError(f"{invalid.size} of {len(cache)} rows not written once, such as {example}")
