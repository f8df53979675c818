"""Fit HEVisum's multi-scale network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from stpredict import _keys
from stpredict.models._methods import MULTISCALE
from stpredict.tl._fitting._docs import shared
from stpredict.tl._fitting._pixels import AUGMENTATION, fit_pixels
from stpredict.tl._fitting._task import Kind, Scaling, Task
from stpredict.training import Augmentation, Schedule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spatialdata import SpatialData
    from torch import nn

    from stpredict.models import Model


@shared(held_out="early stopping")
def fit_multiscale(
    sdata: SpatialData,
    *,
    tile_um: float = 112.0,
    tile_px: int = 78,
    n_subtiles: int = 3,
    widths: Sequence[int] = (32, 64, 128, 256),
    n_tile: int = 128,
    n_subtile: int = 64,
    dropout: float = 0.1,
    genes: Sequence[str] | None = None,
    layer: str | None = _keys.LOG1P,
    groups: str | None = None,
    sample_weight: str | None = None,
    targets: Kind = "genes",
    n_factors: int | None = None,
    scaling: Scaling | None = None,
    loss: str | nn.Module = "mse",
    augmentation: Augmentation = AUGMENTATION,
    average_symmetries: bool = False,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-3,
    batch_size: int = 32,
    max_epochs: int = 30,
    patience: int = 10,
    decay: Literal["constant", "cosine"] = "cosine",
    monitor: Literal["loss", "pearson", "spearman"] = "spearman",
    seed: int = 0,
    device: str = "auto",
) -> Model:
    """Fit HEVisum's network: a tile, its sub-tiles and its middle, each through its own encoder.

    The network is that of :class:`stpredict.nn.MultiScale`. As HEVisum does, the learning rate
    falls along a cosine and training stops early by the rank correlation within held-out spots;
    learning rate, weight decay, batch size and patience are its. HEVisum ranks abundances within
    spots: ``layer="ranks"`` (`pp.rank_expression`). What is read, held out and fitted beside it is
    as with :func:`stpredict.tl.fit_cnn`.

    Parameters
    ----------
    sdata
        Training sections with images, a layer to predict (`pp.normalize`), and the genes to
        predict (`pp.select_genes`). Embeddings are not needed.
    tile_um
        Side of a tile in µm.
    tile_px
        Side in pixels at which the network sees it.
    n_subtiles
        The network splits each tile into n × n sub-tiles.
    widths
        Channels of the convolutions, from the first to the last.
    n_tile, n_subtile
        Width of the vector of the tile, and of those of the sub-tiles and the middle.
    dropout
        In heads and decoder.
    {rows}
    {weight}
    {targets}
    {loss}
    {tiles}
    {training}
    {decay}
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
        If the layer, a gene or a column is not there.
    ValueError
        If no genes are selected, the layer has NaN, a tile is larger than an image or too small to
        be split, spots lie outside their image, there are too few spots to hold any out, or a
        single target is to be ranked.
    TypeError
        If ``augmentation`` is none.

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
    >>> stp.settings.verbosity = 0
    >>> model = stp.tl.fit_multiscale(
    ...     sdata, tile_px=36, widths=(4, 4, 8, 8), n_tile=8, n_subtile=8, max_epochs=1
    ... )
    >>> stp.tl.predict(sdata, model)
    >>> sdata.tables["predicted"].n_vars
    10
    >>> stp.settings.verbosity = 1
    """
    return fit_pixels(
        sdata,
        MULTISCALE,
        Task(
            embedding="",
            context="spot",
            genes=genes,
            layer=layer,
            groups=groups,
            sample_weight=sample_weight,
            targets=targets,
            n_factors=n_factors,
            scaling=scaling,
            seed=seed,
            device=device,
            loss=loss,
        ),
        tile_um=tile_um,
        network={
            "tile_px": tile_px,
            "n_subtiles": n_subtiles,
            "widths": list(widths),
            "n_tile": n_tile,
            "n_subtile": n_subtile,
            "dropout": dropout,
        },
        schedule=Schedule(
            max_epochs=max_epochs,
            patience=patience,
            batch_size=batch_size,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            decay=decay,
            monitor=monitor,
        ),
        augmentation=augmentation,
        average_symmetries=average_symmetries,
    )
