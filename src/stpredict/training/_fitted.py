"""A trained network."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
from torch import nn


@dataclass(frozen=True)
class Fitted:
    """A trained network with the weights of its best epoch, counted from 1."""

    network: nn.Module
    history: pd.DataFrame
    best_epoch: int
