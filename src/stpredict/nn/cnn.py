"""CNNs on the pixels of a tile: STDL's small network, and any backbone of timm."""

from __future__ import annotations

import contextlib
import difflib
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stpredict.nn._tiles import Normalize, check_px

Channels = tuple[float, float, float]

SMALL = "small"
#: Of STDL's small network: convolutions and fully connected layers, as its settings list them.
_CHANNELS, _HIDDEN = (32, 32, 64, 64), (100, 100)
_MIDDLE: Channels = (0.5, 0.5, 0.5)


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
        plan = _plan(backbone)
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


class _Small(nn.Module):
    """STDL's convolutions and fully connected layers, (n, 3, h, w) to (n, 100)."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        for n_in, n_out in zip((3, *_CHANNELS), _CHANNELS, strict=False):
            convolution = nn.Conv2d(n_in, n_out, 3, padding=1)
            self.blocks.append(
                nn.Sequential(convolution, nn.BatchNorm2d(n_out), nn.ReLU(), nn.MaxPool2d(2))
            )
        widths = (_CHANNELS[-1], *_HIDDEN)
        self.hidden = nn.ModuleList(
            nn.Linear(n_in, n_out) for n_in, n_out in zip(widths, _HIDDEN, strict=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        x = x.mean((-2, -1))
        for layer in self.hidden:
            x = F.relu(layer(x))
        return x


@dataclass(frozen=True)
class _Plan:
    """What is known of a backbone before it is built."""

    build: Callable[..., nn.Module]
    fixed: bool
    n_features: int
    least_px: int
    blocks: list[list[str]]
    statistics: tuple[Channels, Channels]


def _plan(backbone: str) -> _Plan:
    """Look at a copy of the backbone that takes no memory, and at tiles' way through it."""
    if backbone == SMALL:
        small = _Small()
        blocks = [
            [f"blocks.{i}.{name}" for name, _ in block.named_parameters()]
            for i, block in enumerate(small.blocks)
        ]
        return _Plan(
            build=_Small,
            fixed=False,
            n_features=_HIDDEN[-1],
            least_px=2 ** len(_CHANNELS),
            blocks=blocks,
            statistics=(_MIDDLE, _MIDDLE),
        )
    import timm
    from timm.models import group_parameters

    config = _config(backbone)
    build = functools.partial(timm.create_model, backbone, num_classes=0)
    with torch.device("meta"):
        network = build().eval()
        whole: Any = timm.create_model(backbone, num_classes=1)
    groups = group_parameters(whole, whole.group_matcher(coarse=True))
    reduction = max((int(info["reduction"]) for info in whole.feature_info), default=1)
    known = config.input_size[-1]
    fixed = bool(config.fixed_input_size)
    return _Plan(
        build=build,
        fixed=fixed,
        n_features=int(_dry_run(network, known).shape[1]),
        least_px=reduction if fixed else _least_px(network, reduction, known),
        # the last group is what stands between the features and the classes: the head
        blocks=[list(groups[key]) for key in sorted(groups)[:-1]],
        statistics=(_three(config.mean), _three(config.std)),
    )


def _config(backbone: str) -> Any:
    """Look a model up in timm."""
    import timm

    try:
        config = timm.get_pretrained_cfg(backbone) if timm.is_model(backbone) else None
    except RuntimeError:  # the model is known, its tag is not
        config = None
    if config is None:
        known = [SMALL, *timm.list_models(), *timm.list_pretrained()]
        near = difflib.get_close_matches(backbone.lower(), known)
        meant = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        msg = f"No backbone {backbone!r}.{meant} There are 'small' and all of timm.list_models()."
        raise KeyError(msg)
    return config


def _three(values: Any) -> Channels:
    r, g, b = values
    return float(r), float(g), float(b)


def _dry_run(network: nn.Module, side: int) -> Tensor:
    with torch.no_grad():
        features: Tensor = network(torch.zeros(1, 3, side, side, device="meta"))
    return features


def _least_px(network: nn.Module, reduction: int, known: int) -> int:
    """Side of the smallest tile that leaves the last feature map a pixel of its own."""
    for side in range(reduction, known):
        # some networks lose further pixels at the borders
        with contextlib.suppress(RuntimeError):
            _dry_run(network, side)
            return side
    return known
