"""Random changes of training tiles that do not change their expression."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from stpredict.nn._tiles import N_SYMMETRIES, check_tiles, symmetry

# Optical density in R, G, B of haematoxylin, eosin and DAB (Ruifrok and Johnston 2001).
_STAINS = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))
# Half a grey level, so that the optical density of black is finite.
_DARKEST = 0.5 / 255
# Weights of R, G and B in brightness (ITU-R BT.601), as in torchvision.
_GREY = (0.2989, 0.587, 0.114)


@dataclass(frozen=True)
class Augmentation:
    """Random augmentation of training tiles, drawn for each tile; by default, none.

    Attributes
    ----------
    flip
        Whether to flip half of the tiles left to right, and half upside down.
    rotate
        Whether to rotate tiles by 0, 90, 180 or 270 degrees.
    stain
        Strength of the stain augmentation [2]_, in [0, 1]. The concentrations of haematoxylin,
        eosin and residual [1]_ are multiplied by factors from ``1 - stain`` to ``1 + stain``.
        White stays white.
    color
        Strength of the colour augmentation, in [0, 1]. Brightness, contrast and saturation are
        multiplied by factors from ``1 - color`` to ``1 + color``.
    blur
        Maximum standard deviation of a Gaussian blur, in pixels.

    Raises
    ------
    TypeError, ValueError
        If ``flip`` or ``rotate`` is not a bool, or a strength is out of its range.

    References
    ----------
    .. [1] Ruifrok and Johnston, Quantification of histochemical staining by color deconvolution,
       Analytical and Quantitative Cytology and Histology 2001.
    .. [2] Tellez et al., Whole-slide mitosis detection in H&E breast histology using PHH3 as a
       reference to train distilled stain-invariant convolutional networks, IEEE Transactions on
       Medical Imaging 2018.

    Examples
    --------
    >>> import torch
    >>> from stpredict.tl import Augmentation
    >>> tiles = torch.full((2, 3, 8, 8), 200, dtype=torch.uint8)
    >>> Augmentation(stain=0.2)(tiles, generator=torch.Generator().manual_seed(0)).dtype
    torch.uint8
    """

    flip: bool = False
    rotate: bool = False
    stain: float = 0.0
    color: float = 0.0
    blur: float = 0.0

    def __post_init__(self) -> None:
        for name in ("flip", "rotate"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name} must be True or False: {getattr(self, name)!r}")
        for name in ("stain", "color"):
            if not 0 <= getattr(self, name) <= 1:  # also true for NaN
                raise ValueError(f"{name} must be from 0 to 1: {getattr(self, name)!r}")
        if not 0 <= self.blur < float("inf"):
            raise ValueError(f"blur must be at least 0 px: {self.blur!r}")

    @property
    def is_off(self) -> bool:
        """Whether tiles are not changed."""
        return self == Augmentation()

    def __call__(self, tiles: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Augment ``(n, 3, h, w)``, uint8, or floats in [0, 1]; square for ``rotate``.

        Numbers are drawn by a generator on the CPU, by default torch's global one. Other types
        and shapes raise a TypeError or a ValueError.
        """
        check_tiles(tiles)
        if self.rotate and tiles.shape[-1] != tiles.shape[-2]:
            raise ValueError(f"Tiles must be square to rotate, not {tuple(tiles.shape[-2:])}.")
        if len(tiles) == 0 or self.is_off:
            return tiles
        tiles = self._flip_and_rotate(tiles, generator)
        if not (self.stain or self.color or self.blur):
            return tiles
        x = tiles.float() / 255 if tiles.dtype == torch.uint8 else tiles.float()
        if self.stain:
            x = restain(x, self._factors(x, self.stain, generator))
        if self.color:
            x = recolor(x, self._factors(x, self.color, generator))
        if self.blur:
            # drawn on the CPU, so that a seed gives the same values on all devices
            sigma = self.blur * torch.rand(len(x), generator=generator)
            # at three standard deviations, a Gaussian has fallen to a hundredth
            x = blur(x, sigma.to(x.device), reach=max(1, round(3 * self.blur)))
        if tiles.dtype == torch.uint8:
            return (x * 255).round_().clamp_(0, 255).to(torch.uint8)
        return x.clamp_(0, 1).to(tiles.dtype)

    def _flip_and_rotate(self, tiles: Tensor, generator: torch.Generator | None) -> Tensor:
        """Apply one of the allowed symmetries to each tile."""
        # symmetries 4 to 7 are flipped left to right; an upside-down flip is that and a half turn
        allowed = [
            k
            for k in range(N_SYMMETRIES)
            if (self.flip or k < 4)
            and (self.rotate or k % 2 == 0)
            and (self.rotate or self.flip or k == 0)
        ]
        if len(allowed) == 1:
            return tiles
        choice = torch.randint(len(allowed), (len(tiles),), generator=generator)
        changed = torch.empty_like(tiles)
        for i, k in enumerate(allowed):
            rows = choice == i
            changed[rows] = symmetry(tiles[rows], k)
        return changed

    @staticmethod
    def _factors(tiles: Tensor, strength: float, generator: torch.Generator | None) -> Tensor:
        """Three factors per tile, (n, 3), around 1."""
        uniform = torch.rand(len(tiles), 3, generator=generator)
        return (1 + strength * (2 * uniform - 1)).to(tiles.device)


