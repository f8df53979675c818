"""What a fitted model consists of, and its ``config.json``, typed and checked."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from stpredict import _validate
from stpredict._sdata._parse import parse_json
from stpredict._sdata._recipe import Recipe
from stpredict._sdata._steps import NormalizeStep, RankStep
from stpredict.models._methods import METHODS, method_of
from stpredict.models._records import Hyperparameters, Record, TrainingRecord
from stpredict.targets._counts import COUNTS_UNITS, RAW_COUNTS_UNITS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    import pandas as pd
    from torch import nn

    from stpredict.models._methods import Method
    from stpredict.targets import Standard, Targets
    from stpredict.uncertainty import Calibration

FORMAT = "stpredict model"
#: 2: without calibration; 3: with; 4: typed records, no ridge regression in every model; 5: means
#: of several networks.
VERSION, OLDEST = 5, 2
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
        return method_of(self.method).contexts[self.context][0]

    @property
    def uses_neighbors(self) -> bool:
        """Whether the network takes neighbours."""
        return method_of(self.method).contexts[self.context][1]

    @property
    def uses_pixels(self) -> bool:
        """Whether the network takes the pixels of tiles."""
        return method_of(self.method).inputs == "pixels"

    @property
    def nonnegative(self) -> bool:
        """Whether the predicted values cannot be negative: counts, or the logarithm of 1 + counts.

        Negative predictions are set to 0. Ranks and layers of the user are not clipped.
        """
        steps = self.recipe.layer_steps
        is_log1p = bool(steps) and isinstance(steps[0], NormalizeStep)
        is_ranked = any(isinstance(step, RankStep) for step in steps)
        return self.units in (RAW_COUNTS_UNITS, COUNTS_UNITS) or (is_log1p and not is_ranked)


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
        typed = dict(values)
        # the types of these two depend on the method, and on the kinds of steps
        recipe = Recipe.from_plain(typed.pop("recipe", None))
        typed["recipe"] = {"layer": recipe.layer}
        options, typed["hyperparameters"] = _split_options(values.get("hyperparameters"), method)
        config: Config = parse_json(cls, typed, name="configuration")
        hyperparameters = replace(config.hyperparameters, **options)
        config = replace(config, recipe=recipe, hyperparameters=hyperparameters)
        config._check(method)
        return config

    def _check(self, method: Method) -> None:
        """Check the parts against each other."""
        _validate.unique_names(self.genes, what="genes")
        _validate.unique_names(self.bases, what="bases")
        if self.bases and method.inputs != "models":
            raise ValueError(f"a model of {method.name} has {len(self.bases)} bases, expected 0")
        # steps that a method cannot do without
        required = {"embedding": ["embedding", "embed"], "pixels": ["tiles"], "models": []}
        steps = required[method.inputs] + ["neighbors"] * method.contexts[self.context][1]
        missing = [step for step in steps if getattr(self.recipe, step) is None]
        if missing:
            raise ValueError(f"the recipe lacks {', '.join(missing)}")
        tiles, network = self.recipe.tiles, self.hyperparameters.network
        if tiles is not None and getattr(network, "tile_px", tiles.tile_px) != tiles.tile_px:
            raise ValueError("the tiles of the recipe and of the network differ in tile_px")


def _split_options(values: Any, method: Method) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of network and estimator, whose types depend on the method, and all others."""
    if not isinstance(values, dict):
        raise ValueError(f"hyperparameters: must be a dictionary, found {values!r:.80}")
    if ("network" in values) != (method.options is not None):
        problem = "is not used" if method.options is None else "is missing"
        raise ValueError(f"hyperparameters.network {problem} for method={method.name!r}")
    kinds = {"network": method.options, "estimator": method.estimator_options}
    options = {
        part: parse_json(kind, values[part], name=f"hyperparameters.{part}")
        for part, kind in kinds.items()
        if kind is not None and part in values
    }
    # an estimator that the method does not have is refused with the others
    return options, {name: value for name, value in values.items() if name not in options}
