"""HEVisum's network: separate encoders of a tile, its sub-tiles and its middle."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from stpredict.nn._check import check_probabilities, check_sizes
from stpredict.nn._tiles import Normalize, center_of, check_px, split_tiles, zero_linear

_HALF = (0.5, 0.5, 0.5)
_DECODER = (256, 128, 64)
# Sides of the grids to which the maps of the tile, and of sub-tiles, are averaged.
_TILE_POOLS, _SUBTILE_POOLS = (1, 3), (1, 2, 3)


class MultiScale(nn.Module):
    """Three encoders on the pixels of a tile: the whole tile, all sub-tiles, and the middle one.

    Each encoder is a convolution and residual blocks (3 × 3, batch norm, SiLU), two of each width,
    max pooling between the widths; then averages over grids of several sides, and a head of three
    layers. All sub-tiles share weights, and their averages are averaged before the head. The three
    vectors are concatenated into a decoder (256, 128, 64), whose last layer starts at zero.

    ``VisionMLP_MultiTask`` of HEVisum [1]_ also has heads of two layers on sub-tiles, and LeakyReLU
    in the heads and the decoder.

    Parameters
    ----------
    n_targets
        Number of targets.
    n_subtiles
        Number n of an n × n split into sub-tiles. For even n, the middle is a crop of their size.
    tile_px
        Side of the tiles in pixels; the network also takes other sizes.
    widths
        Channels of the first convolution, and of each pair of residual blocks. The encoders of
        sub-tiles omit the last pair.
    n_tile, n_subtile
        Width of the vector of the tile, and of the vectors of the sub-tiles and the middle.
    dropout
        Dropout probability in heads and decoder, in [0, 1).

    Raises
    ------
    ValueError
        If a number is out of its range, or a tile is too small to be split.

    References
    ----------
    .. [1] Wang, HEVisum: spatial gene expression prediction from H&E histology,
       https://github.com/Dewey-Wang/HEVisum.

    Examples
    --------
    >>> import torch
    >>> from stpredict.nn import MultiScale
    >>> MultiScale(35, tile_px=78)(torch.zeros(2, 3, 78, 78, dtype=torch.uint8)).shape
    torch.Size([2, 35])
    """

    # decoder.9 is the last module: two hidden layers of three, one of two, dropout, the output
    output_axes: ClassVar = {"decoder.9.weight": 0, "decoder.9.bias": 0}

    def __init__(
        self,
        n_targets: int,
        *,
        n_subtiles: int = 3,
        tile_px: int = 78,
        widths: Sequence[int] = (32, 64, 128, 256),
        n_tile: int = 128,
        n_subtile: int = 64,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        check_sizes(n_targets=n_targets, n_tile=n_tile, n_subtile=n_subtile)
        check_probabilities(dropout=dropout)
        if n_subtiles < 2:
            raise ValueError(f"n_subtiles={n_subtiles} must be at least 2.")
        if len(widths) < 3 or min(widths) < 1:
            raise ValueError(f"widths={tuple(widths)} must be at least three numbers above 0.")
        self.n_targets, self.n_subtiles, self.tile_px = n_targets, n_subtiles, tile_px
        # the last maps, of the tile and of sub-tiles, need a pixel for each cell of the grids
        tile_least = max(_TILE_POOLS) * 2 ** (len(widths) - 1)
        least_px = max(tile_least, n_subtiles * max(_SUBTILE_POOLS) * 2 ** (len(widths) - 2))
        name = f"{n_subtiles} × {n_subtiles} sub-tiles and {len(widths)} widths"
        check_px(tile_px, least_px, name=name)
        self.normalize = Normalize(_HALF, _HALF, least_px=least_px, name=name)
        self.tile = _Encoder(widths, _TILE_POOLS, n_tile, dropout)
        self.subtiles = _Encoder(widths[:-1], _SUBTILE_POOLS, n_subtile, dropout)
        self.center = _Encoder(widths[:-1], _SUBTILE_POOLS, n_subtile, dropout)
        last = zero_linear(_DECODER[-1], n_targets)
        hidden = list(_head((n_tile + 2 * n_subtile, *_DECODER), dropout))
        # the heads before the decoder end without dropout, and so does its input
        self.decoder = nn.Sequential(*hidden[1:], nn.Dropout(dropout), last)

    def forward(self, tiles: Tensor) -> Tensor:
        """Predict the targets of tiles.

        ``tiles`` are ``(n, 3, h, w)``, square, uint8, or floats in [0, 1]; the result is
        ``(n, n_targets)``. Other types, shapes and sizes raise a TypeError or a ValueError.
        """
        x = self.normalize(tiles)
        if x.shape[-1] != x.shape[-2]:
            raise ValueError(f"Tiles must be square, not {tuple(x.shape[-2:])}.")
        parts = split_tiles(x, self.n_subtiles)
        # sub-tiles are averaged after pooling, before the head, as in HEVisum
        pooled = self.subtiles.pool(parts.flatten(0, 1)).unflatten(0, parts.shape[:2])
        vectors = [
            self.tile.head(self.tile.pool(x)),
            self.subtiles.head(pooled.mean(1)),
            self.center.head(self.center.pool(center_of(x, self.n_subtiles))),
        ]
        return self.decoder(torch.cat(vectors, dim=1))


class _Encoder(nn.Module):
    """Convolutions, averages over grids of several sides, and a head."""

    def __init__(
        self, widths: Sequence[int], pools: Sequence[int], n_out: int, dropout: float
    ) -> None:
        super().__init__()
        layers = _convolution(3, widths[0])
        for n_in, n_maps in itertools.pairwise(widths):
            layers += [nn.MaxPool2d(2), _Residual(n_in, n_maps), _Residual(n_maps, n_maps)]
        self.maps = nn.Sequential(*layers)
        self.pools = nn.ModuleList(nn.AdaptiveAvgPool2d(side) for side in pools)
        n_pooled = widths[-1] * sum(side**2 for side in pools)
        self.head = _head((n_pooled, 4 * n_out, 2 * n_out, n_out), dropout)

    def pool(self, tiles: Tensor) -> Tensor:
        """``(n, 3, h, w)`` to ``(n, maps × (1 + 9 …))``."""
        maps = self.maps(tiles)
        return torch.cat([pool(maps).flatten(1) for pool in self.pools], dim=1)


class _Residual(nn.Module):
    """Two convolutions and a shortcut; as in HEVisum, the sum is not activated again."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(*_convolution(n_in, n_out), *_convolution(n_out, n_out))
        # the shortcut needs a projection only if the width changes
        self.shortcut: nn.Module = nn.Identity()
        if n_in != n_out:
            self.shortcut = nn.Sequential(nn.Conv2d(n_in, n_out, 1), nn.BatchNorm2d(n_out))

    def forward(self, maps: Tensor) -> Tensor:
        return self.convolutions(maps) + self.shortcut(maps)


def _convolution(n_in: int, n_out: int) -> list[nn.Module]:
    return [nn.Conv2d(n_in, n_out, 3, padding=1), nn.BatchNorm2d(n_out), nn.SiLU()]


def _head(widths: Sequence[int], dropout: float) -> nn.Sequential:
    """Dropout, linear, SiLU from each width to the next."""
    layers: list[nn.Module] = []
    for n_in, n_out in itertools.pairwise(widths):
        layers += [nn.Dropout(dropout), nn.Linear(n_in, n_out), nn.SiLU()]
    return nn.Sequential(*layers)
