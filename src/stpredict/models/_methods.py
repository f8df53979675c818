"""Methods as data: one record each, fitted by the shared runner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from stpredict._registry import Registry
from stpredict.models._estimators import fit_forest, fit_linear, fit_log_odds
from stpredict.models._records import (
    CNNNetwork,
    DeepCellNetwork,
    DeepSpotNetwork,
    MultiScaleNetwork,
    RidgeOptions,
    StackNetwork,
    TreesOptions,
)
from stpredict.nn import (
    DeepCell,
    DeepSets,
    ForestSets,
    LinearSets,
    MeanOfNetworks,
    MultiScale,
    SetNetwork,
    TileCNN,
)
from stpredict.nn.deepsets import CELL_CONTEXTS, CONTEXTS
from stpredict.nn.stacking import SPOT, stacking_network

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from stpredict.models._records import Record

_DEEPSPOT_PAPER = (
    "Nonchev et al., DeepSpot: leveraging spatial context for enhanced spatial "
    "transcriptomics prediction from H&E images, medRxiv 2025"
)
_HEVISUM = "Wang, HEVisum, https://github.com/Dewey-Wang/HEVisum"


@dataclass(frozen=True)
class Method:
    """One method: its network, its estimator if it has one, and what it reads.

    Attributes
    ----------
    name
        Name of the method, as in ``fit_<name>``; saved models are loaded by it.
    network
        Class or function that builds the network, called with ``n_features``, ``n_targets``,
        ``context=`` and the fields of `options`.
    contexts
        For each ``context``, whether it takes sub-tiles, and neighbours.
    options, estimator_options
        Dataclasses of the options of the network and of the estimator. They are saved with a
        model.
    inputs
        What the network takes: an embedding, the pixels of tiles, or predictions of models.
    paper
        Reference, for the card of a model.
    estimate, estimate_high
        Functions that fill the network from all rows at once, for continuous targets, and for
        targets of 0 and 1, whose log odds are predicted. They are called with the network, inputs
        ``(n, n_pooled)``, scaled targets ``(n, n_targets)``, groups ``(n,)``, the options and
        ``seed=``, and return the options used. Without them, the network is trained step by step.
    head
        Part of the network that can be trained alone.
    has_gradient
        Whether predictions change smoothly, as attribution requires.
    """

    name: str
    network: Callable[..., nn.Module]
    contexts: dict[str, tuple[bool, bool]]
    options: type[Record] | None = None
    inputs: Literal["embedding", "pixels", "models"] = "embedding"
    paper: str = ""
    estimate: Callable[..., Any] | None = None
    estimate_high: Callable[..., Any] | None = None
    estimator_options: type[Record] | None = None
    head: str = ""
    has_gradient: bool = True

    def build(
        self,
        n_features: int,
        n_targets: int,
        *,
        context: str,
        options: Record | None = None,
        **more: Any,
    ) -> nn.Module:
        """Build the network; ``more`` goes to networks with arguments beyond their options."""
        arguments = {} if options is None else vars(options)
        return self.network(n_features, n_targets, context=context, **arguments, **more)


def on_pixels(network: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """Wrap a network on tiles, so that it is built with the same arguments as the others."""

    def build(_: int, n_targets: int, *, context: str, **hyperparameters: Any) -> nn.Module:
        return network(n_targets, **hyperparameters)

    return build


def several(network: Callable[..., SetNetwork]) -> Callable[..., nn.Module]:
    """Wrap a network over sets, so that the mean of several is built with ``n_networks``."""

    def build(*sizes: int, n_networks: int = 1, **options: Any) -> nn.Module:
        networks = [network(*sizes, **options) for _ in range(n_networks)]
        return networks[0] if n_networks == 1 else MeanOfNetworks(networks)

    return build


DEEPSPOT = Method(
    "deepspot", several(DeepSets), CONTEXTS, DeepSpotNetwork, paper=_DEEPSPOT_PAPER, head="rho"
)
DEEPCELL = Method(
    "deepcell", several(DeepCell), CELL_CONTEXTS, DeepCellNetwork, paper=_DEEPSPOT_PAPER, head="rho"
)
RIDGE = Method(
    "ridge",
    LinearSets,
    CONTEXTS,
    paper=(
        "Jaume et al., HEST-1k: a dataset for spatial transcriptomics and histology image "
        "analysis, NeurIPS 2024"
    ),
    estimate=fit_linear,
    estimate_high=fit_log_odds,
    estimator_options=RidgeOptions,
)
TREES = Method(
    "trees",
    ForestSets,
    CONTEXTS,
    paper="Geurts, Ernst and Wehenkel, Extremely randomized trees, Machine Learning 2006",
    estimate=fit_forest,
    estimator_options=TreesOptions,
    has_gradient=False,
)

CNN = Method(
    "cnn",
    on_pixels(TileCNN),
    SPOT,
    CNNNetwork,
    paper=(
        "He et al., Integrating spatial gene expression and breast tumour morphology via deep "
        "learning, Nature Biomedical Engineering 2020; Rubin et al., STDL: Spatial "
        "Transcriptomics with Deep Learning, https://github.com/Roy-Rubin/STDL-Project"
    ),
    inputs="pixels",
    head="head",
)
MULTISCALE = Method(
    "multiscale",
    on_pixels(MultiScale),
    SPOT,
    MultiScaleNetwork,
    paper=_HEVISUM,
    inputs="pixels",
    head="decoder",
)

STACKING = Method(
    "stacking",
    stacking_network,
    SPOT,
    StackNetwork,
    paper=_HEVISUM,
    inputs="models",
    estimator_options=RidgeOptions,  # with meta="ridge"
)

_ALL = (DEEPSPOT, DEEPCELL, CNN, MULTISCALE, RIDGE, TREES, STACKING)
METHODS = Registry("method", _ALL)


def _not_built(*_: object, **options: object) -> nn.Module:
    raise ValueError("the network of DeepSpot-M is built by its package only")


DEEPSPOTM = Method(
    "deepspotm",
    _not_built,
    SPOT,
    inputs="pixels",
    paper=(
        "Nonchev et al., DeepSpot-M: a multimodal foundation model for transcriptome-wide virtual "
        "spatial transcriptomics from histology, medRxiv 2026"
    ),
)
#: Networks of other packages, which are neither saved nor trained here.
EXTERNAL = {DEEPSPOTM.name: DEEPSPOTM}


def method_of(name: str) -> Method:
    """Record of the method of a model."""
    return EXTERNAL.get(name) or METHODS[name]
