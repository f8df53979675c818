"""The same model for some of its genes."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from stpredict.models._methods import METHODS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from stpredict.models._model import Model


def restrict(model: Model, genes: Sequence[str]) -> Model:
    """Give a model of some genes of another, in the order named, which predicts the same of them.

    Where the network's outputs are genes, it is sliced; where they are factors, fewer genes are
    made of them.
    """
    places = [model.genes.index(gene) for gene in genes]
    of_genes = model.targets.outputs is None
    return replace(
        model,
        network=_sliced(model, places) if of_genes else copy.deepcopy(model.network),
        genes=tuple(genes),
        targets=model.targets.only(places),
        calibration=None,
    )


def _sliced(model: Model, places: list[int]) -> nn.Module:
    """Network with some of the outputs: what grows by one with one output more has one of each."""
    method = METHODS[model.method]
    n_features = 0 if model.inputs is None else len(model.inputs.mean)

    def of(n_targets: int) -> nn.Module:
        return method.build(
            n_features,
            n_targets,
            context=model.context,
            options=model.hyperparameters.network,
        )

    with torch.device("meta"):  # shapes without memory
        longer = of(model.targets.n_outputs + 1).state_dict()
    state = {}
    for name, tensor in model.network.state_dict().items():
        for axis, (size, grown) in enumerate(zip(tensor.shape, longer[name].shape, strict=True)):
            if size != grown:
                tensor = tensor.index_select(axis, torch.tensor(places))
        state[name] = tensor
    with torch.random.fork_rng(devices=[]):
        network = of(len(places))
    network.load_state_dict(state)
    return network.eval()
