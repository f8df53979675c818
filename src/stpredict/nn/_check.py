"""Checks of the tensors that a network is given."""

from __future__ import annotations

import torch
from torch import Tensor


def check_shape(name: str, value: Tensor, shape: tuple[int | None, ...]) -> None:
    """Raise unless the shape is this one, None standing for any size."""
    fits = value.ndim == len(shape) and all(
        wanted in (None, found) for wanted, found in zip(shape, value.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        msg = f"{name} has shape {tuple(value.shape)}, but ({wanted}) is needed."
        raise ValueError(msg)


def check_dtype(value: Tensor, wanted: torch.dtype) -> None:
    """Raise unless embeddings and weights are of one type, or autocast makes them so."""
    casts = torch.is_autocast_enabled(value.device.type) and value.is_floating_point()
    if value.dtype != wanted and not casts:
        msg = f"Embeddings are {value.dtype}, the weights {wanted}; call .to({wanted}) on them."
        raise ValueError(msg)


def check_mask(mask: Tensor, shape: tuple[int, ...]) -> None:
    """Raise unless the mask of neighbours is boolean and of this shape."""
    if mask.dtype != torch.bool:
        msg = f"neighbor_mask is {mask.dtype}, but torch.bool is needed; call .bool()."
        raise ValueError(msg)
    check_shape("neighbor_mask", mask, shape)


def check_index(name: str, index: Tensor, n_tiles: int) -> None:
    """Raise unless these are rows of the tiles."""
    if index.dtype != torch.int64:
        msg = f"{name} is {index.dtype}, but rows of tiles are torch.int64; call .long()."
        raise ValueError(msg)
    # On an accelerator the look would make the host wait for it.
    if index.device.type == "cpu" and index.numel():
        low, high = index.aminmax()
        if low < 0 or high >= n_tiles:
            msg = f"{name} holds rows {int(low)} to {int(high)}, but tiles has 0 to {n_tiles - 1}."
            raise ValueError(msg)


def check_given(
    context: str,
    uses: tuple[bool, bool],
    subtiles: Tensor | None,
    neighbors: Tensor | None,
    neighbor_mask: Tensor | None,
) -> None:
    """Raise unless exactly the inputs that the context takes in are given."""
    given = {"subtiles": subtiles, "neighbors": neighbors}
    for (name, value), used in zip(given.items(), uses, strict=True):
        if used and value is None:
            msg = f"context={context!r} needs {name}, which are missing; pass {name}=."
            raise ValueError(msg)
        if not used and value is not None:
            msg = f"context={context!r} takes no {name}; leave {name}= out."
            raise ValueError(msg)
    if neighbor_mask is not None and neighbors is None:
        msg = f"context={context!r} takes no neighbors; leave neighbor_mask= out."
        raise ValueError(msg)
