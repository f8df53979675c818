"""What a fitted model consists of, and its ``config.json``, typed and checked."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from stpredict import _validate
from stpredict._sdata._recipe import Recipe
from stpredict._sdata._steps import parse
from stpredict.models._methods import METHODS
from stpredict.models._records import Hyperparameters, Record, TrainingRecord

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    import pandas as pd
    from torch import nn

    from stpredict.models._methods import Method
    from stpredict.targets import Standard, Targets
    from stpredict.uncertainty import Calibration

FORMAT = "stpredict model"
#: 2: without calibration; 3: with; 4: typed records, no ridge regression in every model.
VERSION, OLDEST = 4, 2
#: Fields that a model and its configuration share.
SHARED = ("method", "context", "units", "genes", "hyperparameters", "recipe", "training")


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


@dataclass(frozen=True)
class Config(Record):
    """Everything about a model that is not an array."""

    format: str
    format_version: int
    stpredict_version: str
    method: str
    context: str
    units: str
    genes: Annotated[tuple[str, ...], Field(min_length=1)]
    bases: tuple[str, ...]  # names of a stack's bases; the n-th is saved in the folder base_<n>
    targets: dict[str, Any]
    hyperparameters: Hyperparameters
    recipe: Recipe
    training: TrainingRecord
    calibration: dict[str, Any] | None = None

    @classmethod
    def of(cls, model: ModelState) -> Config:
        """Configuration of a model."""
        from stpredict import __version__

        return cls(
            format=FORMAT,
            format_version=VERSION,
            stpredict_version=__version__,
            bases=tuple(model.bases),
            targets=model.targets.state()[0],
            calibration=None if model.calibration is None else model.calibration.state()[0],
            **{name: getattr(model, name) for name in SHARED},
        )

    def to_plain(self) -> dict[str, Any]:
        """The configuration in types that JSON can hold; fields that are None are left out."""
        plain = asdict(self, dict_factory=lambda pairs: {k: v for k, v in pairs if v is not None})
        return {**plain, "recipe": self.recipe.to_plain()}

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> Config:
        """Read a configuration; unknown or missing names and wrong types raise ValueError."""
        _validate.one_of("method", values.get("method"), METHODS)
        method = METHODS[values["method"]]
        _validate.one_of("context", values.get("context"), method.contexts)
        # these two need more than their type to be parsed: the method, and the kinds of steps
        typed = dict(values)
        if isinstance(values.get("hyperparameters"), dict):
            typed["hyperparameters"] = _with_network(values["hyperparameters"], method)
        if isinstance(values.get("recipe"), dict):
            typed["recipe"] = Recipe.from_plain(values["recipe"])
        config: Config = parse(cls, typed)
        # steps that a method cannot do without
        required = {"embedding": ["embedding", "embed"], "pixels": ["tiles"], "models": []}
        steps = required[method.inputs] + ["neighbors"] * method.contexts[config.context][1]
        missing = [step for step in steps if getattr(config.recipe, step) is None]
        if missing:
            raise ValueError(f"the recipe lacks {', '.join(missing)}")
        return config


def _with_network(values: dict[str, Any], method: Method) -> dict[str, Any]:
    """Parse the options of the network, whose type depends on the method."""
    if ("network" in values) != (method.options is not None):
        problem = "is not used" if method.options is None else "is missing"
        raise ValueError(f"hyperparameters.network {problem} for method={method.name!r}")
    if method.options is None:
        return values
    return {**values, "network": parse(method.options, values["network"])}
