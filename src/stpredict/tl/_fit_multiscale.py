"""Fit HEVisum's multi-scale network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from stpredict._arguments import checked
from stpredict._sdata._spot_table import open_table
from stpredict.models._methods import MULTISCALE
from stpredict.models._records import Hyperparameters, MultiScaleNetwork
from stpredict.tl._fitting._docs import shared
from stpredict.tl._fitting._runner import Plan, fit_pixels
from stpredict.tl._fitting._values import Task
from stpredict.training import Augmentation, Schedule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spatialdata import SpatialData
    from torch import nn

    from stpredict.models import Model


@checked
@shared(held_out="early stopping")
def fit_multiscale(
    sdata: SpatialData,
    *,
    network: MultiScaleNetwork = MultiScaleNetwork(),
    tile_um: float = 112.0,
    genes: Sequence[str] | None = None,
    layer: str | None = "log1p",
    groups: str | None = None,
    sample_weight: str | None = None,
    targets: Literal["genes", "svd", "nmf", "autoencoder", "high"] = "genes",
    n_factors: int | None = None,
    scaling: Literal["standard", "robust", "none"] | None = None,
    quantile: float | None = None,
    loss: str | nn.Module | None = None,
    augmentation: Augmentation = Augmentation(flip=True, rotate=True, stain=0.1, color=0.1),
    average_symmetries: bool = False,
    schedule: Schedule = Schedule(
        max_epochs=30, batch_size=32, weight_decay=1e-3, decay="cosine", monitor="spearman"
    ),
    seed: int = 0,
    device: str = "auto",
    table_name: str = "table",
) -> Model:
    """Fit HEVisum's network: a tile, its sub-tiles and its centre, each with its own encoder.

    The network is :class:`stpredict.nn.MultiScale`, trained with HEVisum's schedule. HEVisum ranks
    abundances within spots: ``layer="ranks"`` (`pp.rank_expression`). Reading of tiles and held-out
    rows are as in :func:`stpredict.tl.fit_cnn`.

    Parameters
    ----------
    {sdata_pixels}
    network
        Sizes of the network (:class:`stpredict.tl.MultiScaleNetwork`).
    tile_um
        Side of a tile in µm.
    {rows}
    {weight}
    {targets}
    {quantile}
    {loss}
    {tiles}
    {schedule}
    {seed}
    {device}
    {table_name}

    Returns
    -------
    {returns}

    Raises
    ------
    KeyError
        If the layer, a gene or a column does not exist.
    ValueError
        If no genes are selected, the layer contains NaN, a tile does not fit the image or is too
        small to be split, spots lie outside their image or are too few, or a single target is to
        be ranked.
    TypeError
        If ``augmentation`` is not an Augmentation.
    OSError
        If the temporary folder cannot hold the tiles.

    References
    ----------
    Wang, HEVisum: spatial gene expression prediction from H&E histology,
    https://github.com/Dewey-Wang/HEVisum.

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom()
    >>> stp.pp.normalize(sdata)
    >>> stp.pp.select_genes(sdata, n_top_genes=10)
    >>> network = stp.tl.MultiScaleNetwork(tile_px=36, widths=(4, 4, 8, 8), n_tile=8, n_subtile=8)
    >>> schedule = stp.tl.Schedule(max_epochs=1)
    >>> model = stp.tl.fit_multiscale(sdata, network=network, schedule=schedule)
    >>> stp.tl.predict(sdata, model)
    >>> sdata.tables["predicted"].n_vars
    10
    """
    task = Task(
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
    hyperparameters = Hyperparameters(
        network=network,
        schedule=schedule,
        augmentation=augmentation,
        average_symmetries=bool(average_symmetries),
    )
    plan = Plan(MULTISCALE, task, hyperparameters)
    return fit_pixels(open_table(sdata, table_name), plan, tile_um=tile_um, tile_px=network.tile_px)
