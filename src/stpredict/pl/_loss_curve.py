"""Training and validation loss of a fitted model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stpredict._arguments import checked
from stpredict.pl._drawing import _axes

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import pandas as pd
    from matplotlib.axes import Axes

    from stpredict.models import Model


@checked
def loss_curve(model: Model, *, ax: Axes | None = None, save: str | Path | None = None) -> Axes:
    """Draw the training and validation loss over the epochs, with the selected epoch marked.

    The loss of every training step is drawn behind its moving mean over one epoch; of several
    networks, the losses of each.

    Parameters
    ----------
    model
        Fitted model.
    ax, save
        Axes to draw on, by default new ones; file to save the figure to.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    TypeError
        If ``model`` is no fitted model.
    ValueError
        If the model has no training history: it is not trained in steps, or was published.

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom(2)
    >>> stp.pp.normalize(sdata)
    >>> stp.pp.embed(sdata, "texture", n_subtiles=1)
    >>> schedule = stp.tl.Schedule(max_epochs=2)
    >>> model = stp.tl.fit_deepspot(sdata, context="spot", genes=["null_001"], schedule=schedule)
    >>> stp.pl.loss_curve(model).get_xlabel()
    'epoch'
    """
    history, schedule = model.history, model.hyperparameters.schedule
    if history.empty or schedule is None:
        raise ValueError(
            f"the model ({model.method}) has no history: it is not trained in steps, or published"
        )
    ax = _axes.one_axes(ax, (6, 4))
    validation_label = _axes.plain(f"validation: {model.training.held_out}")
    labels = ["training (mean over one epoch, and single steps)", validation_label]
    best_losses = []
    networks = history.groupby("network")
    for (_, records), epoch in zip(networks, model.training.best_epochs, strict=True):
        best_losses += _draw(ax, records, best_epoch=epoch, labels=labels)
        labels = ["", ""]  # in the legend once
    epochs = _range(f"{epoch}" for epoch in sorted(model.training.best_epochs))
    losses = _range(f"{loss:.3f}" for loss in sorted(best_losses))
    ax.lines[-1].set_label(f"selected by {schedule.monitor}: epoch {epochs}, loss {losses}")
    targets = "factors of" if model.targets.outputs else "scaled"
    loss_label = f"{model.hyperparameters.loss} of {targets} {model.units}"
    ax.set(xlabel="epoch", ylabel=_axes.plain(loss_label), xlim=(0, None))
    ax.legend(frameon=False, fontsize="small")
    ax.spines[["top", "right"]].set_visible(False)
    return _axes.finish(ax, save)


def _range(values: Iterable[str]) -> str:
    """The first and the last of ascending values, or a single one."""
    first, *others = dict.fromkeys(values)
    return f"{first} to {others[-1]}" if others else first


def _draw(ax: Axes, records: pd.DataFrame, *, best_epoch: int, labels: list[str]) -> list[float]:
    """Draw the losses of one network; return that of the selected epoch."""
    training = records[records["split"] == "training"]
    validation = records[records["split"] == "validation"]
    steps_per_epoch = max(1, int(training.groupby("epoch").size().median()))
    epoch = training["step"] / steps_per_epoch
    smooth = training["loss"].rolling(steps_per_epoch, center=True, min_periods=1).mean()
    ax.plot(epoch, training["loss"], color="C0", alpha=0.25, linewidth=0.8)
    ax.plot(epoch, smooth, color="C0", label=labels[0])
    ax.plot(validation["step"] / steps_per_epoch, validation["loss"], "o-", color="C1",
            markersize=3, label=labels[1])  # fmt: skip
    best = validation[validation["epoch"] == best_epoch]
    position = best["step"] / steps_per_epoch
    for x in position:
        ax.axvline(x, color="0.4", linestyle=":", linewidth=1)
    ax.plot(position, best["loss"], "o", color="C1", markersize=8, markerfacecolor="none")
    return best["loss"].tolist()
