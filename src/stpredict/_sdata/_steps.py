"""The steps that made a model's inputs and layer, as data; `stpredict.pp._steps` runs them."""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field

from stpredict._sdata._differences import (
    CELL_TOLERANCE,
    PITCH_TOLERANCE,
    differences_of,
    length_differences,
    response_differences,
)
from stpredict._sdata._parse import FORBID
from stpredict._sdata._reference_stain import ReferenceStain, stain_differences

#: Rings of a grid, and sub-tiles along a tile; more would take forever.
MAX_RINGS, MAX_SUBTILES = 100, 100

Positive = Annotated[float, Field(gt=0)]
Size = Annotated[int, Field(ge=1)]

#: Of each field, if there are several.
Several = Annotated[tuple[Positive, ...], Field(min_length=2)]

Grid = Literal["hexagonal", "square"]
Layout = Literal["hexagonal", "square", "irregular"]


@dataclass(frozen=True)
class Step:
    """One recorded step; subclasses add its parameters."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    name: ClassVar[str]  # key in uns["stpredict"], and in a saved model
    per_slot: ClassVar[bool] = False  # one record for each slot that the step writes

    def to_plain(self) -> dict[str, Any]:
        """Parameters that are set, in types that JSON and zarr can hold."""
        return _without_none(asdict(self))


@dataclass(frozen=True)
class NormalizeStainStep(Step):
    """`pp.normalize_stain`."""

    name: ClassVar[str] = "normalize_stain"
    reference: ReferenceStain
    reference_sections: tuple[str, ...] | None = None  # it was averaged over; None if given
    skipped: tuple[str, ...] = ()  # sections whose stain could not be estimated


@dataclass(frozen=True)
class EmbedStep(Step):
    """`pp.embed` or `pp.register_embedding`; None stands for what is not reported."""

    name: ClassVar[str] = "embed"
    per_slot: ClassVar[bool] = True
    encoder: str | None = None
    weights_hash: str | None = None
    tile_um: Positive | Several | None = None  # several fields ascend
    mpp: Positive | Several | None = None
    widths: tuple[Size, ...] | None = None  # of the embedding of each of several joined encoders
    n_subtiles: Annotated[int, Field(ge=1, le=MAX_SUBTILES)] | None = None
    stain: ReferenceStain | None = None
    registered: Literal[True] | None = None  # computed elsewhere, so that it cannot be repeated
    response: tuple[float, float, float] | None = None  # of an encoder of the user to a fixed tile

    def __post_init__(self) -> None:
        if self.mpp is not None and len(as_fields(self.mpp)) != len(self.fields_um):
            raise ValueError(f"tile_um={self.tile_um} and mpp={self.mpp} differ in length")
        if list(self.fields_um) != sorted(set(self.fields_um)):
            raise ValueError(f"tile_um={self.tile_um} does not ascend")

    @property
    def fields_um(self) -> tuple[float, ...]:
        """Sides of the tiles of each field, the parts of an embedding from left to right."""
        return as_fields(self.tile_um)

    @property
    def sides(self) -> str:
        """Sides of the tiles in words, such as "112 and 224 µm"."""
        return " and ".join(f"{side:g}" for side in self.fields_um) + " µm"

    @property
    def mpp_of_fields(self) -> dict[float, float | None]:
        """µm per pixel at which the encoder saw the tiles of each side, if it is reported."""
        return dict(itertools.zip_longest(self.fields_um, as_fields(self.mpp)))

    @property
    def is_complete(self) -> bool:
        """Whether the step can be repeated."""
        reported = (self.encoder, self.weights_hash, self.tile_um, self.n_subtiles)
        return None not in reported and not self.registered

    def differences(self, recorded: EmbedStep, *, subtiles: bool) -> list[str]:
        """In which parameters a recorded step differs from this one, in words."""
        ignored = {"stain", "registered", "response"} | (set() if subtiles else {"n_subtiles"})
        response = response_differences(self.response, recorded.response)
        stain = stain_differences(self.stain, recorded.stain)
        return differences_of(self, recorded, ignored=ignored) + response + stain


@dataclass(frozen=True)
class TilesStep(Step):
    """How a network on pixels reads its tiles."""

    name: ClassVar[str] = "tiles"
    tile_um: Positive
    tile_px: Size
    stain: ReferenceStain | None = None


@dataclass(frozen=True)
class NeighborsStep(Step):
    """`pp.neighbors`; all None for a published model, which does not report its rule.

    The spacing is None in models of older versions, and is not compared then.
    """

    name: ClassVar[str] = "neighbors"
    grid: Grid | None = None
    n_rings: Annotated[int, Field(ge=1, le=MAX_RINGS)] | None = None
    n_neighbors: Size | None = None
    radius_um: Positive | None = None
    layout: Layout | None = None  # of the spots, without rings; None for too few spots
    pitch_um: Positive | None = None  # of the spots, or of the grid whose rings are linked
    distance_um: Positive | None = None  # median distance of neighbours

    @property
    def rule(self) -> dict[str, Any]:
        """Parameters of `pp.neighbors`."""
        spacing = ("layout", "pitch_um", "distance_um")
        return {name: value for name, value in self.to_plain().items() if name not in spacing}

    @property
    def is_by_rings(self) -> bool:
        """Whether the rings of a grid are linked."""
        return self.n_neighbors is None and self.radius_um is None

    def differences(self, recorded: NeighborsStep) -> list[str]:
        """In which parameters a recorded step differs from this one, in words."""
        rule = differences_of(self, recorded, ignored={"layout", "pitch_um", "distance_um"})
        return rule + self.spacing_differences(recorded)

    def spacing_differences(self, recorded: NeighborsStep) -> list[str]:
        """How the spacing of a recorded step differs from this one, in words."""
        regular = ("hexagonal", "square")
        if self.layout in regular and recorded.layout not in (self.layout, None):
            return [f"the layout is {recorded.layout}, the model was trained with {self.layout}"]
        # the pitch of cells has no meaning, and their distances scatter
        if self.grid is not None or self.layout in regular:
            return length_differences(self, recorded, "pitch_um", PITCH_TOLERANCE)
        return length_differences(self, recorded, "distance_um", CELL_TOLERANCE)


@dataclass(frozen=True)
class NormalizeStep(Step):
    """`pp.normalize`."""

    name: ClassVar[str] = "normalize"
    target_sum: Positive


@dataclass(frozen=True)
class SmoothStep(Step):
    """`pp.smooth`."""

    name: ClassVar[str] = "smooth"
    per_slot: ClassVar[bool] = True
    key_added: str
    layer: str | None = None
    by: Literal["space", "expression"] = "space"
    n_neighbors: Size | None = None


@dataclass(frozen=True)
class RankStep(Step):
    """`pp.rank_expression`."""

    name: ClassVar[str] = "rank_expression"
    per_slot: ClassVar[bool] = True
    key_added: str
    layer: str | None = None
    method: Literal["average", "ordinal"] = "average"
    normalize: bool = False
    n_genes: int = 0
    genes: tuple[str, ...] | None = None  # ranked among each other; None for all columns


LayerStep = NormalizeStep | SmoothStep | RankStep  # in the order in which they can be run


@dataclass(frozen=True)
class SelectGenesStep(Step):
    """`pp.select_genes`; both None if the genes were given by name."""

    name: ClassVar[str] = "select_genes"
    n_top_genes: int | None = None
    flavor: str | None = None


@dataclass(frozen=True)
class BalanceStep(Step):
    """`pp.balance`; without ``by``, within the expression clusters of each section."""

    name: ClassVar[str] = "balance"
    by: tuple[str, ...] | None = None
    resolution: float | None = None
    seed: int | None = None


def as_fields(value: float | tuple[float, ...] | None) -> tuple[float, ...]:
    """One value per field; none if it is not reported."""
    if value is None:
        return ()
    return value if isinstance(value, tuple) else (value,)


def of_fields(values: tuple[float, ...]) -> float | tuple[float, ...]:
    """Values of all fields as they are recorded: a number if there is one field."""
    return values if len(values) > 1 else values[0]


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, tuple | list):
        return [_without_none(item) for item in value]
    return value
