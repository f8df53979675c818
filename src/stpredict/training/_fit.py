"""The one runner that fits every network."""

from __future__ import annotations

import math
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from lightning.pytorch.callbacks import EarlyStopping

from stpredict import _runtime, _validate
from stpredict._log import quiet, tell
from stpredict._settings import settings
from stpredict.training._batches import training_loader, validation_loader
from stpredict.training._module import MONITORS, BestWeights, History, NotFiniteError, Regression

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray
    from torch import nn
    from torch.utils.data import DataLoader

    from stpredict.training._data import Inputs, Measured
    from stpredict.training._module import Loss
    from stpredict.training._pixels import Pixels


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train.

    Attributes
    ----------
    max_epochs
        Most epochs.
    patience
        Epochs without a better validation after which training stops.
    batch_size
        Spots in a batch.
    learning_rate, weight_decay
        Of AdamW.
    patch_size
        Spots that are near in space and stay together in a batch.
    decay
        ``"constant"``, or ``"cosine"``: the learning rate falls to 0 over ``max_epochs``.
    monitor
        What the best epoch is chosen by: the validation ``"loss"``; ``"pearson"``, the correlation
        of each target over the held-out spots, averaged by the variance of the targets; or
        ``"spearman"``, the rank correlation over the targets of each held-out spot, averaged over
        spots.
    """

    max_epochs: int
    patience: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    patch_size: int = 1
    decay: str = "constant"
    monitor: str = "loss"

    def __post_init__(self) -> None:
        for name in ("max_epochs", "patience", "batch_size", "patch_size"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1: {value!r}")
        for name in ("learning_rate", "weight_decay"):
            if not getattr(self, name) >= 0:  # NaN is not
                raise ValueError(f"{name} must be at least 0: {getattr(self, name)!r}")
        _validate.one_of("decay", self.decay, ("constant", "cosine"))
        _validate.one_of("monitor", self.monitor, tuple(MONITORS))


@dataclass(frozen=True)
class Fitted:
    """A trained network, at the epoch with the best validation."""

    network: nn.Module
    history: pd.DataFrame
    best_epoch: int


def fit_network(
    build: Callable[[], nn.Module],
    inputs: Inputs | Pixels,
    measured: Measured,
    *,
    training: NDArray[np.intp],
    validation: NDArray[np.intp],
    loss: Loss,
    schedule: Schedule,
    seed: int,
    device: str,
    weights: NDArray[np.float64] | None = None,
) -> Fitted:
    """Train a network on some rows, stop early on others, keep the best weights.

    Parameters
    ----------
    build
        Makes the network; called with the seed set.
    inputs
        Embeddings of all rows.
    measured
        Targets of all rows.
    training, validation
        Rows.
    loss
        Of predicted and measured scaled targets, such as `stpredict.nn.losses.make` gives. What
        it learns itself is trained in a copy.
    schedule
        How long and how fast.
    seed
        Of the weights, the order of the batches and dropout. The global state of torch's random
        numbers is left as it was.
    device
        ``"auto"``: cuda, then mps, then cpu.
    weights
        (n,) of all rows: in every epoch, as many training rows are drawn by them, with
        replacement. By default, every training row once.

    Returns
    -------
    Fitted
        If a loss stops being a number, training ends there, and the best validated
        weights are those given; which step it was is told.

    Raises
    ------
    ValueError
        If no validation ever gave a number.
    """
    chosen = _runtime.resolve_device(device)
    if schedule.monitor == "spearman" and measured.targets.shape[1] < 2:
        raise ValueError(
            "monitor='spearman' ranks the targets of a spot, and there is one target: monitor the "
            "'loss'"
        )
    name, mode = MONITORS[schedule.monitor]
    best, history = BestWeights(name, mode), History()
    cuda = range(torch.cuda.device_count()) if chosen.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda), _silent_lightning():
        torch.manual_seed(seed)
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
        stop = EarlyStopping(name, patience=schedule.patience, mode=mode)
        trainer = _trainer(chosen, schedule, callbacks=[best, history, stop])
        broken = _run(trainer, module, shuffled, held_out, history)
    if not best.state:
        raise ValueError(
            f"{broken}, before any validation gave a number: are the targets or embeddings "
            f"extreme, or is learning_rate={schedule.learning_rate:g} too high?"
        )
    if broken:
        tell(f"{broken}: training stopped, with the weights of epoch {best.epoch}")
    network = module.network.cpu()
    network.load_state_dict(best.state)
    return Fitted(network=network.eval(), history=history.frame(), best_epoch=best.epoch)


def _run(
    trainer: L.Trainer,
    module: Regression,
    training: DataLoader[Any],
    validation: DataLoader[Any],
    history: History,
) -> str:
    """Train; where it ended because a loss was no number, say which, else nothing."""
    try:
        trainer.fit(module, training, validation)
    except NotFiniteError as error:
        return str(error)
    epoch, step, _, loss = history.records[-1]
    if math.isfinite(loss):
        return ""
    return f"the validation loss was {loss} after step {step}, in epoch {epoch}"


def _trainer(device: torch.device, schedule: Schedule, *, callbacks: list[Any]) -> L.Trainer:
    return L.Trainer(
        accelerator={"cuda": "gpu"}.get(device.type, device.type),
        devices=[device.index] if device.index is not None and device.type == "cuda" else 1,
        precision="bf16-mixed" if device.type == "cuda" else "32-true",
        max_epochs=schedule.max_epochs,
        callbacks=callbacks,
        enable_progress_bar=settings.verbosity > 0,
        enable_model_summary=False,
        enable_checkpointing=False,  # the best weights stay in memory
        logger=False,
        num_sanity_val_steps=0,
    )


@contextmanager
def _silent_lightning() -> Iterator[None]:
    """Leave out what Lightning reports of its set-up, and advice that does not apply here."""
    with quiet("lightning.pytorch.utilities.rank_zero"), warnings.catch_warnings():
        # arrays are in memory: worker processes would only copy them
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        # Lightning 2.6 walks nested batches by torch's older names
        warnings.filterwarnings("ignore", ".*treespec, LeafSpec.*")
        # few spots make few batches
        warnings.filterwarnings("ignore", ".*is smaller than the logging interval.*")
        # frozen blocks stay in evaluation mode
        warnings.filterwarnings("ignore", ".*in eval mode at the start of training.*")
        yield
