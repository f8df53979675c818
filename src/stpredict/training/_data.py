"""Arrays of embeddings, and batches of them in which every tile occurs once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    WeightedRandomSampler,
)

from stpredict.targets import Standard


class Batch(NamedTuple):
    """What a network sees of some spots.

    Attributes
    ----------
    tiles
        (m, d) float32, the distinct tiles: the spots' own and their neighbours'.
    center
        (n,) int64, rows of ``tiles``.
    subtiles
        (n, s, d) float32.
    neighbors
        (n, k) int64, rows of ``tiles``.
    neighbor_mask
        (n, k) bool.
    targets
        (n, g) float32, scaled.
    """

    tiles: torch.Tensor
    center: torch.Tensor
    subtiles: torch.Tensor | None
    neighbors: torch.Tensor | None
    neighbor_mask: torch.Tensor | None
    targets: torch.Tensor

    def predict(self, network: torch.nn.Module) -> torch.Tensor:
        """Run a network on the batch, (n, g)."""
        predicted: torch.Tensor = network.forward_gathered(  # type: ignore[operator]
            self.tiles,
            center=self.center,
            subtiles=self.subtiles,
            neighbors=self.neighbors,
            neighbor_mask=self.neighbor_mask,
        )
        return predicted


@dataclass(frozen=True)
class Inputs:
    """Embeddings of all spots, and who neighbours whom.

    Attributes
    ----------
    center
        (n, d) float32, in memory or memory-mapped.
    scaler
        Fitted on the embeddings of training rows.
    subtiles
        (n, s, d) float32.
    subtile_scaler
        Fitted on the sub-tiles of training rows; needed where there are sub-tiles.
    neighbors
        (n, k) int64, rows; -1 where a spot has fewer neighbours.
    """

    center: NDArray[np.float32]
    scaler: Standard
    subtiles: NDArray[np.float32] | None = None
    subtile_scaler: Standard | None = None
    neighbors: NDArray[np.int64] | None = None

    def batch(self, rows: NDArray[np.intp], targets: NDArray[np.float32]) -> Batch:
        """Gather what a network needs to be trained on some rows."""
        neighbors = mask = None
        tiles = np.unique(rows)
        if self.neighbors is not None:
            mask = self.neighbors[rows] >= 0
            # a spot may be another one's neighbour: every tile once
            tiles = np.unique(np.concatenate([rows, self.neighbors[rows][mask]]))
            neighbors = np.where(mask, np.searchsorted(tiles, self.neighbors[rows]), 0)
        return Batch(
            tiles=self.tiles(tiles),
            center=torch.from_numpy(np.searchsorted(tiles, rows)),
            subtiles=self.subtiles_of(rows),
            neighbors=None if neighbors is None else torch.from_numpy(neighbors),
            neighbor_mask=None if mask is None else torch.from_numpy(mask),
            targets=torch.from_numpy(targets[rows]),
        )

    def tiles(self, rows: NDArray[np.intp]) -> torch.Tensor:
        """Scaled embeddings of some tiles, (m, d)."""
        return torch.from_numpy(self.scaler.transform(self.center[rows]))

    def subtiles_of(self, rows: NDArray[np.intp]) -> torch.Tensor | None:
        """Scaled embeddings of some spots' sub-tiles, (n, s, d)."""
        if self.subtiles is None or self.subtile_scaler is None:
            return None
        return torch.from_numpy(self.subtile_scaler.transform(self.subtiles[rows]))


class Rows(Dataset[Batch]):
    """Batches of some rows, for a DataLoader."""

    def __init__(
        self, inputs: Inputs, targets: NDArray[np.float32], rows: NDArray[np.intp]
    ) -> None:
        self.inputs, self.targets, self.rows = inputs, targets, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, chosen: Sequence[int]) -> Batch:
        return self.inputs.batch(self.rows[np.asarray(chosen)], self.targets)


def loader(
    inputs: Inputs,
    targets: NDArray[np.float32],
    rows: NDArray[np.intp],
    *,
    batch_size: int,
    generator: torch.Generator | None = None,
    weights: NDArray[np.float64] | None = None,
) -> DataLoader[Any]:
    """Batches of rows, in random order where a generator is given.

    With weights, (n,) of the rows, as many rows are drawn by them, with replacement.
    """
    dataset = Rows(inputs, targets, rows)
    sampler: Sampler[int]
    if weights is not None:
        sampler = WeightedRandomSampler(
            torch.from_numpy(weights),  # type: ignore[arg-type]
            num_samples=len(rows),
            replacement=True,
            generator=generator,
        )
    elif generator is not None:
        sampler = RandomSampler(dataset, generator=generator)
    else:
        sampler = SequentialSampler(dataset)
    return DataLoader(
        dataset,
        sampler=BatchSampler(sampler, batch_size, drop_last=False),
        batch_size=None,  # the sampler gives whole batches
    )


def in_order(n: int, batch_size: int) -> Iterator[NDArray[np.intp]]:
    """Rows 0 to n, some at a time."""
    for start in range(0, n, batch_size):
        yield np.arange(start, min(start + batch_size, n))


def pad_neighbors(graph: sp.csr_matrix) -> NDArray[np.int64]:
    """Turn a graph into a table of neighbours.

    Parameters
    ----------
    graph
        (n, n) CSR; a link of a spot to itself is left out.

    Returns
    -------
    (n, k) int64, the neighbours of every row, -1 where it has fewer than k.
    """
    graph = sp.coo_matrix(graph)
    linked = (graph.data != 0) & (graph.row != graph.col)
    order = np.lexsort((graph.col[linked], graph.row[linked]))
    row, column = graph.row[linked][order], graph.col[linked][order]
    count = np.bincount(row, minlength=graph.shape[0])
    padded = np.full((graph.shape[0], max(1, int(count.max(initial=0)))), -1, dtype=np.int64)
    position = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
    padded[row, position] = column
    return padded
