"""Checks of the sizes and tensors passed to a network."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor


def check_sizes(**sizes: int) -> None:
    """Raise unless all sizes are at least 1."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name}={size} must be at least 1.")


def check_probabilities(**probabilities: float) -> None:
    """Raise unless all probabilities are in [0, 1)."""
    for name, p in probabilities.items():
        if not 0 <= p < 1:
            raise ValueError(f"{name}={p} must be at least 0 and below 1.")


def check_choice(name: str, value: str, choices: Collection[str]) -> None:
    """Raise unless the value is one of the choices."""
    if value not in choices:
        raise ValueError(f"{name}={value!r} is not one of {', '.join(map(repr, choices))}.")


def check_shape(name: str, value: Any, shape: tuple[int | None, ...]) -> None:
    """Raise unless a tensor or an array has this shape; None matches any size."""
    fits = value.ndim == len(shape) and all(
        expected in (None, size) for expected, size in zip(shape, value.shape, strict=True)
    )
    if not fits:
        expected = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(f"{name} has shape {tuple(value.shape)}, but ({expected}) is needed.")


def check_dtype(value: Tensor, expected: torch.dtype) -> None:
    """Raise unless embeddings have the type of the weights, or autocast converts them."""
    casts = torch.is_autocast_enabled(value.device.type) and value.is_floating_point()
    if value.dtype != expected and not casts:
        remedy = f"call .to({expected}) on them"
        raise ValueError(f"Embeddings are {value.dtype}, the weights {expected}; {remedy}.")


def check_mask(mask: Tensor, shape: tuple[int, ...]) -> None:
    """Raise unless the mask of neighbours is boolean and has this shape."""
    if mask.dtype != torch.bool:
        raise ValueError(f"neighbor_mask is {mask.dtype}, but torch.bool is needed; call .bool().")
    check_shape("neighbor_mask", mask, shape)


def check_index(name: str, index: Tensor, n_tiles: int) -> None:
    """Raise unless an index holds rows of the tiles."""
    if index.dtype != torch.int64:
        raise ValueError(f"{name} is {index.dtype}, but torch.int64 is needed; call .long().")
    # reading the values on an accelerator would block until its queue is empty
    if index.device.type == "cpu" and index.numel():
        low, high = map(int, index.aminmax())
        if low < 0 or high >= n_tiles:
            raise ValueError(f"{name} holds rows {low} to {high}, tiles has 0 to {n_tiles - 1}.")
