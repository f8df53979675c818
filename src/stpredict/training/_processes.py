"""Training on several devices, one process for each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import lightning as L
import torch
from torch import distributed
from torch.utils.data import Sampler

from stpredict.training._module import BestWeights, History


class RankBatches(Sampler[list[int]]):
    """The batches of this process: each process takes every n-th, and all take equally many.

    Without distributed training, all batches.
    """

    def __init__(self, batches: Sampler[list[int]]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        n_processes = _world()[1]
        return len(self.batches) // n_processes  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[list[int]]:
        rank, n_processes = _world()
        last = len(self) * n_processes
        for number, batch in enumerate(self.batches):
            if number < last and number % n_processes == rank:
                yield batch


def _world() -> tuple[int, int]:
    """Number of this process, and of all."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


class Handover(L.Callback):
    """Bring the best weights and the history from the first process to the one that started it."""

    def __init__(self, folder: Path, best: BestWeights, history: History) -> None:
        self.file, self.best, self.history = folder / "training.pt", best, history

    def on_fit_end(self, trainer: L.Trainer, _: L.LightningModule) -> None:
        """Write what the callbacks recorded."""
        if trainer.world_size > 1 and trainer.is_global_zero:
            torch.save((self.best.state, self.best.epoch, self.history.records), self.file)

    def receive(self) -> None:
        """Read it into the callbacks of this process, unless it trained itself."""
        if not self.history.records:
            recorded = torch.load(self.file, weights_only=True)
            self.best.state, self.best.epoch, self.history.records = recorded
