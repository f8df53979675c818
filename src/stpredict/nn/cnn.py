"""CNNs on the pixels of a tile: STDL's small network, and any backbone of timm."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from stpredict.nn._backbones import find_backbone
from stpredict.nn._check import check_sizes
from stpredict.nn._tiles import Normalize, check_px, zero_linear


class TileCNN(nn.Module):
    """A convolutional network from the pixels of a tile to the targets, trained end to end.

    The backbone gives one vector per tile, and a linear layer maps it to the targets. That layer
    starts at zero, as in ST-Net [1]_ and STDL [2]_. The network normalises pixels itself, with the
    statistics of the backbone's pretraining, so that a saved network is complete.

    ``"small"`` is STDL's ConvNet: four convolutions (3 × 3; 32, 32, 64, 64 channels; batch norm,
    ReLU), two fully connected layers of 100. STDL runs it without pooling and flattens 64 maps of
    176 × 176, which takes 198 million weights and one size of tile; here, each convolution is
    followed by 2 × 2 max pooling, and the maps are averaged. ST-Net is ``"densenet121"``.

    Parameters
    ----------
    n_targets
        Number of targets: one gene, k genes, factors.
    backbone
        ``"small"``, or the name of a timm model, such as ``"densenet121"`` or ``"resnet18"``.
    tile_px
        Side of the tiles in pixels. A convolutional backbone also takes other sizes, a
        transformer is built for this one.
    trainable
        Number of the backbone's last blocks to train, in addition to the head. Blocks are timm's
        coarse groups, such as the stages of a ResNet, and the stem. Frozen blocks stay in
        evaluation mode. ``None`` trains the whole network.

    Raises
    ------
    KeyError, ValueError
        If timm has no such backbone, a number is out of its range, or a tile is too small.

    References
    ----------
    .. [1] He et al., Integrating spatial gene expression and breast tumour morphology via deep
       learning, Nature Biomedical Engineering 2020.
    .. [2] Rubin et al., STDL: Spatial Transcriptomics with Deep Learning,
       https://github.com/Roy-Rubin/STDL-Project.

    Examples
    --------
    >>> import torch
    >>> from stpredict.nn import TileCNN
    >>> TileCNN(250, tile_px=64)(torch.zeros(2, 3, 64, 64, dtype=torch.uint8)).shape
    torch.Size([2, 250])
    """

    output_axes: ClassVar = {"head.weight": 0, "head.bias": 0}

    def __init__(
        self,
        n_targets: int,
        *,
        backbone: str = "small",
        tile_px: int = 224,
        trainable: int | None = None,
    ) -> None:
        super().__init__()
        check_sizes(n_targets=n_targets, tile_px=tile_px)
        self.n_targets, self.tile_px, self.trainable = n_targets, tile_px, trainable
        self.name = backbone
        spec = find_backbone(backbone)
        check_px(tile_px, spec.least_px, name=repr(backbone))
        if trainable is not None and not 0 <= trainable <= len(spec.blocks):
            most = f"{len(spec.blocks)}, the number of blocks"
            raise ValueError(f"trainable={trainable} must be 0 to {most} of {backbone!r}, or None.")
        self.normalize = Normalize(*spec.statistics, least_px=spec.least_px, name=repr(backbone))
        self.fixed = spec.fixed
        self.backbone = spec.build(img_size=tile_px) if spec.fixed else spec.build()
        self.head = zero_linear(spec.n_features, n_targets)
        self._freeze(spec.blocks)

    def forward(self, tiles: Tensor) -> Tensor:
        """Predict the targets of tiles.

        ``tiles`` are ``(n, 3, h, w)``, uint8, or floats in [0, 1]; the result is
        ``(n, n_targets)``. Other types, shapes and sizes raise a TypeError or a ValueError.
        """
        x = self.normalize(tiles)
        if self.fixed and x.shape[-2:] != (self.tile_px, self.tile_px):
            built = f"{self.name!r} was built for {self.tile_px}"
            raise ValueError(f"Tiles are {tuple(x.shape[-2:])} px, {built}.")
        # A single tile has no batch statistics; with last maps of one pixel, batch norm would fail.
        is_single = self.training and len(x) == 1
        if is_single:
            for module in self.backbone.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        predicted: Tensor = self.head(self.backbone(x))
        if is_single:
            self.train()
        return predicted

    def train(self, mode: bool = True) -> TileCNN:
        """Set the mode; frozen blocks stay in evaluation mode."""
        super().train(mode)
        for module in self.backbone.modules():
            # batch norm of frozen modules must keep its pretraining statistics
            parameters = list(module.parameters())
            if parameters and not any(p.requires_grad for p in parameters):
                module.eval()
        return self

    def _freeze(self, blocks: list[list[str]]) -> None:
        """Freeze all but the last ``trainable`` blocks."""
        if self.trainable is None:
            return
        frozen = {name for block in blocks[: len(blocks) - self.trainable] for name in block}
        for name, parameter in self.backbone.named_parameters():
            parameter.requires_grad_(name not in frozen)
        self.train()  # Lightning restores the modes it finds: frozen blocks must not be in training
