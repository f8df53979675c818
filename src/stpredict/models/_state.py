"""Everything that a fitted model consists of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stpredict.models._methods import METHODS

if TYPE_CHECKING:
    from typing import Self

    import pandas as pd
    from torch import nn

    from stpredict._sdata._recipe import Recipe
    from stpredict.models._records import Hyperparameters, TrainingRecord
    from stpredict.targets import Standard, Targets
    from stpredict.uncertainty import Calibration


@dataclass(frozen=True, eq=False)
class ModelState:
    """Fields of a fitted model; `Model` documents them, and adds prediction and saving.

    The card and the files of a saved model are written from this class, so that they need not
    import `Model`.
    """

    method: str
    network: nn.Module
    genes: tuple[str, ...]
    context: str
    hyperparameters: Hyperparameters
    recipe: Recipe
    training: TrainingRecord
    units: str
    targets: Targets
    history: pd.DataFrame
    inputs: Standard | None = None
    subtiles: Standard | None = None
    bases: dict[str, Self] = field(default_factory=dict)
    calibration: Calibration | None = None

    @property
    def uses_subtiles(self) -> bool:
        """Whether the network takes sub-tiles."""
        return METHODS[self.method].contexts[self.context][0]

    @property
    def uses_neighbors(self) -> bool:
        """Whether the network takes neighbours."""
        return METHODS[self.method].contexts[self.context][1]

    @property
    def uses_pixels(self) -> bool:
        """Whether the network takes the pixels of tiles."""
        return METHODS[self.method].inputs == "pixels"
