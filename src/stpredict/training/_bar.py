"""The progress bar of training."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import lightning as L

from stpredict._log import bar_over


class EpochBar(L.Callback):
    """Progress bar over epochs, with the validation loss; networks of one model can share it."""

    def __init__(self) -> None:
        self._opened = ExitStack()
        self._bar: Any = None  # only in the first process that trains
        self._first = 0.0

    def on_fit_start(self, trainer: L.Trainer, _: L.LightningModule) -> None:
        """Open the bar."""
        if trainer.is_global_zero:
            bar = bar_over(trainer.max_epochs or 0, "training", unit="epoch")
            self._bar = self._opened.enter_context(bar)
            self._first = self._bar.n

    def on_train_batch_end(
        self, trainer: L.Trainer, _: L.LightningModule, __: Any, ___: Any, batch_idx: int
    ) -> None:
        """Count a batch as a part of an epoch."""
        self._move_to(trainer.current_epoch + (batch_idx + 1) / trainer.num_training_batches)

    def on_validation_end(self, trainer: L.Trainer, _: L.LightningModule) -> None:
        """Show the loss."""
        if self._bar is not None:
            loss = float(trainer.callback_metrics["validation_loss"])
            self._bar.set_postfix(validation_loss=f"{loss:.3g}", refresh=False)

    def on_fit_end(self, trainer: L.Trainer, _: L.LightningModule) -> None:
        """Skip the epochs after early stopping, and close the bar."""
        self._move_to(trainer.max_epochs or 0)
        self._opened.close()

    def on_exception(self, *_: Any) -> None:
        """Close the bar where training failed."""
        self._opened.close()

    def _move_to(self, epochs: float) -> None:
        if self._bar is not None:
            self._bar.n = round(self._first + epochs, 1)
            self._bar.update(0)
