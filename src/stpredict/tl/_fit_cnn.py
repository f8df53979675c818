"""Fit a convolutional network to tiles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from stpredict._arguments import checked
from stpredict._sdata._spot_table import open_table
from stpredict.encoders._load import published_weights
from stpredict.models._methods import CNN
from stpredict.models._records import CNNNetwork, Hyperparameters
from stpredict.nn._backbones import SMALL
from stpredict.tl._fitting._docs import shared
from stpredict.tl._fitting._runner import Plan, fit_pixels
from stpredict.tl._fitting._values import Task
from stpredict.training import Augmentation, Schedule

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from spatialdata import SpatialData
    from torch import nn

    from stpredict.models import Model


@checked
@shared(held_out="early stopping")
def fit_cnn(
    sdata: SpatialData,
    *,
    network: CNNNetwork = CNNNetwork(),
    pretrained: bool | str | Path = False,
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
        max_epochs=50, patience=5, batch_size=32, weight_decay=1e-4, monitor="loss"
    ),
    seed: int = 0,
    device: str = "auto",
    table_name: str = "table",
) -> Model:
    """Fit a convolutional network to the pixels of the tile around every spot, end to end.

    ST-Net [1]_ is ``network=CNNNetwork("densenet121")`` with ``pretrained=True`` and
    ``average_symmetries=True``. STDL [2]_ is the small network
    (:class:`stpredict.nn.TileCNN` lists the differences). Tiles are read once, into a temporary
    file, from the images of :func:`stpredict.pp.normalize_stain` where it was run. The weights of
    the best epoch on a held-out group are kept.

    Parameters
    ----------
    {sdata_pixels}
    network
        Backbone, tile size and trained parts (:class:`stpredict.tl.CNNNetwork`). Pretrained
        networks of pathology expect 0.5 µm per pixel, for which 112 µm are 224 px.
    pretrained
        True for the published weights of a model of timm, a path for a local file of them, False
        for random weights.
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
        If the layer, a gene or a column does not exist, or timm has no such model.
    ValueError
        If no genes are selected, the layer contains NaN, a tile does not fit the image or the
        backbone, spots lie outside their image, weights do not fit, or spots are too few.
    FileNotFoundError
        If the file of weights does not exist.
    RuntimeError
        If the weights cannot be downloaded.
    TypeError
        If ``augmentation`` is not an Augmentation.
    OSError
        If the temporary folder cannot hold the tiles.

    References
    ----------
    .. [1] He et al., Integrating spatial gene expression and breast tumour morphology via deep
       learning, Nature Biomedical Engineering 2020.
    .. [2] Rubin et al., STDL: Spatial Transcriptomics with Deep Learning,
       https://github.com/Roy-Rubin/STDL-Project.

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom()
    >>> stp.pp.normalize(sdata)
    >>> stp.pp.select_genes(sdata, n_top_genes=10)
    >>> network, schedule = stp.tl.CNNNetwork(tile_px=16), stp.tl.Schedule(max_epochs=1)
    >>> model = stp.tl.fit_cnn(sdata, network=network, schedule=schedule)
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
        pretrained=pretrained is not False,
    )
    plan = Plan(CNN, task, hyperparameters, start=_pretrained_start(network, pretrained))
    return fit_pixels(open_table(sdata, table_name), plan, tile_um=tile_um, tile_px=network.tile_px)


def _pretrained_start(
    network: CNNNetwork, pretrained: bool | str | Path
) -> Callable[[nn.Module], None] | None:
    """Read the weights that training starts from, if any."""
    if pretrained is False:
        if network.trainable is not None:
            raise ValueError(
                f"trainable={network.trainable} freezes blocks with random weights: set pretrained="
            )
        return None
    if network.backbone == SMALL:
        problem = f"backbone={SMALL!r} has no published weights: name a model of timm"
        raise ValueError(f"pretrained={pretrained!r}, but {problem}")
    fill = published_weights(network.backbone, None if pretrained is True else pretrained)
    return lambda module: fill(module.backbone)  # type: ignore[arg-type]
