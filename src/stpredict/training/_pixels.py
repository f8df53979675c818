"""Tiles for networks that learn from pixels: batches of a cache, and streams of batches."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from stpredict.nn._tiles import N_SYMMETRIES, symmetry
from stpredict.training._augment import Augmentation
from stpredict.training._data import Measured

#: Which rows, (b,) int, and their tiles, (b, 3, h, w) uint8.
Tiles = Iterable[tuple[NDArray[np.intp], torch.Tensor]]


class TileBatch(NamedTuple):
    """What a network on pixels sees of some spots.

    Attributes
    ----------
    tiles
        (n, 3, h, w) uint8.
    targets
        (n, g) float32, scaled.
    log_expected
        (n, g) float32, what the network's output is added to for losses on counts.
    """

    tiles: torch.Tensor
    targets: torch.Tensor
    log_expected: torch.Tensor | None = None

    def predict(self, network: nn.Module) -> torch.Tensor:
        """Run a network on the batch, (n, g)."""
        predicted: torch.Tensor = network(self.tiles)
        return predicted


@dataclass(frozen=True)
class Pixels:
    """Tiles of all spots, the counterpart of `Inputs` for networks on pixels.

    Attributes
    ----------
    tiles
        (n, 3, h, w) uint8, in memory or memory-mapped.
    augmentation
        Of batches that are trained on; by default none.

    Raises
    ------
    TypeError, ValueError
        If the tiles have another type or shape.
    """

    tiles: NDArray[np.uint8]
    augmentation: Augmentation = field(default_factory=Augmentation)
    order: None = field(default=None, init=False)  # batches of patches save nothing here

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
        """Gather what a network needs to be trained, or validated, on some rows.

        What is trained on is augmented, by numbers of torch's own generator, which the runner has
        seeded.
        """
        tiles = self.read(rows)
        return TileBatch(
            tiles=self.augmentation(tiles) if training else tiles,
            targets=torch.from_numpy(measured.targets[rows]),
            log_expected=measured.log_expected(rows),
        )

    def read(self, rows: NDArray[np.intp]) -> torch.Tensor:
        """Copy the tiles of some rows, (m, 3, h, w) uint8."""
        # a copy even where rows could be a view: what is memory-mapped is read once
        return torch.from_numpy(np.array(self.tiles[rows]))


@dataclass(frozen=True)
class TileStream:
    """Tiles of all spots as they are read, to be predicted once.

    Attributes
    ----------
    tiles
        Batches of rows and tiles, in any order.
    n_tiles
        Number of tiles.
    symmetries
        Whether to predict the mean over the eight flips and right-angle turns of a tile, as ST-Net
        does.
    """

    tiles: Tiles
    n_tiles: int
    symmetries: bool = False

    def walk(
        self, network: nn.Module, device: torch.device, *, members: bool = True
    ) -> Iterator[tuple[NDArray[np.intp], torch.Tensor, None]]:
        """Predict tiles as they come; no more than a batch of them is held.

        Gives the rows, in the order of the tiles, what the network predicts of them, (b, g), and
        None where other methods have the members of an ensemble, whether they are wanted or not.
        """
        network.eval()
        turns = range(N_SYMMETRIES if self.symmetries else 1)
        for rows, batch in self.tiles:
            with torch.inference_mode():
                on_device = batch.to(device)
                outputs = [network(symmetry(on_device, k)).float() for k in turns]
                yield rows, torch.stack(outputs).mean(0), None


@contextmanager
def cached(tiles: Tiles, *, n: int, tile_px: int) -> Iterator[NDArray[np.uint8]]:
    """Write tiles to a file that is mapped into memory, in the order of their rows.

    Parameters
    ----------
    tiles
        Batches of rows and tiles, in any order; every row once.
    n
        Number of rows.
    tile_px
        Side of the tiles.

    Yields
    ------
    (n, 3, tile_px, tile_px) uint8, read-only. Its file lies in a temporary folder and is removed
    when the context is left.

    Raises
    ------
    ValueError
        If a row is missing, comes twice, or is none of the n.
    OSError
        If the disk does not hold the tiles.
    """
    shape = (n, 3, tile_px, tile_px)
    with tempfile.TemporaryDirectory(
        prefix="stpredict-tiles-", ignore_cleanup_errors=True
    ) as folder:
        path = Path(folder) / "tiles.npy"
        _write(path, tiles, shape)
        yield np.load(path, mmap_mode="r")


def _write(path: Path, tiles: Tiles, shape: tuple[int, int, int, int]) -> None:
    cache = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    seen = np.zeros(shape[0], dtype=int)
    for rows, batch in tiles:
        cache[rows] = batch.numpy()
        np.add.at(seen, rows, 1)
    cache.flush()
    wrong = np.flatnonzero(seen != 1)
    if wrong.size:
        raise ValueError(
            f"every row must come once; {wrong.size} of {shape[0]} do not, row {wrong[0]} "
            f"{seen[wrong[0]]} times"
        )
