"""The device that tensors are computed on."""

from __future__ import annotations

import torch


def resolve(device: str) -> torch.device:
    """Turn ``"auto"`` into cuda, mps or cpu, whichever is there first."""
    if device != "auto":
        return torch.device(device)
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")
