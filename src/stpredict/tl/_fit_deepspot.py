"""Fit DeepSpot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from stpredict._arguments import checked
from stpredict._sdata._spot_table import open_table
from stpredict.models._methods import DEEPSPOT
from stpredict.models._records import DeepSpotNetwork, Hyperparameters
from stpredict.tl._fitting._docs import shared
from stpredict.tl._fitting._runner import Plan, fit
from stpredict.tl._fitting._values import Task
from stpredict.training import Schedule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spatialdata import SpatialData
    from torch import nn

    from stpredict.models import Model


@checked
@shared(held_out="early stopping")
def fit_deepspot(
    sdata: SpatialData,
    *,
    embedding: str = "X_texture",
    context: Literal[
        "spot", "spot_subspot", "spot_neighbors", "spot_subspot_neighbors"
    ] = "spot_neighbors",
    standardize: Literal["training", "section"] = "section",
    genes: Sequence[str] | None = None,
    layer: str | None = "log1p",
    groups: str | None = None,
    sample_weight: str | None = None,
    targets: Literal["genes", "svd", "nmf", "autoencoder", "high"] = "genes",
    n_factors: int | None = None,
    scaling: Literal["standard", "robust", "none"] | None = None,
    quantile: float | None = None,
    loss: str | nn.Module | None = None,
    network: DeepSpotNetwork = DeepSpotNetwork(),
    schedule: Schedule = Schedule(),
    seed: int = 0,
    device: str = "auto",
    table_name: str = "table",
) -> Model:
    """Fit DeepSpot: a deep set over the embeddings of a spot, its sub-tiles and its neighbours.

    φ (linear, dropout, ReLU; the median of an ensemble) encodes every tile, sub-tiles are summed
    and neighbours reduced by their maximum, ρ (dropout, ReLU, linear; the mean of an ensemble)
    predicts the genes. The prediction is the mean of several networks
    (``network.n_networks``). Each is trained from another seed and keeps the weights of its best
    epoch on a group that it holds out; the groups are held out in turn, so that every section is
    trained on. The standard deviation over the networks goes to ``layers["std"]`` of predictions
    (of a single network, that over ρ's ensemble); it is not an error bar.

    The sizes of the network, the standardisation, the learning rate and the monitor were selected
    by validation within the training sections of one breast tumour, with the texture encoder on
    tiles of several sides; the dropout is as published.

    Parameters
    ----------
    {sdata}
    {embedding}
    {context}
    {standardize}
    {rows}
    {weight}
    {targets}
    {quantile}
    {loss}
    network
        Sizes of the network (:class:`stpredict.tl.DeepSpotNetwork`).
    {schedule}
    {seed}
    {device}
    {table_name}

    Returns
    -------
    {returns}

    Raises
    ------
    {raises}

    References
    ----------
    Nonchev et al., DeepSpot: leveraging spatial context for enhanced spatial transcriptomics
    prediction from H&E images, medRxiv 2025.

    Examples
    --------
    {prepared}
    >>> network, schedule = stp.tl.DeepSpotNetwork(n_hidden=16), stp.tl.Schedule(max_epochs=2)
    >>> model = stp.tl.fit_deepspot(sdata, network=network, schedule=schedule)
    >>> len(model.genes)
    10
    """
    task = Task(
        embedding=embedding,
        context=context,
        standardize=standardize,
        genes=genes,
        layer=layer,
        groups=groups,
        sample_weight=sample_weight,
        targets=targets,
        n_factors=n_factors,
        scaling=scaling,
        quantile=quantile,
        loss=loss,
        seed=seed,
        device=device,
    )
    plan = Plan(DEEPSPOT, task, Hyperparameters(network=network, schedule=schedule))
    return fit(open_table(sdata, table_name), plan)
