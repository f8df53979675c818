"""Embeddings of all spots, and batches in which each tile occurs once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from stpredict.nn import SetNetwork
from stpredict.targets import Standard

# Spots per batch in prediction; their sub-tiles pass through the network together.
_BATCH = 256


@dataclass(frozen=True)
class Measured:
    """Measured targets of all spots."""

    targets: NDArray[np.float32]  # (n, g), scaled; or counts
    # for losses on counts: logarithms of the spots' totals, (n,), and of the genes' shares of the
    # counts in training, (g,)
    log_library: NDArray[np.float32] | None = None
    log_share: NDArray[np.float32] | None = None
    section: NDArray[np.int64] | None = None  # (n,), its number, for losses within sections

    def sections_of(self, rows: NDArray[np.intp]) -> torch.Tensor | None:
        """Number of the section of some rows, (n_rows,)."""
        return None if self.section is None else torch.from_numpy(self.section[rows])

    def log_expected(self, rows: NDArray[np.intp]) -> torch.Tensor | None:
        """Logarithm of the counts expected from the training mean, (n_rows, g)."""
        # other losses need no offset
        if self.log_library is None or self.log_share is None:
            return None
        return torch.from_numpy(self.log_library[rows, None] + self.log_share)


class Batch(NamedTuple):
    """Inputs and targets of some spots."""

    tiles: torch.Tensor  # (m, d) float32, the distinct tiles of the spots and their neighbours
    center: torch.Tensor  # (n,) int64, rows of `tiles`
    subtiles: torch.Tensor | None  # (n, s, d) float32
    neighbors: torch.Tensor | None  # (n, k) int64, rows of `tiles`
    neighbor_mask: torch.Tensor | None  # (n, k) bool
    targets: torch.Tensor  # (n, g) float32, scaled
    # (n, g) float32, offset of the network's output for losses on counts
    log_expected: torch.Tensor | None = None
    section: torch.Tensor | None = None  # (n,) int64, for losses within sections

    def predict(self, network: nn.Module) -> torch.Tensor:
        """Run a network on the batch, (n, g)."""
        return cast(SetNetwork, network).forward_gathered(
            self.tiles,
            center=self.center,
            subtiles=self.subtiles,
            neighbors=self.neighbors,
            neighbor_mask=self.neighbor_mask,
        )


@dataclass(frozen=True)
class Inputs:
    """Embeddings of all spots, and their neighbours."""

    center: NDArray[np.float32]  # (n, d), in memory or memory-mapped
    scaler: Standard  # fitted on the embeddings of training rows
    subtiles: NDArray[np.float32] | None = None  # (n, s, d), or of the first of several fields
    subtile_scaler: Standard | None = None  # fitted on training rows; required with `subtiles`
    neighbors: NDArray[np.int64] | None = None  # (n, k), rows; -1 if a spot has fewer than k
    # (n,), all rows, ordered so that close spots are close; required for patches
    order: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.center)

    def batch(self, rows: NDArray[np.intp], measured: Measured, *, training: bool = False) -> Batch:
        """Inputs and targets of some rows; ``training`` only affects pixels."""
        neighbors = mask = None
        tiles = np.unique(rows)
        if self.neighbors is not None:
            mask = self.neighbors[rows] >= 0
            # a spot may be another one's neighbour; each tile is kept once
            tiles = np.unique(np.concatenate([rows, self.neighbors[rows][mask]]))
            # rows of all spots to rows of `tiles`, which is sorted; 0 for padding
            neighbors = np.where(mask, np.searchsorted(tiles, self.neighbors[rows]), 0)
        return Batch(
            tiles=self.tiles(tiles),
            center=torch.from_numpy(np.searchsorted(tiles, rows)),
            subtiles=self.subtiles_of(rows),
            neighbors=None if neighbors is None else torch.from_numpy(neighbors),
            neighbor_mask=None if mask is None else torch.from_numpy(mask),
            targets=torch.from_numpy(measured.targets[rows]),
            log_expected=measured.log_expected(rows),
            section=measured.sections_of(rows),
        )

    @torch.inference_mode()
    def pooled(
        self, network: nn.Module, device: torch.device
    ) -> Iterator[tuple[NDArray[np.intp], torch.Tensor]]:
        """Encode each tile once, and yield the network's pooled features in batches of rows."""
        sets, n = cast(SetNetwork, network), len(self)
        # a tile is the neighbour of many spots, so encode all first
        encoded = torch.cat(
            [sets.encode(self.tiles(rows).to(device)) for rows in row_batches(n, _BATCH)]
        )
        for rows in row_batches(n, _BATCH):
            subtiles_h = neighbors_h = mask = None
            if (subtiles := self.subtiles_of(rows)) is not None:
                flat = sets.encode(subtiles.flatten(0, 1).to(device))
                subtiles_h = flat.unflatten(0, subtiles.shape[:2])
            if self.neighbors is not None:
                neighbors = torch.from_numpy(self.neighbors[rows]).to(device)
                # clamp -1 of the padding to a valid row, which the mask hides
                neighbors_h = F.embedding(neighbors.clamp(min=0), encoded)
                # masking costs a copy, so skip it without padding
                mask = None if (self.neighbors[rows] >= 0).all() else neighbors >= 0
            yield rows, sets.pool(encoded[rows], subtiles_h, neighbors_h, mask)

    @torch.inference_mode()
    def walk(
        self, network: nn.Module, device: torch.device, *, members: bool = True
    ) -> Iterator[tuple[NDArray[np.intp], torch.Tensor, torch.Tensor | None]]:
        """Yield rows, their predictions (n, t), and those of members (n_members, n, t), if any."""
        sets = cast(SetNetwork, network)
        for rows, pooled in self.pooled(network, device):
            if members:
                yield rows, *sets.heads(pooled)
            else:
                yield rows, sets.head(pooled), None

    def tiles(self, rows: NDArray[np.intp]) -> torch.Tensor:
        """Scaled embeddings of some tiles, (m, d)."""
        return torch.from_numpy(self.scaler.transform(self.center[rows]))

    def subtiles_of(self, rows: NDArray[np.intp]) -> torch.Tensor | None:
        """Scaled embeddings of the sub-tiles of some spots, (n, s, d)."""
        if self.subtiles is None or self.subtile_scaler is None:
            return None
        scaled = torch.from_numpy(self.subtile_scaler.transform(self.subtiles[rows]))
        return pad_features(scaled, self.center.shape[1])


def pad_features(scaled: torch.Tensor, n_features: int) -> torch.Tensor:
    """Append features at their training mean, 0: sub-tiles have the first of several fields."""
    return F.pad(scaled, (0, n_features - scaled.shape[-1]))


def row_batches(n: int, batch_size: int) -> Iterator[NDArray[np.intp]]:
    """Rows 0 to n - 1 in batches, in order."""
    for start in range(0, n, batch_size):
        yield np.arange(start, min(start + batch_size, n))


def pad_neighbors(graph: sp.csr_matrix) -> NDArray[np.int64]:
    """Convert a graph (n, n) to a table of neighbours (n, k), padded with -1.

    Links of a spot to itself are ignored.
    """
    graph = sp.coo_matrix(graph)
    is_link = (graph.data != 0) & (graph.row != graph.col)
    order = np.lexsort((graph.col[is_link], graph.row[is_link]))
    row, column = graph.row[is_link][order], graph.col[is_link][order]
    count = np.bincount(row, minlength=graph.shape[0])
    padded = np.full((graph.shape[0], max(1, int(count.max(initial=0)))), -1, dtype=np.int64)
    # links are sorted by row: position of each link among those of its row
    position = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
    padded[row, position] = column
    return padded
