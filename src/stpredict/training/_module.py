"""The Lightning module, and the callbacks that record its training."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, cast

import lightning as L
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import nn

from stpredict.nn import losses
from stpredict.training._data import Batch
from stpredict.training._pixels import TileBatch

LossFunction = Callable[..., torch.Tensor]


class NotFiniteError(Exception):
    """The training loss is not finite. Steps and epochs count from 1; the step was not taken."""

    def __init__(self, *, loss: float, step: int, epoch: int) -> None:
        super().__init__(f"the training loss was {loss} at step {step}, in epoch {epoch}")


class Regression(L.LightningModule):
    """Fit a network, and the parameters of its loss, to scaled targets with AdamW."""

    def __init__(
        self,
        network: nn.Module,
        *,
        loss: LossFunction,
        learning_rate: float,
        weight_decay: float,
        cosine_epochs: int | None = None,
        monitor: str = "loss",
        compiled: bool = False,
    ) -> None:
        super().__init__()
        self.network = network
        # training changes the progress and parameters of a loss: do not change the caller's
        self.loss = copy.deepcopy(loss)
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.cosine_epochs, self.monitor = cosine_epochs, monitor
        # batches differ in their number of tiles
        self._predict = torch.compile(_predict, dynamic=True) if compiled else _predict
        self._held_out: list[tuple[torch.Tensor, torch.Tensor]] = []

    def on_train_epoch_start(self) -> None:
        """Set the progress of training, for losses with a schedule."""
        # plain torch functions have no progress
        if isinstance(self.loss, losses.Loss) and self.trainer.max_epochs:
            self.loss.progress = self.current_epoch / self.trainer.max_epochs

    def training_step(self, batch: Batch | TileBatch, _: int) -> torch.Tensor:
        """Loss of a batch; raises before a step if it is not finite."""
        loss = self._loss(batch)[0]
        # all processes stop together: one alone would leave the others waiting
        strategy = self.trainer.strategy
        if not strategy.reduce_boolean_decision(bool(torch.isfinite(loss)), all=True):
            raise NotFiniteError(
                loss=loss.item(), step=self.global_step + 1, epoch=self.current_epoch + 1
            )
        return loss

    def validation_step(self, batch: Batch | TileBatch, _: int) -> None:
        """Log the loss of a held-out batch and the monitored score."""
        loss, predicted = self._loss(batch)
        targets, n = batch.targets, len(batch.targets)
        # Lightning weights the mean over batches by batch_size
        self.log("validation_loss", loss, batch_size=n)
        if self.monitor == "spearman":
            self.log("validation_spearman", spearman_per_spot(predicted, targets), batch_size=n)
        elif self.monitor == "pearson":
            if batch.log_expected is not None:
                # counts relative to their expectation, on a scale that compresses rare genes
                targets = torch.log1p(targets / batch.log_expected.exp())
                predicted = torch.nn.functional.softplus(predicted)
            self._held_out.append((predicted, targets))

    def on_validation_epoch_end(self) -> None:
        """Log the correlation over all held-out spots, if it is monitored."""
        if self._held_out:
            predicted, targets = (torch.cat(parts) for parts in zip(*self._held_out, strict=True))
            self._held_out.clear()
            self.log("validation_pearson", pearson_per_target(predicted, targets))

    def _loss(self, batch: Batch | TileBatch) -> tuple[torch.Tensor, torch.Tensor]:
        predicted = self._predict(self.network, batch)
        if batch.log_expected is None:
            if isinstance(self.loss, losses.Loss) and self.loss.within_sections:
                return self.loss(predicted, batch.targets, section=batch.section), predicted
            return self.loss(predicted, batch.targets), predicted
        # for counts, the network predicts the log-ratio to the training mean; the expected counts
        # include the library size, so the loss gets an offset of 0
        no_offset = predicted.new_zeros(len(predicted))
        return self.loss(predicted + batch.log_expected, batch.targets, no_offset), predicted

    def configure_optimizers(self) -> Any:
        """AdamW, with a constant learning rate or cosine annealing."""
        optimizer = torch.optim.AdamW(
            self.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay
        )
        if self.cosine_epochs is None:
            return optimizer
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.cosine_epochs)
        return {"optimizer": optimizer, "lr_scheduler": cosine}


def _predict(network: nn.Module, batch: Batch | TileBatch) -> torch.Tensor:
    return batch.predict(network)


def pearson_per_target(predicted: torch.Tensor, targets: torch.Tensor) -> float:
    """Correlation of each target over spots, 0 if constant; mean weighted by target variance.

    Factors are thereby weighted by the variance they explain, standardised genes about equally.
    """
    arrays = [values.float().cpu().numpy().astype(np.float64) for values in (predicted, targets)]
    pcc, norms = _correlation(*arrays)
    weights = norms**2
    return float((pcc * weights).sum() / max(weights.sum(), np.finfo(float).tiny))


def spearman_per_spot(predicted: torch.Tensor, targets: torch.Tensor) -> float:
    """Mean over spots of the rank correlation over targets, 0 if one side is constant."""
    # average ranks for ties, as in scipy.stats.spearmanr
    ranks = [rankdata(values.float().cpu().numpy(), axis=1).T for values in (predicted, targets)]
    return float(_correlation(*ranks)[0].mean())


def _correlation(
    predicted: NDArray[np.float64], targets: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Correlation of each column, 0 if one side is constant, and the norms of the targets."""
    centred = [values - values.mean(axis=0) for values in (predicted, targets)]
    norms = [np.sqrt((values**2).sum(axis=0)) for values in centred]
    product, norm = (centred[0] * centred[1]).sum(axis=0), norms[0] * norms[1]
    # NaN differs from 0, so it is divided and stays NaN
    return np.divide(product, norm, out=np.zeros_like(product), where=norm != 0), norms[1]


class BestWeights(L.Callback):
    """Keep the weights of the best epoch in memory."""

    def __init__(self, monitor: str, mode: str) -> None:
        self.monitor, self.sign = monitor, 1 if mode == "max" else -1
        self.score = -float("inf")
        self.epoch = 0  # counted from 1
        self.state: dict[str, torch.Tensor] = {}

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Copy the weights if they are the best so far."""
        score = self.sign * float(trainer.callback_metrics[self.monitor])
        if score > self.score:
            self.score, self.epoch = score, trainer.current_epoch + 1
            # without the parameters of the loss
            network = cast(Regression, pl_module).network
            self.state = {k: v.detach().cpu().clone() for k, v in network.state_dict().items()}


class History(L.Callback):
    """Record the loss of each step and of each validation; epochs and steps count from 1."""

    def __init__(self) -> None:
        self.records: list[tuple[int, int, str, float]] = []

    def on_train_batch_end(
        self, trainer: L.Trainer, _: L.LightningModule, outputs: Any, *__: Any
    ) -> None:
        """Record the loss of a step."""
        loss = float(outputs["loss"])
        self.records.append((trainer.current_epoch + 1, trainer.global_step, "training", loss))

    def on_validation_end(self, trainer: L.Trainer, _: L.LightningModule) -> None:
        """Record the loss of a validation."""
        loss = float(trainer.callback_metrics["validation_loss"])
        self.records.append((trainer.current_epoch + 1, trainer.global_step, "validation", loss))

    def frame(self) -> pd.DataFrame:
        """All records: ``epoch``, ``step``, ``split``, ``loss``."""
        return pd.DataFrame(self.records, columns=["epoch", "step", "split", "loss"])
