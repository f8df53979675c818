"""The thin Lightning module, and what is recorded while it trains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning as L
import pandas as pd
import torch
from torch import nn

from stpredict.training._data import Batch

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Regression(L.LightningModule):
    """Fit a network to scaled targets with AdamW."""

    def __init__(
        self, network: nn.Module, *, loss: Loss, learning_rate: float, weight_decay: float
    ) -> None:
        super().__init__()
        self.network = network
        self.loss = loss
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay

    def training_step(self, batch: Batch, _: int) -> torch.Tensor:
        """Loss of a batch."""
        return self.loss(batch.predict(self.network), batch.targets)

    def validation_step(self, batch: Batch, _: int) -> None:
        """Loss of a held-out batch, averaged over the spots."""
        loss = self.loss(batch.predict(self.network), batch.targets)
        self.log("validation_loss", loss, batch_size=len(batch.center), prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW."""
        return torch.optim.AdamW(
            self.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay
        )


class BestWeights(L.Callback):
    """Keep the weights of the epoch with the lowest validation loss, in memory."""

    def __init__(self) -> None:
        self.loss = float("inf")
        self.epoch = -1
        self.state: dict[str, torch.Tensor] = {}

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Copy the weights if they are the best so far."""
        loss = float(trainer.callback_metrics["validation_loss"])
        if loss < self.loss:
            self.loss, self.epoch = loss, trainer.current_epoch
            network: Any = pl_module.network
            self.state = {k: v.detach().cpu().clone() for k, v in network.state_dict().items()}


class History(L.Callback):
    """Record the loss of every step and of every validation."""

    def __init__(self) -> None:
        self.records: list[tuple[int, int, str, float]] = []

    def on_train_batch_end(
        self, trainer: L.Trainer, _: L.LightningModule, outputs: Any, *__: Any
    ) -> None:
        """Record a step."""
        loss = float(outputs["loss"])
        self.records.append((trainer.current_epoch, trainer.global_step, "training", loss))

    def on_validation_end(self, trainer: L.Trainer, _: L.LightningModule) -> None:
        """Record a validation."""
        loss = float(trainer.callback_metrics["validation_loss"])
        self.records.append((trainer.current_epoch, trainer.global_step, "validation", loss))

    def frame(self) -> pd.DataFrame:
        """All records: ``epoch``, ``step``, ``split``, ``loss``."""
        return pd.DataFrame(self.records, columns=["epoch", "step", "split", "loss"])
