"""Training of the networks of a model, each with its own seed and held-out rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from stpredict._log import shared_bar
from stpredict.models._save import HISTORY_COLUMNS
from stpredict.nn import MeanOfNetworks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from torch import nn

    from stpredict.nn.losses import Loss
    from stpredict.tl._fitting._split import Fold
    from stpredict.training import Inputs, Measured, Pixels, Schedule


@dataclass(frozen=True)
class FittedNetwork:
    """The network of a model, and its training."""

    network: nn.Module
    history: pd.DataFrame
    best_epochs: tuple[int, ...] = ()  # of each network; empty without epochs

    @classmethod
    def in_one_go(cls, network: nn.Module) -> FittedNetwork:
        """A network that was fitted without epochs."""
        return cls(network, pd.DataFrame(columns=list(HISTORY_COLUMNS)))


def fit_networks(
    builders: Sequence[Callable[[], nn.Module]],  # one per fold, called after seeding
    inputs: Inputs | Pixels,
    measured: Measured,
    folds: Sequence[Fold],
    *,
    loss: Loss,
    schedule: Schedule,
    seed: int,
    device: str,
    weights: NDArray[np.float64] | None = None,
) -> FittedNetwork:
    """Train one network per fold; the mean of several becomes one network."""
    from stpredict.training import fit_network  # Lightning takes seconds to import

    seeds = [seed, *np.random.SeedSequence(seed).generate_state(len(folds) - 1).tolist()]
    with shared_bar(len(folds) * schedule.max_epochs, "training", unit="epoch"):
        fits = [
            fit_network(
                build,
                inputs,
                measured,
                training=fold.training,
                validation=fold.validation,
                loss=loss,
                schedule=schedule,
                seed=own_seed,
                device=device,
                weights=weights,
            )
            for build, fold, own_seed in zip(builders, folds, seeds, strict=True)
        ]
    histories = [
        fitted.history.assign(network=number)[list(HISTORY_COLUMNS)]
        for number, fitted in enumerate(fits, start=1)
    ]
    networks = [fitted.network for fitted in fits]
    return FittedNetwork(
        networks[0] if len(networks) == 1 else MeanOfNetworks(networks).eval(),  # type: ignore[arg-type]
        pd.concat(histories, ignore_index=True),
        tuple(fitted.best_epoch for fitted in fits),
    )
