"""Methods as data: one record each, fitted by the shared runner."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stpredict.nn.deepsets import CONTEXTS, DeepSets

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn


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
    """

    name: str
    network: Callable[..., nn.Module]
    contexts: dict[str, tuple[bool, bool]]
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    paper: str = ""


DEEPSPOT = Method(
    name="deepspot",
    network=DeepSets,
    contexts=CONTEXTS,
    hyperparameters={"n_hidden": 512, "n_phi": 10, "n_rho": 10, "dropout": 0.3},
    paper=(
        "Nonchev et al., DeepSpot: leveraging spatial context for enhanced spatial "
        "transcriptomics prediction from H&E images, medRxiv 2025"
    ),
)

METHODS = {method.name: method for method in (DEEPSPOT,)}
