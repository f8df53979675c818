"""Restriction of a fitted model to some of its genes."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from stpredict import _validate
from stpredict.models._deepspotm import QueriedGenes
from stpredict.models._methods import METHODS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

    from stpredict.models._model import Model


def restrict(model: Model, genes: Sequence[str]) -> Model:
    """Restrict a model to some of its genes, in this order, with unchanged predictions."""
    gene_index = [model.genes.index(gene) for gene in genes]
    # a network of factors is copied, and fewer genes are computed from the factors
    predicts_genes = model.targets.outputs is None
    return replace(
        model,
        network=_sliced(model, gene_index) if predicts_genes else copy.deepcopy(model.network),
        genes=tuple(genes),
        targets=model.targets.subset(gene_index),
        calibration=None,  # calibrated for the original genes
    )


def check_genes(model: Model, genes: Sequence[str]) -> list[str]:
    """Require a list of genes that the model predicts."""
    names = _validate.name_list("genes", genes)
    absent = [gene for gene in names if gene not in model.genes]
    if absent:
        reason = _validate.listing(absent) + _validate.why_absent(absent, model.genes)
        share = f"{len(absent)} of {len(names)}"
        raise ValueError(f"{share} genes are not among the model's {len(model.genes)}: {reason}")
    return names


def _sliced(model: Model, gene_index: list[int]) -> nn.Module:
    """Build the network with fewer targets, from the slices that its ``output_axes`` declare."""
    if isinstance(model.network, QueriedGenes):
        return model.network.select_outputs(gene_index)
    axes: Mapping[str, int] = model.network.output_axes  # type: ignore[assignment]
    index = torch.tensor(gene_index)
    state = {
        name: tensor.index_select(axes[name], index) if name in axes else tensor
        for name, tensor in model.network.state_dict().items()
    }
    n_features = 0 if model.inputs is None else len(model.inputs.mean)
    options = model.hyperparameters.network
    # building draws initial weights, which load_state_dict replaces
    with torch.random.fork_rng(devices=[]):
        network = METHODS[model.method].build(
            n_features, len(gene_index), context=model.context, options=options
        )
    network.load_state_dict(state)
    return network.eval()
