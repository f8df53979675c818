"""Tiles as tensors: normalisation, sub-tiles, and the eight symmetries of a square."""

from __future__ import annotations

import torch
from torch import Tensor, nn

N_SYMMETRIES = 8
Channels = tuple[float, float, float]


class Normalize(nn.Module):
    """Scale tiles to [0, 1] and normalise each channel; the constants are saved as buffers."""

    mean: Tensor  # per channel, on [0, 1]
    std: Tensor

    def __init__(self, mean: Channels, std: Channels, *, least_px: int, name: str) -> None:
        super().__init__()
        self.least_px = least_px  # side of the smallest tile that the network takes
        self.name = name  # name of the network in error messages
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1))

    def forward(self, tiles: Tensor) -> Tensor:
        """Check ``(n, 3, h, w)``, uint8 or float in [0, 1], and normalise it."""
        check_tiles(tiles)
        check_px(min(tiles.shape[-2:]), self.least_px, name=self.name)
        # convert on the device: uint8 tiles are a quarter of the transfer
        if tiles.dtype == torch.uint8:
            tiles = tiles.to(self.mean.dtype) / 255
        return (tiles - self.mean) / self.std


def zero_linear(n_in: int, n_out: int) -> nn.Linear:
    """Linear layer whose first prediction is 0, the mean of standardised targets."""
    layer = nn.Linear(n_in, n_out)
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def check_tiles(tiles: Tensor) -> None:
    """Raise unless these are RGB tiles, uint8 or float."""
    if tiles.dtype != torch.uint8 and not tiles.is_floating_point():
        raise TypeError(f"Tiles are {tiles.dtype}; pass torch.uint8, or floats in [0, 1].")
    if tiles.ndim != 4 or tiles.shape[1] != 3:
        raise ValueError(f"Tiles must be (n, 3, h, w), RGB, not {tuple(tiles.shape)}.")


def check_px(side: int, least: int, *, name: str) -> None:
    """Raise unless a tile is large enough for a network."""
    if side < least:
        needs = f"which needs at least {least} px: pass tile_px={least} or more"
        raise ValueError(f"A tile of {side} px is too small for {name}, {needs}.")


def split_tiles(tiles: Tensor, n: int) -> Tensor:
    """Split square tiles (b, c, h, w) by rows to (b, n², c, h // n, w // n)."""
    side = tiles.shape[-1] // n
    # pixels that remain after the division are cropped evenly at the borders
    start = (tiles.shape[-1] - side * n) // 2
    inner = tiles[..., start : start + side * n, start : start + side * n]
    b, c = tiles.shape[:2]
    # (b, c, row, y, column, x) to (b, row, column, c, y, x)
    grid = inner.reshape(b, c, n, side, n, side).permute(0, 2, 4, 1, 3, 5)
    return grid.reshape(b, n * n, c, side, side)


def center_of(tiles: Tensor, n: int) -> Tensor:
    """Crop the middle of tiles (b, c, h, w) to an n-th of their side."""
    px, side = tiles.shape[-1], tiles.shape[-1] // n
    # an odd split has a middle sub-tile, which may lie off the exact middle by rounding
    start = (px - side) // 2 if n % 2 == 0 else (px - side * n) // 2 + n // 2 * side
    return tiles[..., start : start + side, start : start + side]


def symmetry(tiles: Tensor, k: int) -> Tensor:
    """Rotate square tiles by k quarter turns for k of 0 to 3; for 4 to 7, flip left-right first."""
    flipped = tiles.flip(-1) if k >= 4 else tiles
    return torch.rot90(flipped, k % 4, dims=(-2, -1))
