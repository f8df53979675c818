"""Fit DeepCell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from stpredict import _keys
from stpredict.models._methods import DEEPCELL
from stpredict.tl._fitting._docs import shared
from stpredict.tl._fitting._runner import fit
from stpredict.tl._fitting._task import Kind, Scaling, Task
from stpredict.training import Schedule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spatialdata import SpatialData
    from torch import nn

    from stpredict.models import Model


@shared(held_out="early stopping")
def fit_deepcell(
    sdata: SpatialData,
    *,
    embedding: str = "X_texture",
    context: Literal["cell", "cell_neighbors"] = "cell_neighbors",
    genes: Sequence[str] | None = None,
    layer: str | None = _keys.LOG1P,
    groups: str | None = None,
    sample_weight: str | None = None,
    targets: Kind = "genes",
    n_factors: int | None = None,
    scaling: Scaling | None = None,
    loss: str | nn.Module = "mse",
    n_hidden: int = 1024,
    n_phi: int = 10,
    n_rho: int = 10,
    dropout: float = 0.2,
    aggregation: Literal["max", "mean", "sum"] = "max",
    learning_rate: float = 1e-4,
    weight_decay: float = 1e-6,
    batch_size: int = 256,
    max_epochs: int = 200,
    patience: int = 10,
    monitor: Literal["loss", "pearson", "spearman"] = "pearson",
    patch_size: int = 64,
    seed: int = 0,
    device: str = "auto",
) -> Model:
    """Fit DeepCell: DeepSpot for single cells.

    φ (linear, dropout, ReLU; the median of an ensemble) embeds the tile of every cell once, the
    neighbours are reduced to their maximum, mean or sum, ρ (dropout, ReLU, linear; the mean of an
    ensemble) predicts the genes; the spread of ρ's ensemble goes to ``layers["std"]`` of
    predictions. Batches are drawn as compact patches of tissue, whose cells share most of their
    neighbours, so that far fewer tiles are encoded than with cells drawn one by one. Otherwise as
    :func:`stpredict.tl.fit_deepspot`.

    Parameters
    ----------
    sdata
        Training sections, with embeddings of the cells (`pp.embed`), for ``"cell_neighbors"`` a
        graph (`pp.neighbors`, by ``n_neighbors`` or ``radius_um``), a layer to predict
        (`pp.normalize`), and the genes to predict (`pp.select_genes`).
    embedding
        Slot in ``obsm``.
    context
        What the network looks at beside the cell: its neighbours, or nothing.
    {rows}
    {weight}
    {targets}
    {loss}
    n_hidden
        Width of φ.
    n_phi, n_rho
        Networks in the ensembles.
    dropout
        Of φ and of ρ's input.
    aggregation
        How neighbours are reduced.
    {training}
    {monitor}
    patch_size
        Cells of a patch; 1 draws cells one by one. Does not apply with ``sample_weight``.
    {seed}
    {device}

    Returns
    -------
    Model
        ``sdata`` is not changed.

    Raises
    ------
    KeyError
        If the embedding, the graph, the layer, a gene or a column is not there.
    ValueError
        If no genes are selected, the loss is unknown or does not suit the targets, there are more
        factors than the data allow, embeddings or the layer have NaN, weights are NaN or negative,
        or there are too few spots to hold any out.

    References
    ----------
    Nonchev et al., DeepSpot: leveraging spatial context for enhanced spatial transcriptomics
    prediction from H&E images, medRxiv 2025.

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom()
    >>> stp.pp.normalize(sdata)
    >>> stp.pp.select_genes(sdata, n_top_genes=10)
    >>> stp.pp.embed(sdata)
    >>> stp.pp.neighbors(sdata)
    >>> stp.settings.verbosity = 0
    >>> model = stp.tl.fit_deepcell(sdata, n_hidden=16, max_epochs=2)
    >>> len(model.genes)
    10
    >>> stp.settings.verbosity = 1
    """
    return fit(
        sdata,
        DEEPCELL,
        Task(
            embedding=embedding,
            context=context,
            genes=genes,
            layer=layer,
            groups=groups,
            sample_weight=sample_weight,
            targets=targets,
            n_factors=n_factors,
            scaling=scaling,
            loss=loss,
            seed=seed,
            device=device,
        ),
        network={
            "n_hidden": n_hidden,
            "n_phi": n_phi,
            "n_rho": n_rho,
            "dropout": dropout,
            "aggregation": aggregation,
        },
        schedule=Schedule(
            max_epochs=max_epochs,
            patience=patience,
            batch_size=batch_size,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            monitor=monitor,
            patch_size=patch_size,
        ),
    )
