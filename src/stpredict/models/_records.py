"""Typed records of a model: its network, its training and its data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field

from stpredict._sdata._parse import FORBID
from stpredict._sdata._steps import Layout, Positive
from stpredict.training import Augmentation, Schedule

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Bounds of sizes, far above those of any model, so that a damaged file cannot ask for more.
Size = Annotated[int, Field(ge=1, le=1 << 20)]
TilePx = Annotated[int, Field(ge=1, le=4096)]
Count = Annotated[int, Field(ge=0)]
Dropout = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True)
class Record:
    """Base of what is stored as JSON: reading a name that a record does not have is an error."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID


@dataclass(frozen=True)
class DeepSpotNetwork(Record):
    """Sizes of DeepSpot's network.

    The published network is ``DeepSpotNetwork(n_hidden=512, n_phi=10, n_networks=1)``.

    Attributes
    ----------
    n_hidden
        Width of φ.
    n_phi, n_rho
        Number of members of the ensembles φ and ρ.
    dropout
        Dropout rate in φ and at the input of ρ.
    n_networks
        Number of networks, whose mean is predicted. Each is trained with another seed and another
        group held out for early stopping.
    """

    n_hidden: Size = 96
    n_phi: Size = 3
    n_rho: Size = 10
    dropout: Dropout = 0.3
    n_networks: Annotated[int, Field(ge=1, le=64)] = 5


@dataclass(frozen=True)
class DeepCellNetwork(DeepSpotNetwork):
    """Sizes of DeepCell's network: those of :class:`DeepSpotNetwork`, and a pooling.

    Attributes
    ----------
    aggregation
        Pooling of the neighbours' embeddings.
    """

    n_hidden: Size = 1024
    n_phi: Size = 10
    dropout: Dropout = 0.2
    n_networks: Annotated[int, Field(ge=1, le=64)] = 1
    aggregation: Literal["max", "mean", "sum"] = "max"


@dataclass(frozen=True)
class CNNNetwork(Record):
    """A convolutional network on tiles.

    Attributes
    ----------
    backbone
        ``"small"``, or the name of any model of timm.
    tile_px
        Side in pixels at which the network sees a tile.
    trainable
        Number of a pretrained backbone's last blocks that are trained, next to the head; frozen
        blocks keep their batch norm statistics. None trains the whole network.
    """

    backbone: str = "small"
    tile_px: TilePx = 112
    trainable: Count | None = None


@dataclass(frozen=True)
class MultiScaleNetwork(Record):
    """Sizes of HEVisum's multi-scale network.

    Attributes
    ----------
    tile_px
        Side in pixels at which the network sees a tile.
    n_subtiles
        Each tile is also split into n × n sub-tiles.
    widths
        Channels of the residual stages of each encoder.
    n_tile, n_subtile
        Width of the encodings of the tile, and of its sub-tiles and centre.
    dropout
        Dropout rate.
    """

    tile_px: TilePx = 78
    n_subtiles: Size = 3
    widths: Annotated[tuple[Size, ...], Field(max_length=16)] = (32, 64, 128, 256)
    n_tile: Size = 128
    n_subtile: Size = 64
    dropout: Dropout = 0.1


@dataclass(frozen=True)
class StackNetwork(Record):
    """The network on top of the models of a stack; sizes are those of ``meta="mlp"``."""

    meta: Literal["mean", "rank_mean", "ridge", "mlp"] = "mean"
    n_hidden: Size = 512
    dropout: Dropout = 0.2


@dataclass(frozen=True)
class RidgeOptions(Record):
    """Options of ridge regression; in a fitted model, alpha is the number that was used."""

    alpha: Annotated[float, Field(ge=0)] | Literal["tuned", "hest"] = "tuned"
    n_components: Size | None = None
    # how the alpha of a fitted model was set; None in older models
    alpha_from: Literal["given", "tuned", "hest"] | None = None


@dataclass(frozen=True)
class TreesOptions(Record):
    """Options of extremely randomised trees."""

    n_trees: Size = 200
    min_samples_leaf: Size = 5
    max_features: float = 0.3


@dataclass(frozen=True)
class Hyperparameters(Record):
    """Options of a model's network and of its training."""

    # the types of the first two are those of the method
    network: Record | None = None  # None for methods whose network has no options
    estimator: Record | None = None  # as used, for methods that are fitted in one go
    schedule: Schedule | None = None  # None for methods that are fitted in one go
    loss: str | None = None  # name of the loss, or the repr of the user's own module
    # the next three are for models on pixels
    augmentation: Augmentation | None = None
    average_symmetries: bool = False  # whether predictions are averaged over flips and turns
    pretrained: bool = False  # whether training started from published weights
    finetuned: Literal["all", "head"] | None = None  # part that `tl.finetune` trained last
    published: dict[str, Any] = field(default_factory=dict)  # those of released weights


@dataclass(frozen=True)
class SampleWeight(Record):
    """Sampling weights of training spots."""

    column: str  # column of obs that held them
    # columns whose groups `pp.balance` gave equal weight: empty for expression clusters, None if
    # the weights are the user's own
    balanced_by: tuple[str, ...] | None = None


@dataclass(frozen=True)
class TrainingSpots(Record):
    """Layout of the training spots, by default also that of the spots placed on new slides."""

    layout: Layout
    pitch_um: Positive  # distance between neighbouring spots
    diameter_um: Positive


@dataclass(frozen=True)
class TrainingRecord(Record):
    """Data that a model was trained on, and what was held out."""

    sections: tuple[str, ...]
    groups: tuple[str, ...]  # patients or sections
    held_out: str  # rows that early stopping used, in words
    n_spots: Count  # training rows
    n_held_out: Count  # rows held out for early stopping
    # epoch of the saved weights of each network, counted from 1; empty for methods that are fitted
    # in one go
    best_epochs: tuple[Count, ...]
    seed: int
    versions: dict[str, str]
    sample_weight: SampleWeight | None = None  # None for equal weights
    target_genes: tuple[str, ...] | None = None  # genes that the factors were fitted on
    knows_mean: bool = True  # some releases do not report the mean of the training rows
    # for `tl.fit_tuned`: mean PCC (or ROC-AUC) of each candidate on the groups left out, best first
    # NaN if a gene of a candidate is constant
    tuned: dict[str, Annotated[float, Field(allow_inf_nan=True)]] | None = None
    finetuned_on: tuple[str, ...] = ()  # sections
    before: TrainingRecord | None = None  # record of the model before it was finetuned
    # None in older models, and without images or with too few spots
    spots: TrainingSpots | None = None
    # patients, and groups of the column given, by column of obs; empty in older models
    donors: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def unreported(
        cls, *, versions: dict[str, str], seed: int = 0, knows_mean: bool = True
    ) -> TrainingRecord:
        """Record of published weights, which do not report their training."""
        return cls((), (), "not reported", 0, 0, (), seed, versions, knows_mean=knows_mean)


def joined_donors(records: Iterable[TrainingRecord]) -> dict[str, tuple[str, ...]]:
    """All donors of several records, by column."""
    joined: dict[str, set[str]] = {}
    for record in records:
        for column, names in record.donors.items():
            joined.setdefault(column, set()).update(names)
    return {column: tuple(sorted(names)) for column, names in joined.items()}
