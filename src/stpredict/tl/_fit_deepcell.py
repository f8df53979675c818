"""Fit DeepCell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from stpredict._arguments import checked
from stpredict._sdata._spot_table import open_table
from stpredict.models._methods import DEEPCELL
from stpredict.models._records import DeepCellNetwork, Hyperparameters
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
def fit_deepcell(
    sdata: SpatialData,
    *,
    embedding: str = "X_texture",
    context: Literal["cell", "cell_neighbors"] = "cell_neighbors",
    standardize: Literal["training", "section"] = "training",
    genes: Sequence[str] | None = None,
    layer: str | None = "log1p",
    groups: str | None = None,
    sample_weight: str | None = None,
    targets: Literal["genes", "svd", "nmf", "autoencoder", "high"] = "genes",
    n_factors: int | None = None,
    scaling: Literal["standard", "robust", "none"] | None = None,
    quantile: float | None = None,
    loss: str | nn.Module | None = None,
    network: DeepCellNetwork = DeepCellNetwork(),
    schedule: Schedule = Schedule(learning_rate=1e-4, batch_size=256, patch_size=64),
    seed: int = 0,
    device: str = "auto",
    table_name: str = "table",
) -> Model:
    """Fit DeepCell: DeepSpot for single cells.

    Neighbours are reduced to their maximum, mean or sum. Batches are compact patches of tissue:
    their cells share most neighbours, so that far fewer tiles are encoded than with cells drawn one
    by one (``schedule.patch_size``; 1 draws single cells; ignored with ``sample_weight``).
    Everything else is as in :func:`stpredict.tl.fit_deepspot`.

    Parameters
    ----------
    sdata
        Training sections as in `fit_deepspot`, with a graph for ``"cell_neighbors"``
        (`pp.neighbors` with ``n_neighbors`` or ``radius_um``).
    {embedding}
    context
        What the network sees next to the cell: its neighbours, or nothing.
    {standardize}
    {rows}
    {weight}
    {targets}
    {quantile}
    {loss}
    network
        Sizes of the network (:class:`stpredict.tl.DeepCellNetwork`).
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
    >>> network, schedule = stp.tl.DeepCellNetwork(n_hidden=16), stp.tl.Schedule(max_epochs=2)
    >>> model = stp.tl.fit_deepcell(sdata, network=network, schedule=schedule)
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
    plan = Plan(DEEPCELL, task, Hyperparameters(network=network, schedule=schedule))
    return fit(open_table(sdata, table_name), plan)
