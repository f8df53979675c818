"""Which normalisation of its input a network expects."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from torch import nn

from stpredict import _validate

Channels: TypeAlias = tuple[float, float, float]

IMAGENET_MEAN: Channels = (0.485, 0.456, 0.406)
IMAGENET_STD: Channels = (0.229, 0.224, 0.225)
#: Values that change nothing.
NO_MEAN: Channels = (0.0, 0.0, 0.0)
NO_STD: Channels = (1.0, 1.0, 1.0)


def check_normalisation(mean: object, std: object) -> tuple[Channels, Channels] | None:
    """Mean and standard deviation of three channels; None if neither is given."""
    if mean is None and std is None:
        return None
    return _channels("mean", mean, above=-math.inf), _channels("std", std, above=0)


def _channels(name: str, values: object, *, above: float) -> Channels:
    numbers = list(values) if isinstance(values, Iterable) else []
    if len(numbers) != 3 or not all(_validate.is_number(v) and v > above for v in numbers):
        positive = " above 0" if above == 0 else ""
        raise ValueError(
            f"{name} must be three numbers{positive}, for the channels of values in [0, 1]: "
            f"{values!r}. Give mean= and std= together"
        )
    red, green, blue = map(float, numbers)
    return red, green, blue


def expected_normalisation(module: nn.Module) -> tuple[Channels, Channels] | None:
    """Mean and standard deviation that a network of timm or torchvision expects, if any."""
    while isinstance(module, nn.Sequential) and len(module):
        module = module[0]
    config = getattr(module, "pretrained_cfg", None) or getattr(module, "default_cfg", None)
    if isinstance(config, Mapping) and config.get("mean") and config.get("std"):
        expected = check_normalisation(config["mean"], config["std"])
        return None if expected == (NO_MEAN, NO_STD) else expected
    if type(module).__module__.startswith("torchvision.models."):
        return IMAGENET_MEAN, IMAGENET_STD
    return None
