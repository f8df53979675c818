"""Methods as data: one record each, fitted by the shared runner."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stpredict.models._estimators import fit_forest, fit_linear
from stpredict.nn import DeepCell, DeepSets, ForestSets, LinearSets, MultiScale, TileCNN
from stpredict.nn.deepsets import CELL_CONTEXTS, CONTEXTS
from stpredict.nn.stacking import SPOT, stacking_network

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

_DEEPSPOT_PAPER = (
    "Nonchev et al., DeepSpot: leveraging spatial context for enhanced spatial "
    "transcriptomics prediction from H&E images, medRxiv 2025"
)


@dataclass(frozen=True)
class Method:
    """A method to predict expression from embeddings.

    Attributes
    ----------
    name
        As in ``fit_<name>``.
    network
        Makes the network from ``n_features``, ``n_targets``, ``context=`` and hyperparameters.
    contexts
        For each context whether it takes sub-tiles, and whether neighbours.
    hyperparameters
        Defaults of the network's arguments.
    paper
        What to cite.
    recipe
        What a model's recipe holds beside the layer. Nothing for stacks, whose bases have
        recipes of their own.
    estimate
        Fills the network from all training rows at once, for methods that are not trained step by
        step: called with the network, pooled inputs (n, n_pooled), scaled targets (n, n_targets),
        groups (n,), ``seed=`` and the method's own options; returns what it chose.
    head
        Part of the network that predicts from what the other parts encode, which can be trained
        alone; none where it is empty.
    has_gradient
        Whether predictions change smoothly with the inputs, as attribution needs.
    """

    name: str
    network: Callable[..., nn.Module]
    contexts: dict[str, tuple[bool, bool]]
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    paper: str = ""
    recipe: tuple[str, ...] = ("embedding", "embed")
    estimate: Callable[..., dict[str, Any]] | None = None
    head: str = ""
    has_gradient: bool = True


def on_pixels(network: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """Make a network on tiles as others are made, which need to know their features and context."""

    def build(_: int, n_targets: int, *, context: str, **hyperparameters: Any) -> nn.Module:
        return network(n_targets, **hyperparameters)

    return build


DEEPSPOT = Method(
    name="deepspot",
    network=DeepSets,
    contexts=CONTEXTS,
    hyperparameters={"n_hidden": 512, "n_phi": 10, "n_rho": 10, "dropout": 0.3},
    paper=_DEEPSPOT_PAPER,
    head="rho",
)
DEEPCELL = Method(
    name="deepcell",
    network=DeepCell,
    contexts=CELL_CONTEXTS,
    hyperparameters={
        "n_hidden": 1024,
        "n_phi": 10,
        "n_rho": 10,
        "dropout": 0.2,
        "aggregation": "max",
    },
    paper=_DEEPSPOT_PAPER,
    head="rho",
)
RIDGE = Method(
    name="ridge",
    network=LinearSets,
    contexts=CONTEXTS,
    paper=(
        "Jaume et al., HEST-1k: a dataset for spatial transcriptomics and histology image "
        "analysis, NeurIPS 2024"
    ),
    estimate=fit_linear,
)
TREES = Method(
    name="trees",
    network=ForestSets,
    contexts=CONTEXTS,
    paper="Geurts, Ernst and Wehenkel, Extremely randomized trees, Machine Learning 2006",
    estimate=fit_forest,
    has_gradient=False,
)

CNN = Method(
    name="cnn",
    network=on_pixels(TileCNN),
    contexts={"spot": (False, False)},
    hyperparameters={"backbone": "small", "tile_px": 112, "trainable": None},
    paper=(
        "He et al., Integrating spatial gene expression and breast tumour morphology via deep "
        "learning, Nature Biomedical Engineering 2020; Rubin et al., STDL: Spatial "
        "Transcriptomics with Deep Learning, https://github.com/Roy-Rubin/STDL-Project"
    ),
    recipe=("tiles",),
    head="head",
)
MULTISCALE = Method(
    name="multiscale",
    network=on_pixels(MultiScale),
    contexts={"spot": (False, False)},
    hyperparameters={
        "tile_px": 78,
        "n_subtiles": 3,
        "widths": (32, 64, 128, 256),
        "n_tile": 128,
        "n_subtile": 64,
        "dropout": 0.1,
    },
    paper="Wang, HEVisum, https://github.com/Dewey-Wang/HEVisum",
    recipe=("tiles",),
    head="decoder",
)

STACKING = Method(
    name="stacking",
    network=stacking_network,
    contexts=SPOT,
    hyperparameters={"meta": "mlp", "n_hidden": 512, "dropout": 0.2},
    paper="Wang, HEVisum, https://github.com/Dewey-Wang/HEVisum",
    recipe=(),
)

METHODS = {
    method.name: method for method in (DEEPSPOT, DEEPCELL, CNN, MULTISCALE, RIDGE, TREES, STACKING)
}
