"""Fit a CNN to the pixels of tiles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from stpredict import _keys
from stpredict.encoders._load import published_weights
from stpredict.models._methods import CNN
from stpredict.nn._backbones import SMALL
from stpredict.tl._fitting._docs import shared
from stpredict.tl._fitting._pixels import AUGMENTATION, fit_pixels
from stpredict.tl._fitting._task import Kind, Scaling, Task
from stpredict.training import Augmentation, Schedule

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from spatialdata import SpatialData
    from torch import nn

    from stpredict.models import Model


@shared(held_out="early stopping")
def fit_cnn(
    sdata: SpatialData,
    *,
    backbone: str = SMALL,
    tile_um: float = 112.0,
    tile_px: int = 112,
    pretrained: bool | str | Path = False,
    trainable: int | None = None,
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
    weight_decay: float = 1e-4,
    batch_size: int = 32,
    max_epochs: int = 50,
    patience: int = 5,
    decay: Literal["constant", "cosine"] = "constant",
    monitor: Literal["loss", "pearson", "spearman"] = "loss",
    seed: int = 0,
    device: str = "auto",
) -> Model:
    """Fit a convolutional network to the pixels of the tile around every spot, end to end.

    ST-Net [1]_ is ``backbone="densenet121", pretrained=True`` with ``average_symmetries``; STDL
    [2]_ the small network (:class:`stpredict.nn.TileCNN` tells the differences), for one gene,
    several, or all of them through factors. Tiles are read once, into a temporary file; where
    :func:`stpredict.pp.normalize_stain` was run, its images are read. One group is held out to stop
    early by; the weights of its best epoch are kept. A ridge regression on the texture encoder's
    embedding of the same tiles is fitted beside it, for `evaluate` to compare with. Predictions
    read the images again, a batch of tiles at a time.

    Parameters
    ----------
    sdata
        Training sections with images, a layer to predict (`pp.normalize`), and the genes to
        predict (`pp.select_genes`). Embeddings are not needed.
    backbone
        ``"small"``, or the name of any model of timm.
    tile_um
        Side of a tile in µm.
    tile_px
        Side in pixels at which the network sees it; pathology's pretrained networks are used to
        0.5 µm per pixel, for which 112 µm are 224 px.
    pretrained
        Start from the published weights of a model of timm: True asks the hub, a path is a local
        file of them. False starts from random numbers.
    trainable
        How many of a pretrained backbone's last blocks are trained, and the head; what is frozen
        keeps its batch norm statistics, too. None trains the whole network.
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
        If the layer, a gene or a column is not there, or timm has no such model.
    ValueError
        If no genes are selected, the layer has NaN, a tile is larger than an image or too small
        for the backbone, spots lie outside their image, weights do not fit, or there are too few
        spots to hold any out.
    FileNotFoundError
        If there is no file of weights.
    RuntimeError
        If the hub does not give the weights.
    TypeError
        If ``augmentation`` is none.

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
    >>> stp.settings.verbosity = 0
    >>> model = stp.tl.fit_cnn(sdata, tile_px=16, max_epochs=1)
    >>> stp.tl.predict(sdata, model)
    >>> sdata.tables["predicted"].n_vars
    10
    >>> stp.settings.verbosity = 1
    """
    start = _start(backbone, pretrained, trainable)
    return fit_pixels(
        sdata,
        CNN,
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
        network={"backbone": backbone, "tile_px": tile_px, "trainable": trainable},
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
        start=start,
        noted={"pretrained": pretrained is not False},
    )


def _start(
    backbone: str, pretrained: bool | str | Path, trainable: int | None
) -> Callable[[nn.Module], None] | None:
    """Read the weights to start from, where there are any."""
    if pretrained is False:
        if trainable is not None:
            raise ValueError(
                f"trainable={trainable} freezes the first blocks, which hold random numbers: give "
                "pretrained=True or a file, or leave trainable= out"
            )
        return None
    if backbone == SMALL:
        raise ValueError(
            f"backbone={SMALL!r} has no published weights: leave pretrained= out, or name a model "
            "of timm"
        )
    fill = published_weights(backbone, None if pretrained is True else pretrained)
    return lambda network: fill(network.backbone)  # type: ignore[arg-type]
