"""CNNs on the pixels of a tile: STDL's small network, and any backbone of timm."""

from __future__ import annotations

from torch import Tensor, nn

from stpredict.nn._backbones import SMALL, plan_of
from stpredict.nn._tiles import Normalize, check_px


class TileCNN(nn.Module):
    """A convolutional network from the pixels of a tile to the targets, trained end to end.

    The backbone gives one vector per tile, a linear layer the targets. That layer starts at zero,
    as in ST-Net [1]_ and STDL [2]_: of standardised targets, the first prediction is their mean.
    Pixels are normalised inside, with the mean and standard deviation the backbone's published
    weights were trained with, so that a saved network is complete.

    ``"small"`` is STDL's ConvNet: four convolutions (3 × 3; 32, 32, 64, 64 channels; batch norm,
    ReLU), two fully connected layers of 100. STDL runs it without pooling and flattens 64 maps of
    176 × 176, which takes 198 million weights and one size of tile; here every convolution is
    followed by 2 × 2 max pooling, and the maps are averaged. ST-Net is ``"densenet121"``.

    Parameters
    ----------
    n_targets
        Number of targets: one gene, k genes, factors.
    backbone
        ``"small"``, or the name of any model of timm, such as ``"densenet121"`` or ``"resnet18"``.
    tile_px
        Side of the tiles in pixels. Convolutional backbones take other sizes later, transformers
        are built for this one.
    trainable
        How many of the backbone's last blocks are trained; the head always is. Blocks are timm's
        own coarse groups: the stages of a ResNet, the dense blocks of a DenseNet, the layers of a
        transformer, and the stem. What is frozen stays in evaluation mode, so that its batch norm
        keeps its statistics. ``None`` trains the whole network.

    Raises
    ------
    KeyError
        If timm has no such model.
    ValueError
        If a number is out of its range, or a tile is too small for the backbone.

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
    >>> network = TileCNN(250, tile_px=64).eval()
    >>> network(torch.zeros(2, 3, 64, 64, dtype=torch.uint8)).shape
    torch.Size([2, 250])
    """

    def __init__(
        self,
        n_targets: int,
        *,
        backbone: str = SMALL,
        tile_px: int = 224,
        trainable: int | None = None,
    ) -> None:
        super().__init__()
        for name, value in {"n_targets": n_targets, "tile_px": tile_px}.items():
            if value < 1:
                msg = f"{name}={value} must be at least 1."
                raise ValueError(msg)
        self.n_targets, self.tile_px, self.trainable = n_targets, tile_px, trainable
        self.name = backbone
        plan = plan_of(backbone)
        check_px(tile_px, plan.least_px, name=repr(backbone))
        if trainable is not None and not 0 <= trainable <= len(plan.blocks):
            msg = (
                f"trainable={trainable} must be 0 to {len(plan.blocks)}, the number of blocks of "
                f"{backbone!r}, or None for the whole network."
            )
            raise ValueError(msg)
        self.normalize = Normalize(*plan.statistics, least_px=plan.least_px, name=repr(backbone))
        self.fixed = plan.fixed
        self.backbone = plan.build(img_size=tile_px) if plan.fixed else plan.build()
        self.head = nn.Linear(plan.n_features, n_targets)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self._freeze(plan.blocks)

    def forward(self, tiles: Tensor) -> Tensor:
        """Predict the targets of tiles.

        Parameters
        ----------
        tiles
            ``(n, 3, h, w)``, uint8, or floats in [0, 1].

        Returns
        -------
        Tensor
            ``(n, n_targets)``.

        Raises
        ------
        TypeError, ValueError
            If tiles have another type or shape, or are too small for the backbone.
        """
        x = self.normalize(tiles)
        if self.fixed and x.shape[-2:] != (self.tile_px, self.tile_px):
            msg = f"Tiles are {tuple(x.shape[-2:])} px, {self.name!r} was built for {self.tile_px}."
            raise ValueError(msg)
        # One tile has no statistics of a batch: where its last maps are one pixel each, batch norm
        # cannot even be computed.
        alone = self.training and len(x) == 1
        if alone:
            for module in self.backbone.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        predicted: Tensor = self.head(self.backbone(x))
        if alone:
            self.train()
        return predicted

    def train(self, mode: bool = True) -> TileCNN:
        """Set the mode; what is frozen stays in evaluation mode."""
        super().train(mode)
        for module in self.backbone.modules():
            parameters = list(module.parameters())
            if parameters and not any(p.requires_grad for p in parameters):
                module.eval()
        return self

    def _freeze(self, blocks: list[list[str]]) -> None:
        """Freeze all but the last blocks, by the names of their parameters."""
        if self.trainable is None:
            return
        frozen = {name for block in blocks[: len(blocks) - self.trainable] for name in block}
        for name, parameter in self.backbone.named_parameters():
            parameter.requires_grad_(name not in frozen)
        self.train()  # runners that keep each module's mode would find frozen ones in training
