"""Everything that a fitted model consists of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stpredict.models._methods import METHODS

if TYPE_CHECKING:
    from typing import Self

    import pandas as pd
    from torch import nn

    from stpredict._sdata._steps import Recipe
    from stpredict.models._records import Hyperparameters, TrainingRecord
    from stpredict.targets import Standard, Targets
    from stpredict.uncertainty import Calibration


@dataclass(frozen=True, eq=False)
class ModelState:
    """Fields of a fitted model, from which its card and files are written; see `Model`."""

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

    # methods are looked up by name, as only the name is saved
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
