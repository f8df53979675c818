"""Backbones of networks on pixels: STDL's small one, and what is to be known of timm's."""

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

Channels = tuple[float, float, float]

SMALL = "small"
#: Of STDL's small network: convolutions and fully connected layers, as its settings list them.
_CHANNELS, _HIDDEN = (32, 32, 64, 64), (100, 100)
_MIDDLE: Channels = (0.5, 0.5, 0.5)


class SmallCNN(nn.Module):
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
class Plan:
    """What is known of a backbone before it is built."""

    build: Callable[..., nn.Module]
    fixed: bool
    n_features: int
    least_px: int
    blocks: list[list[str]]
    statistics: tuple[Channels, Channels]


def plan_of(backbone: str) -> Plan:
    """Look at a copy of the backbone that takes no memory, and at tiles' way through it."""
    if backbone == SMALL:
        small = SmallCNN()
        blocks = [
            [f"blocks.{i}.{name}" for name, _ in block.named_parameters()]
            for i, block in enumerate(small.blocks)
        ]
        return Plan(
            build=SmallCNN,
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
    return Plan(
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
