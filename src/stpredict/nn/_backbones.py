"""Backbones of networks on pixels: STDL's small one, and the properties of timm's."""

from __future__ import annotations

import contextlib
import difflib
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from stpredict.nn._tiles import Channels

SMALL = "small"
# Convolutions and fully connected layers of STDL's small network, as in its settings file.
_CHANNELS, _HIDDEN = (32, 32, 64, 64), (100, 100)
_HALF: Channels = (0.5, 0.5, 0.5)


class SmallCNN(nn.Module):
    """STDL's convolutions and fully connected layers, (n, 3, h, w) to (n, 100)."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        # STDL has no pooling; see TileCNN for the reason to add it
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
        # global average pooling, so that any size of tile fits
        x = x.mean((-2, -1))
        for layer in self.hidden:
            x = layer(x).relu()
        return x


@dataclass(frozen=True)
class Backbone:
    """Properties of a backbone, available before it is built."""

    build: Callable[..., nn.Module]
    fixed: bool  # whether the network takes one size of tile only
    n_features: int  # width of the output
    least_px: int  # side of the smallest tile
    blocks: list[list[str]]  # names of the parameters of each block, from input to output
    statistics: tuple[Channels, Channels]  # mean and standard deviation in pretraining


def find_backbone(name: str) -> Backbone:
    """Read the properties of a backbone from a copy on the meta device, without memory."""
    if name == SMALL:
        blocks = [
            [f"blocks.{i}.{parameter}" for parameter, _ in block.named_parameters()]
            for i, block in enumerate(SmallCNN().blocks)
        ]
        # each block halves the side
        return Backbone(SmallCNN, False, _HIDDEN[-1], 2 ** len(_CHANNELS), blocks, (_HALF, _HALF))
    # timm takes long to import, and the small network does not need it
    import timm
    from timm.models import group_parameters

    config = _pretrained_config(name)
    build = functools.partial(timm.create_model, name, num_classes=0)
    with torch.device("meta"):
        network = build().eval()
        # block groups and feature strides are defined for the network with its classifier
        classifier: Any = timm.create_model(name, num_classes=1)
    groups = group_parameters(classifier, classifier.group_matcher(coarse=True))
    reduction = max((int(info["reduction"]) for info in classifier.feature_info), default=1)
    pretrained_px = config.input_size[-1]
    fixed = bool(config.fixed_input_size)
    return Backbone(
        build=build,
        fixed=fixed,
        n_features=int(_dry_run(network, pretrained_px).shape[1]),
        least_px=reduction if fixed else _least_px(network, reduction, pretrained_px),
        # the last group holds the layers between features and classes: the head
        blocks=[list(groups[key]) for key in sorted(groups)[:-1]],
        statistics=(config.mean, config.std),
    )


def count_weights(name: str) -> int:
    """Number of weights of a timm model without its classifier, counted without memory."""
    import timm

    _pretrained_config(name)  # checks the name
    with torch.device("meta"):
        network = timm.create_model(name, num_classes=0)
    return sum(parameter.numel() for parameter in network.parameters())


def _pretrained_config(name: str) -> Any:
    """Look a model up in timm."""
    import timm

    try:
        config = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    except RuntimeError:  # timm has the model, but not this tag
        config = None
    if config is None:
        names = [SMALL, *timm.list_models(), *timm.list_pretrained()]
        similar = difflib.get_close_matches(name.lower(), names)
        hint = f" Did you mean {' or '.join(map(repr, similar))}?" if similar else ""
        raise KeyError(f"No backbone {name!r}.{hint} Use 'small' or one of timm.list_models().")
    return config


def _dry_run(network: nn.Module, side: int) -> Tensor:
    with torch.no_grad():
        return network(torch.zeros(1, 3, side, side, device="meta"))


def _least_px(network: nn.Module, reduction: int, pretrained_px: int) -> int:
    """Side of the smallest tile whose last feature map has at least one pixel."""
    for side in range(reduction, pretrained_px):
        # networks without padding lose further pixels at the borders
        with contextlib.suppress(RuntimeError):
            _dry_run(network, side)
            return side
    return pretrained_px
