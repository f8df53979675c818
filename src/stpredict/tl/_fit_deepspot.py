"""Fit DeepSpot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from stpredict import _keys
from stpredict.models._methods import DEEPSPOT
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
def fit_deepspot(
    sdata: SpatialData,
    *,
    embedding: str = "X_texture",
    context: Literal[
        "spot", "spot_subspot", "spot_neighbors", "spot_subspot_neighbors"
    ] = "spot_neighbors",
    genes: Sequence[str] | None = None,
    layer: str | None = _keys.LOG1P,
    groups: str | None = None,
    sample_weight: str | None = None,
    targets: Kind = "genes",
    n_factors: int | None = None,
    scaling: Scaling | None = None,
    loss: str | nn.Module = "mse",
    n_hidden: int = 512,
    n_phi: int = 10,
    n_rho: int = 10,
    dropout: float = 0.3,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-6,
    batch_size: int = 64,
    max_epochs: int = 200,
    patience: int = 10,
    monitor: Literal["loss", "pearson", "spearman"] = "pearson",
    seed: int = 0,
    device: str = "auto",
) -> Model:
    """Fit DeepSpot: a deep set over the embeddings of a spot, its sub-tiles and its neighbours.

    φ (linear, dropout, ReLU; the median of an ensemble) embeds every tile, sub-tiles are summed
    and neighbours reduced by their maximum, ρ (dropout, ReLU, linear; the mean of an ensemble)
    predicts the genes; the spread of ρ's ensemble goes to ``layers["std"]`` of predictions, a
    hint at what the networks disagree on, no error bar. Embeddings and genes are standardised on
    the training rows. One group is held out to stop early by; the weights of its best epoch are
    kept. A ridge regression on the same embedding is fitted beside it, for `evaluate` to compare
    with.

    The learning rate, what early stopping watches and the number of factors were tuned on four
    sections of one breast tumour with the texture encoder, by sections left out of the training
    sections; the rest is as published. There, ``targets="svd"`` predicts better than genes.

    Parameters
    ----------
    sdata
        Training sections, with embeddings (`pp.embed`), for contexts with neighbours a graph
        (`pp.neighbors`), a layer to predict (`pp.normalize`), and the genes to predict
        (`pp.select_genes`).
    embedding
        Slot in ``obsm``.
    context
        What the network looks at beside the spot: sub-tiles (``subspot``), neighbours, both, or
        nothing. Sub-tiles pay with encoders that see detail a whole tile loses at their input
        size; the texture encoder averages over a tile anyway.
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
    {training}
    {monitor}
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
    >>> model = stp.tl.fit_deepspot(sdata, n_hidden=16, max_epochs=2)
    >>> len(model.genes)
    10
    >>> stp.settings.verbosity = 1
    """
    return fit(
        sdata,
        DEEPSPOT,
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
        network={"n_hidden": n_hidden, "n_phi": n_phi, "n_rho": n_rho, "dropout": dropout},
        schedule=Schedule(
            max_epochs=max_epochs,
            patience=patience,
            batch_size=batch_size,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            monitor=monitor,
        ),
    )
