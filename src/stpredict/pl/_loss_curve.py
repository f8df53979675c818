"""Training and validation loss of a fitted model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from stpredict.models import Model


def loss_curve(model: Model, *, ax: Axes | None = None) -> Axes:
    """Draw the loss over the epochs: training and validation, the chosen epoch marked.

    The raw loss of every training step stands faintly behind its moving mean over one epoch.

    Parameters
    ----------
    model
        The fitted model.
    ax
        Axes to draw on, by default new ones.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If the model was not trained step by step, or its weights are published ones.

    Examples
    --------
    >>> import stpredict as stp
    >>> ax = stp.pl.loss_curve(model)  # doctest: +SKIP
    """
    history = model.history
    if history.empty:
        raise ValueError(
            f"the model ({model.method}) has no history: its weights were published, or it was not "
            "trained step by step"
        )
    if ax is None:
        _, ax = plt.subplots(figsize=(6, 4), layout="constrained")
    training = history[history["split"] == "training"]
    validation = history[history["split"] == "validation"]
    steps = max(1, int(training.groupby("epoch").size().median()))
    epoch = training["step"] / steps
    smooth = training["loss"].rolling(steps, center=True, min_periods=1).mean()
    ax.plot(epoch, training["loss"], color="C0", alpha=0.25, linewidth=0.8)
    ax.plot(epoch, smooth, color="C0", label="training (mean over one epoch; steps behind)")
    ax.plot(validation["step"] / steps, validation["loss"], "o-", color="C1", markersize=3,
            label=f"validation: {model.training['held_out']}")  # fmt: skip
    monitor = model.hyperparameters.get("monitor", "loss")
    best = validation[validation["epoch"] == model.training["best_epoch"]]
    for at, loss in zip(best["step"] / steps, best["loss"], strict=True):
        ax.axvline(at, color="0.4", linestyle=":", linewidth=1)
        ax.plot(at, loss, "o", color="C1", markersize=8, markerfacecolor="none",
                label=f"chosen by {monitor}: epoch {model.training['best_epoch'] + 1}, "
                f"loss {loss:.3f}")  # fmt: skip
    ax.set_xlabel("epoch")
    of = "factors of" if model.targets.outputs else "scaled"
    ax.set_ylabel(f"{model.hyperparameters['loss']} of {of} {model.units}")
    ax.set_xlim(left=0)
    ax.legend(frameon=False, fontsize="small")
    ax.spines[["top", "right"]].set_visible(False)
    return ax
