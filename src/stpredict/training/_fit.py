"""The function that fits every network."""

from __future__ import annotations

import math
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import EarlyStopping
from numpy.typing import NDArray
from torch import nn
from torch.multiprocessing.spawn import ProcessRaisedException
from torch.utils.data import DataLoader

from stpredict import _runtime
from stpredict._log import info, quiet
from stpredict.nn import losses
from stpredict.training._bar import EpochBar
from stpredict.training._batches import training_loader, validation_loader
from stpredict.training._data import Batch, Inputs, Measured
from stpredict.training._fitted import Fitted
from stpredict.training._module import (
    BestWeights,
    History,
    LossFunction,
    NotFiniteError,
    Regression,
)
from stpredict.training._pixels import Pixels, TileBatch
from stpredict.training._processes import Handover
from stpredict.training._schedule import MONITORS, PRECISIONS, Schedule


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
    _check_devices(schedule, torch_device, n_rows=len(training))
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
            compiled=schedule.compile,
        )
        shuffled = training_loader(
            inputs,
            measured,
            training,
            batch_size=schedule.batch_size,
            generator=torch.Generator().manual_seed(seed),
            patch_size=schedule.patch_size,
            weights=None if weights is None else weights[training],
            within_sections=isinstance(loss, losses.Loss) and loss.within_sections,
        )
        held_out = validation_loader(inputs, measured, validation, batch_size=schedule.batch_size)
        early_stopping = EarlyStopping(name, patience=schedule.patience, mode=mode)
        with tempfile.TemporaryDirectory(prefix="stpredict-training-") as folder:
            handover = Handover(Path(folder), best, history)
            callbacks = [best, history, early_stopping, handover, EpochBar()]
            trainer = _trainer(torch_device, schedule, callbacks)
            failure = _run(trainer, module, shuffled, held_out, handover)
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
    handover: Handover,
) -> str:
    """Train, and return a description of the failure if a loss was not finite, else ""."""
    try:
        trainer.fit(module, training, validation)
    except NotFiniteError as error:
        return str(error)
    except ProcessRaisedException as error:  # the text of an error in another process
        if NotFiniteError.__name__ not in str(error):
            raise
        raise ValueError(
            "the training loss was not finite. Lower "
            f"learning_rate={module.learning_rate:g}, or look for extreme targets or embeddings"
        ) from error
    handover.receive()
    epoch, step, _, loss = handover.history.records[-1]
    if math.isfinite(loss):
        return ""
    return f"the validation loss was {loss} after step {step}, in epoch {epoch}"


def _check_devices(schedule: Schedule, device: torch.device, *, n_rows: int) -> None:
    """Require what the schedule asks of the hardware."""
    if schedule.precision == "16" and device.type == "cpu":
        raise ValueError("precision='16' needs a GPU: use 'bf16' or '32' on a CPU")
    n_available = {"cuda": torch.cuda.device_count(), "mps": 1}.get(device.type, schedule.devices)
    if device.index is not None and device.type == "cuda":
        n_available = 1
    if schedule.devices > n_available:
        raise ValueError(
            f"devices={schedule.devices}, but device={str(device)!r} gives {n_available}: decrease "
            "devices=, or use device='cuda' for several GPUs"
        )
    if -(-n_rows // schedule.batch_size) < schedule.devices:
        raise ValueError(
            f"devices={schedule.devices} with {n_rows} training spots in batches of "
            f"{schedule.batch_size}: not every device has a batch. Decrease devices= or batch_size="
        )


def _trainer(device: torch.device, schedule: Schedule, callbacks: list[L.Callback]) -> L.Trainer:
    numbered = device.index is not None and device.type == "cuda"
    precision = schedule.precision
    if precision == "auto":  # bfloat16, unlike float16, needs no scaling of the loss
        precision = "bf16" if device.type == "cuda" else "32"
    return L.Trainer(
        accelerator={"cuda": "gpu"}.get(device.type, device.type),
        devices=[device.index] if numbered else schedule.devices,
        strategy=schedule.strategy,
        use_distributed_sampler=False,  # processes share whole batches, see `RankBatches`
        precision=PRECISIONS[precision],
        max_epochs=schedule.max_epochs,
        callbacks=callbacks,
        enable_progress_bar=False,  # EpochBar is one bar over all networks of a model
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
        # of torch.compile's own workings
        warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf")
        # every process validates on all rows
        warnings.filterwarnings("ignore", ".*recommended to use .*sync_dist=True.*")
        # small data sets have few batches
        warnings.filterwarnings("ignore", ".*is smaller than the logging interval.*")
        # frozen blocks stay in evaluation mode on purpose
        warnings.filterwarnings("ignore", ".*in eval mode at the start of training.*")
        yield