def restain(tiles: Tensor, factors: Tensor) -> Tensor:
    """Multiply the concentrations of the stains by ``factors``, (n, 3), in tiles in [0, 1]."""
    stains = F.normalize(torch.tensor(_STAINS, dtype=torch.float64), dim=1)
    stains, unmix = (m.to(tiles) for m in (stains, torch.linalg.inv(stains)))
    density = -tiles.clamp(_DARKEST, 1).log()
    # for a pixel's density as a row, density @ unmix are concentrations, and @ stains density again
    # fold both matrices and the factors into one 3 × 3 matrix per tile
    change = unmix @ (factors[:, :, None] * stains)
    return torch.einsum("nchw,ncd->ndhw", density, change).neg_().exp_().clamp_(0, 1)


def recolor(tiles: Tensor, factors: Tensor) -> Tensor:
    """Multiply brightness, contrast about the mean grey and saturation by ``factors``, (n, 3)."""
    brightness, contrast, saturation = factors.T[:, :, None, None, None]
    x = (tiles * brightness).clamp_(0, 1)
    mean = _grey(x).mean((-2, -1), keepdim=True)
    x = torch.lerp(mean, x, contrast).clamp_(0, 1)
    # lerp extrapolates for factors above 1
    return torch.lerp(_grey(x).expand_as(x), x, saturation).clamp_(0, 1)


def _grey(tiles: Tensor) -> Tensor:
    weights = torch.tensor(_GREY, device=tiles.device, dtype=tiles.dtype)
    return (tiles * weights[:, None, None]).sum(1, keepdim=True)


def blur(tiles: Tensor, sigma: Tensor, *, reach: int) -> Tensor:
    """Blur tiles by Gaussians of ``sigma`` px, (n,), truncated at ``reach`` px to either side."""
    n, channels, height, width = tiles.shape
    reach = min(reach, height - 1, width - 1)  # reflection padding reaches no further
    offsets = torch.arange(-reach, reach + 1, device=tiles.device, dtype=tiles.dtype)
    # narrower Gaussians are a single pixel; avoids a division by 0
    kernel = torch.exp(-((offsets / sigma.clamp(min=1e-3)[:, None]) ** 2) / 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)[:, None, None]
    # all channels of all tiles are groups of one convolution, first along rows, then columns
    flat = F.pad(tiles.flatten(0, 1)[None], [reach] * 4, mode="reflect")
    flat = F.conv2d(flat, kernel, groups=n * channels)
    flat = F.conv2d(flat, kernel.transpose(-2, -1), groups=n * channels)
    return flat[0].unflatten(0, (n, channels))
