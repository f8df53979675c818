"""Published weights into the backbone of a network that is trained further."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

from stpredict.encoders import _weights
from stpredict.encoders._load import _ask_hub
from stpredict.encoders._registry import timm_record

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn


def published_weights(backbone: str, weights: str | Path | None) -> Callable[[nn.Module], None]:
    """Read the published weights of a model of timm, to be filled in later.

    Parameters
    ----------
    backbone
        Name of the model.
    weights
        Local file, ``.safetensors`` or a torch checkpoint of tensors alone; None asks the hub.

    Returns
    -------
    Callable
        Fills a module of that architecture, whole; raises ValueError where the weights do not fit.

    Raises
    ------
    KeyError
        If timm has no such model.
    FileNotFoundError, ValueError
        If the file is not there, is damaged, or is a pickle that holds more than tensors.
    RuntimeError
        If the hub does not give the weights.
    """
    record = timm_record(f"timm:{backbone}")
    if weights is not None:
        state = _weights.read_state(weights)
    else:
        state = _ask_hub(record, functools.partial(_weights.timm_state, backbone))

    def fill(module: nn.Module) -> None:
        _weights.fill(module, record.convert(dict(state), module), name=backbone)

    return fill
