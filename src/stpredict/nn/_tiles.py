"""Tiles as tensors: what networks are given, sub-tiles, and the eight symmetries of a square."""

from __future__ import annotations

import torch
from torch import Tensor, nn

N_SYMMETRIES = 8


class Normalize(nn.Module):
    """Bring tiles to [0, 1] and normalise each channel; its constants are saved as buffers.

    Parameters
    ----------
    mean, std
        Per channel, on [0, 1].
    least_px
        Side in pixels of the smallest tile the network after it can take.
    name
        Of that network, for the message about a smaller one.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        *,
        least_px: int,
        name: str,
    ) -> None:
        super().__init__()
        self.least_px, self.name = least_px, name
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1))

    def forward(self, tiles: Tensor) -> Tensor:
        """Check ``(n, 3, h, w)``, uint8 or float in [0, 1], and normalise it."""
        check_tiles(tiles)
        check_px(min(tiles.shape[-2:]), self.least_px, name=self.name)
        if tiles.dtype == torch.uint8:
            tiles = tiles.to(self.mean.dtype) / 255
        return (tiles - self.mean) / self.std


def check_tiles(tiles: Tensor) -> None:
    """Raise unless these are RGB tiles, uint8 or float."""
    if tiles.dtype != torch.uint8 and not tiles.is_floating_point():
        msg = f"Tiles are {tiles.dtype}; give torch.uint8, or floats in [0, 1]."
        raise TypeError(msg)
    if tiles.ndim != 4 or tiles.shape[1] != 3:
        msg = f"Tiles must be (n, 3, h, w), RGB, not {tuple(tiles.shape)}."
        raise ValueError(msg)


def check_px(side: int, least: int, *, name: str) -> None:
    """Raise unless a tile is as large as a network needs."""
    if side < least:
        msg = (
            f"A tile of {side} px is too small for {name}, which needs at least {least} px: give "
            f"tile_px={least} or more."
        )
        raise ValueError(msg)


def split_tiles(tiles: Tensor, n: int) -> Tensor:
    """Split square tiles (b, c, h, w) into n × n sub-tiles, row by row, (b, n², c, h // n, w // n).

    Pixels left over by the division are cut off evenly at the borders.
    """
    side = tiles.shape[-1] // n
    start = (tiles.shape[-1] - side * n) // 2
    inner = tiles[..., start : start + side * n, start : start + side * n]
    b, c = tiles.shape[:2]
    grid = inner.reshape(b, c, n, side, n, side).permute(0, 2, 4, 1, 3, 5)
    return grid.reshape(b, n * n, c, side, side)


def center_of(tiles: Tensor, n: int) -> Tensor:
    """Cut the middle of tiles (b, c, h, w), as large as an n-th of their side.

    Where n is odd, this is the sub-tile in the middle.
    """
    side = tiles.shape[-1] // n
    start = (tiles.shape[-1] - side) // 2 if n % 2 == 0 else _middle(tiles.shape[-1], n)
    return tiles[..., start : start + side, start : start + side]


def _middle(px: int, n: int) -> int:
    side = px // n
    return (px - side * n) // 2 + n // 2 * side


def symmetry(tiles: Tensor, k: int) -> Tensor:
    """Turn square tiles by k quarters, k of 0 to 3; of 4 to 7, after a flip from left to right."""
    flipped = tiles.flip(-1) if k >= 4 else tiles
    return torch.rot90(flipped, k % 4, dims=(-2, -1))
