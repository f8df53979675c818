"""The function that fits every network."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import lightning as L
import numpy as np
import pandas as pd
import torch
from lightning.pytorch.callbacks import EarlyStopping
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader

from stpredict import _runtime
from stpredict._log import info, quiet, shows_bars
from stpredict.training._batches import training_loader, validation_loader
from stpredict.training._data import Batch, Inputs, Measured
from stpredict.training._module import (
    BestWeights,
    History,
    LossFunction,
    NotFiniteError,
    Regression,
)
from stpredict.training._pixels import Pixels, TileBatch
from stpredict.training._schedule import MONITORS, Schedule


@dataclass(frozen=True)
class Fitted:
    """A trained network with the weights of its best epoch, counted from 1."""

    network: nn.Module
    history: pd.DataFrame
    best_epoch: int


def fit_network(
    build: Callable[[], nn.Module],  # called after seeding
    inputs: Inputs | Pixels,  # all rows, as are those of measured and weights
    measured: Measured,
    *,
    training: NDArray[np.intp],
    validation: NDArray[np.intp],  # rows for early stopping
    loss: LossFunction,  # its parameters are trained in a copy
    schedule: Schedule,
    seed: int,  # of the weights, the order of batches and dropout; torch's state is restored
    device: str,
    weights: NDArray[np.float64] | None = None,  # of sampling with replacement
) -> Fitted:
    """Train a network on some rows, with early stopping on others.

    If a loss is not finite, training ends early, which is logged; a ValueError is raised if no
    validation was finite.
    """
    torch_device = _runtime.resolve_device(device)
    if schedule.monitor == "spearman" and measured.targets.shape[1] < 2:
        raise ValueError("monitor='spearman' with only one target: use monitor='loss' or 'pearson'")
    name, mode = MONITORS[schedule.monitor]
    best, history = BestWeights(name, mode), History()
    with _runtime.seeded(seed, torch_device), _quiet_lightning():
        module = Regression(
            build(),
            loss=loss,
            learning_rate=schedule.learning_rate,
            weight_decay=schedule.weight_decay,
            cosine_epochs=schedule.max_epochs if schedule.decay == "cosine" else None,
            monitor=schedule.monitor,
        )
        shuffled = training_loader(
            inputs,
            measured,
            training,
            batch_size=schedule.batch_size,
            generator=torch.Generator().manual_seed(seed),
            patch_size=schedule.patch_size,
            weights=None if weights is None else weights[training],
        )
        held_out = validation_loader(inputs, measured, validation, batch_size=schedule.batch_size)
        early_stopping = EarlyStopping(name, patience=schedule.patience, mode=mode)
        trainer = _trainer(torch_device, schedule, [best, history, early_stopping])
        failure = _run(trainer, module, shuffled, held_out, history)
    if not best.state:
        raise ValueError(
            f"{failure}, before any finite validation. Lower "
            f"learning_rate={schedule.learning_rate:g}, or look for extreme targets or embeddings."
        )
    if failure:
        info(f"{failure}: training stopped, with the weights of epoch {best.epoch}")
    # the best weights were copied to the CPU
    network = module.network.cpu()
    network.load_state_dict(best.state)
    return Fitted(network=network.eval(), history=history.frame(), best_epoch=best.epoch)


def _run(
    trainer: L.Trainer,
    module: Regression,
    training: DataLoader[Batch | TileBatch],
    validation: DataLoader[Batch | TileBatch],
    history: History,
) -> str:
    """Train, and return a description of the failure if a loss was not finite, else ""."""
    try:
        trainer.fit(module, training, validation)
    except NotFiniteError as error:
        return str(error)
    epoch, step, _, loss = history.records[-1]
    if math.isfinite(loss):
        return ""
    return f"the validation loss was {loss} after step {step}, in epoch {epoch}"


def _trainer(device: torch.device, schedule: Schedule, callbacks: list[L.Callback]) -> L.Trainer:
    return L.Trainer(
        accelerator={"cuda": "gpu"}.get(device.type, device.type),
        devices=[device.index] if device.index is not None and device.type == "cuda" else 1,
        # bfloat16, unlike float16, needs no scaling of the loss
        precision="bf16-mixed" if device.type == "cuda" else "32-true",
        max_epochs=schedule.max_epochs,
        callbacks=callbacks,
        enable_progress_bar=shows_bars(),
        enable_model_summary=False,
        enable_checkpointing=False,  # BestWeights keeps the best weights in memory
        logger=False,
        num_sanity_val_steps=0,
    )


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Silence Lightning's report of its set-up, and advice that does not apply here."""
    with quiet("lightning.pytorch.utilities.rank_zero"), warnings.catch_warnings():
        # worker processes would only copy arrays that are in memory
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        # Lightning 2.6 uses deprecated names of torch for nested batches
        warnings.filterwarnings("ignore", ".*treespec, LeafSpec.*")
        # small data sets have few batches
        warnings.filterwarnings("ignore", ".*is smaller than the logging interval.*")
        # frozen blocks stay in evaluation mode on purpose
        warnings.filterwarnings("ignore", ".*in eval mode at the start of training.*")
        yield
