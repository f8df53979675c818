"""Methods as data: one record each, fitted by the shared runner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from stpredict.models._estimators import fit_forest, fit_linear
from stpredict.models._records import (
    CNNNetwork,
    DeepCellNetwork,
    DeepSpotNetwork,
    MultiScaleNetwork,
    RidgeOptions,
    StackNetwork,
    TreesOptions,
)
from stpredict.nn import DeepCell, DeepSets, ForestSets, LinearSets, MultiScale, TileCNN
from stpredict.nn.deepsets import CELL_CONTEXTS, CONTEXTS
from stpredict.nn.stacking import SPOT, stacking_network

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from stpredict.models._records import EstimatorOptions, NetworkOptions

_DEEPSPOT_PAPER = (
    "Nonchev et al., DeepSpot: leveraging spatial context for enhanced spatial "
    "transcriptomics prediction from H&E images, medRxiv 2025"
)


@dataclass(frozen=True)
class Method:
    """One method: its network or estimator, and what it reads.

    Attributes
    ----------
    name
        Name, as in ``fit_<name>``.
    network
        Builds the network from ``n_features``, ``n_targets``, ``context=`` and its options.
    contexts
        For each context, whether it takes sub-tiles, and whether neighbours.
    options
        Dataclass of the network's options; None if it has none.
    inputs
        What the network reads: embeddings, the pixels of tiles, or the predictions of other models.
    paper
        Reference to cite.
    estimate
        Fills the network from all training rows at once, for methods that are not trained step by
        step: called with the network, pooled inputs (n, n_pooled), scaled targets (n, n_targets),
        groups (n,), its options and ``seed=``; returns the options used.
    estimator_options
        Dataclass of the options of ``estimate``.
    head
        Part of the network that can be trained alone; empty if it has none.
    has_gradient
        Whether predictions change smoothly with the inputs, as attribution needs.
    """

    name: str
    network: Callable[..., nn.Module]
    contexts: dict[str, tuple[bool, bool]]
    options: type[NetworkOptions] | None = None
    inputs: Literal["embedding", "pixels", "models"] = "embedding"
    paper: str = ""
    estimate: Callable[..., EstimatorOptions] | None = None
    estimator_options: type[EstimatorOptions] | None = None
    head: str = ""
    has_gradient: bool = True

    def build(
        self,
        n_features: int,
        n_targets: int,
        *,
        context: str,
        options: NetworkOptions | None = None,
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


DEEPSPOT = Method(
    name="deepspot",
    network=DeepSets,
    contexts=CONTEXTS,
    options=DeepSpotNetwork,
    paper=_DEEPSPOT_PAPER,
    head="rho",
)
DEEPCELL = Method(
    name="deepcell",
    network=DeepCell,
    contexts=CELL_CONTEXTS,
    options=DeepCellNetwork,
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
    estimator_options=RidgeOptions,
)
TREES = Method(
    name="trees",
    network=ForestSets,
    contexts=CONTEXTS,
    paper="Geurts, Ernst and Wehenkel, Extremely randomized trees, Machine Learning 2006",
    estimate=fit_forest,
    estimator_options=TreesOptions,
    has_gradient=False,
)

CNN = Method(
    name="cnn",
    network=on_pixels(TileCNN),
    contexts={"spot": (False, False)},
    options=CNNNetwork,
    paper=(
        "He et al., Integrating spatial gene expression and breast tumour morphology via deep "
        "learning, Nature Biomedical Engineering 2020; Rubin et al., STDL: Spatial "
        "Transcriptomics with Deep Learning, https://github.com/Roy-Rubin/STDL-Project"
    ),
    inputs="pixels",
    head="head",
)
MULTISCALE = Method(
    name="multiscale",
    network=on_pixels(MultiScale),
    contexts={"spot": (False, False)},
    options=MultiScaleNetwork,
    paper="Wang, HEVisum, https://github.com/Dewey-Wang/HEVisum",
    inputs="pixels",
    head="decoder",
)

STACKING = Method(
    name="stacking",
    network=stacking_network,
    contexts=SPOT,
    options=StackNetwork,
    paper="Wang, HEVisum, https://github.com/Dewey-Wang/HEVisum",
    inputs="models",
)

METHODS = {
    method.name: method for method in (DEEPSPOT, DEEPCELL, CNN, MULTISCALE, RIDGE, TREES, STACKING)
}
