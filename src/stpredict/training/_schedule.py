"""Options of the training of a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args, get_origin, get_type_hints

from stpredict import _validate

#: Logged name of each monitored quantity, and whether a lower or a higher value is better.
MONITORS = {
    "loss": ("validation_loss", "min"),
    "pearson": ("validation_pearson", "max"),
    "spearman": ("validation_spearman", "max"),
}
#: Lightning's name of each precision.
PRECISIONS: dict[str, Literal["32-true", "bf16-mixed", "16-mixed"]] = {
    "32": "32-true",
    "bf16": "bf16-mixed",
    "16": "16-mixed",
}


@dataclass(frozen=True)
class Schedule:
    """Length, step size, early stopping and hardware of the training of a network.

    Attributes
    ----------
    max_epochs
        Maximum number of epochs.
    patience
        Number of epochs without a better validation after which training stops.
    batch_size
        Number of spots in a batch.
    learning_rate, weight_decay
        Learning rate and weight decay of AdamW.
    monitor
        Validation score that selects the best epoch: ``"loss"``; ``"pearson"``, the correlation
        of each target over the held-out spots, averaged with the variances of the targets as
        weights; or ``"spearman"``, the rank correlation over the targets of each held-out spot,
        averaged over spots.
    decay
        Course of the learning rate: ``"constant"``, or ``"cosine"``, which decreases it to 0 over
        ``max_epochs``.
    patch_size
        Number of spots close in space that stay together in a batch. Spots of a patch share
        neighbours, which are then encoded once. Ignored for networks on pixels.
    precision
        ``"32"``, or mixed with ``"bf16"`` or ``"16"`` bits (``"16"`` on a GPU only); ``"auto"``:
        ``"bf16"`` on an NVIDIA GPU, otherwise ``"32"``.
    compile
        Whether to compile the network with :func:`torch.compile`. It takes minutes on a CPU and
        needs a C++ compiler; it pays off for long training of large networks.
    devices
        Number of GPUs, or of processes on a CPU. Each takes batches of ``batch_size`` spots, so
        that a step sees ``devices`` times as many; the gradients are averaged.
    strategy
        How Lightning starts the other processes if ``devices`` is larger than 1: ``"ddp"`` runs
        the script again in each, ``"ddp_fork"`` copies this process, also in a notebook, as long as
        nothing has used a GPU. ``"auto"``: Lightning chooses.

    Raises
    ------
    ValueError
        If a value is out of its range.

    Examples
    --------
    >>> from stpredict.training import Schedule
    >>> Schedule(max_epochs=50, monitor="loss").learning_rate
    0.001
    """

    max_epochs: int = 200
    patience: int = 10
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 1e-6
    monitor: Literal["loss", "pearson", "spearman"] = "pearson"
    decay: Literal["constant", "cosine"] = "constant"
    patch_size: int = 1
    precision: Literal["auto", "32", "bf16", "16"] = "auto"
    compile: bool = False
    devices: int = 1
    strategy: Literal["auto", "ddp", "ddp_fork"] = "auto"

    def __post_init__(self) -> None:
        for name in ("max_epochs", "patience", "batch_size", "patch_size", "devices"):
            _validate.whole_number(name, getattr(self, name))
        for name in ("learning_rate", "weight_decay"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 <= value < float("inf"):  # nor NaN
                raise ValueError(f"{name} must be at least 0: {value!r}")
        for name, hint in get_type_hints(type(self)).items():
            if get_origin(hint) is Literal:
                _validate.one_of(name, getattr(self, name), get_args(hint))
