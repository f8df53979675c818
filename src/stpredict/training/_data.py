"""Arrays of embeddings, and batches of them in which every tile occurs once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch.nn import functional

from stpredict.targets import Standard

#: Spots predicted at a time; with sub-tiles, so many embeddings pass through the network at once.
_BATCH = 256


@dataclass(frozen=True)
class Measured:
    """What is to be predicted of all spots.

    Attributes
    ----------
    targets
        (n, g) float32, scaled; or counts.
    log_library
        (n,) float32, logarithm of the spots' total counts; of losses on counts.
    log_share
        (g,) float32, logarithm of the share of the counts that each gene has in training.
    """

    targets: NDArray[np.float32]
    log_library: NDArray[np.float32] | None = None
    log_share: NDArray[np.float32] | None = None

    def log_expected(self, rows: NDArray[np.intp]) -> torch.Tensor | None:
        """Logarithm of the counts that the training mean expects, (n_rows, g)."""
        if self.log_library is None or self.log_share is None:
            return None
        return torch.from_numpy(self.log_library[rows, None] + self.log_share)


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
    log_expected
        (n, g) float32, what the network's output is added to for losses on counts.
    """

    tiles: torch.Tensor
    center: torch.Tensor
    subtiles: torch.Tensor | None
    neighbors: torch.Tensor | None
    neighbor_mask: torch.Tensor | None
    targets: torch.Tensor
    log_expected: torch.Tensor | None = None

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
    order
        (n,) int64, all rows, those near in space near in order; batches of patches need it.
    """

    center: NDArray[np.float32]
    scaler: Standard
    subtiles: NDArray[np.float32] | None = None
    subtile_scaler: Standard | None = None
    neighbors: NDArray[np.int64] | None = None
    order: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.center)

    def batch(self, rows: NDArray[np.intp], measured: Measured, *, training: bool = False) -> Batch:
        """Gather what a network needs to be trained, or validated, on some rows."""
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
            targets=torch.from_numpy(measured.targets[rows]),
            log_expected=measured.log_expected(rows),
        )

    @torch.inference_mode()
    def pooled(
        self, network: Any, device: torch.device
    ) -> Iterator[tuple[NDArray[np.intp], torch.Tensor]]:
        """Encode every tile once, and give what the network pools of all rows, some at a time."""
        n = len(self)
        encoded = torch.cat(
            [network.encode(self.tiles(rows).to(device)) for rows in in_order(n, _BATCH)]
        )
        for rows in in_order(n, _BATCH):
            parts: list[torch.Tensor | None] = [None, None, None]
            if (subtiles := self.subtiles_of(rows)) is not None:
                flat = network.encode(subtiles.flatten(0, 1).to(device))
                parts[0] = flat.unflatten(0, subtiles.shape[:2])
            if self.neighbors is not None:
                neighbors = torch.from_numpy(self.neighbors[rows]).to(device)
                parts[1] = functional.embedding(neighbors.clamp(min=0), encoded)
                # without padding there is nothing to hide, and hiding costs a copy
                parts[2] = None if (self.neighbors[rows] >= 0).all() else neighbors >= 0
            yield rows, network.pool(encoded[rows], *parts)

    @torch.inference_mode()
    def walk(
        self, network: Any, device: torch.device, *, members: bool = True
    ) -> Iterator[tuple[NDArray[np.intp], torch.Tensor, torch.Tensor | None]]:
        """Predict all rows, some at a time.

        Gives the rows, what the network predicts of them (n, t), and what each member of its
        ensemble predicts, (members, n, t), where it is one and they are wanted.
        """
        for rows, pooled in self.pooled(network, device):
            predicted, each = network.heads(pooled) if members else (network.head(pooled), None)
            yield rows, predicted, each

    def tiles(self, rows: NDArray[np.intp]) -> torch.Tensor:
        """Scaled embeddings of some tiles, (m, d)."""
        return torch.from_numpy(self.scaler.transform(self.center[rows]))

    def subtiles_of(self, rows: NDArray[np.intp]) -> torch.Tensor | None:
        """Scaled embeddings of some spots' sub-tiles, (n, s, d)."""
        if self.subtiles is None or self.subtile_scaler is None:
            return None
        return torch.from_numpy(self.subtile_scaler.transform(self.subtiles[rows]))


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
