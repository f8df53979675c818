"""Changes of tiles that leave their expression as it is, made anew for every batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from stpredict.nn._tiles import N_SYMMETRIES, check_tiles, symmetry

# Ruifrok & Johnston 2001: optical density in R, G, B of haematoxylin, eosin and DAB.
_STAINS = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))
#: Half a grey value: the optical density of black is large, not infinite.
_DARKEST = 0.5 / 255
#: Weights of R, G and B in brightness, ITU-R BT.601, as torchvision has them.
_GREY = (0.2989, 0.587, 0.114)


@dataclass(frozen=True)
class Augmentation:
    """How strongly tiles are changed in training; each tile by numbers of its own.

    At the defaults of the strengths, 0, and with ``flip`` and ``rotate`` off, tiles are left as
    they are.

    Attributes
    ----------
    flip
        Flip half the tiles from left to right, and half upside down.
    rotate
        Turn tiles by 0, 90, 180 or 270 degrees.
    stain
        Multiply the concentrations of haematoxylin, eosin and residual [1]_ by a factor each
        from ``1 - stain`` to ``1 + stain``, in [0, 1]: tissue that is stained more or less [2]_.
        White stays white.
    color
        Multiply brightness, contrast and saturation by a factor each from ``1 - color`` to
        ``1 + color``, in [0, 1].
    blur
        Largest standard deviation of a Gaussian blur, in pixels: focus.

    Raises
    ------
    ValueError
        If a strength is out of its range.

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
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be from 0 to 1: {getattr(self, name)!r}")
        if not 0 <= self.blur < float("inf"):
            raise ValueError(f"blur must be at least 0 px: {self.blur!r}")

    @property
    def is_off(self) -> bool:
        """Whether tiles are left as they are."""
        return self == Augmentation()

    def __call__(self, tiles: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Change tiles.

        Parameters
        ----------
        tiles
            ``(n, 3, h, w)``, uint8, or floats in [0, 1]; square, where they are turned.
        generator
            Of the random numbers, on the CPU; by default torch's own.

        Returns
        -------
        Tensor
            Of the same shape, type and range.

        Raises
        ------
        TypeError, ValueError
            If tiles have another type or shape.
        """
        check_tiles(tiles)
        if self.rotate and tiles.shape[-1] != tiles.shape[-2]:
            raise ValueError(f"tiles that are turned must be square, not {tuple(tiles.shape[-2:])}")
        if len(tiles) == 0 or self.is_off:
            return tiles
        tiles = self._turn(tiles, generator)
        if not (self.stain or self.color or self.blur):
            return tiles
        x = tiles.float() / 255 if tiles.dtype == torch.uint8 else tiles.float()
        if self.stain:
            x = restain(x, self._factors(x, self.stain, generator))
        if self.color:
            x = recolor(x, self._factors(x, self.color, generator))
        if self.blur:
            sigma = self.blur * torch.rand(len(x), generator=generator)
            x = blur(x, sigma.to(x.device), reach=_reach(self.blur))
        if tiles.dtype == torch.uint8:
            return (x * 255).round_().clamp_(0, 255).to(torch.uint8)
        return x.clamp_(0, 1).to(tiles.dtype)

    def _turn(self, tiles: Tensor, generator: torch.Generator | None) -> Tensor:
        """Give every tile one of the symmetries that are allowed."""
        # a flip upside down is one from left to right and half a turn
        allowed = [
            k
            for k in range(N_SYMMETRIES)
            if (self.flip or k < 4)
            and (self.rotate or k % 2 == 0)
            and (self.rotate or self.flip or k == 0)
        ]
        if len(allowed) == 1:
            return tiles
        drawn = torch.randint(len(allowed), (len(tiles),), generator=generator)
        turned = torch.empty_like(tiles)
        for i, k in enumerate(allowed):
            rows = drawn == i
            turned[rows] = symmetry(tiles[rows], k)
        return turned

    @staticmethod
    def _factors(tiles: Tensor, strength: float, generator: torch.Generator | None) -> Tensor:
        """Three factors per tile, (n, 3), around 1."""
        drawn = torch.rand(len(tiles), 3, generator=generator)
        return (1 + strength * (2 * drawn - 1)).to(tiles.device)


def restain(tiles: Tensor, factors: Tensor) -> Tensor:
    """Multiply the concentrations of the stains.

    Parameters
    ----------
    tiles
        (n, 3, h, w) float in [0, 1].
    factors
        (n, 3), of haematoxylin, eosin and residual.
    """
    stains = F.normalize(torch.tensor(_STAINS, dtype=torch.float64), dim=1)
    stains, unmix = (m.to(tiles) for m in (stains, torch.linalg.inv(stains)))
    density = -tiles.clamp(_DARKEST, 1).log()
    # density of a pixel is a row: density @ unmix gives concentrations, @ stains density again
    change = unmix @ (factors[:, :, None] * stains)
    return torch.einsum("nchw,ncd->ndhw", density, change).neg_().exp_().clamp_(0, 1)


def recolor(tiles: Tensor, factors: Tensor) -> Tensor:
    """Multiply brightness, then contrast about the mean grey, then saturation.

    Parameters
    ----------
    tiles
        (n, 3, h, w) float in [0, 1].
    factors
        (n, 3), of brightness, contrast and saturation.
    """
    brightness, contrast, saturation = factors.T[:, :, None, None, None]
    x = (tiles * brightness).clamp_(0, 1)
    mean = _grey(x).mean((-2, -1), keepdim=True)
    x = torch.lerp(mean, x, contrast).clamp_(0, 1)
    return torch.lerp(_grey(x).expand_as(x), x, saturation).clamp_(0, 1)


def _grey(tiles: Tensor) -> Tensor:
    weights = torch.tensor(_GREY, device=tiles.device, dtype=tiles.dtype)
    return (tiles * weights[:, None, None]).sum(1, keepdim=True)


def blur(tiles: Tensor, sigma: Tensor, *, reach: int) -> Tensor:
    """Blur each tile by a Gaussian of its own.

    Parameters
    ----------
    tiles
        (n, 3, h, w) float.
    sigma
        (n,), standard deviations in pixels.
    reach
        Pixels to either side that a Gaussian is cut off at.
    """
    n, channels, height, width = tiles.shape
    reach = min(reach, height - 1, width - 1)  # as far as an image can be mirrored
    offsets = torch.arange(-reach, reach + 1, device=tiles.device, dtype=tiles.dtype)
    # a Gaussian narrower than this is one pixel
    kernel = torch.exp(-((offsets / sigma.clamp(min=1e-3)[:, None]) ** 2) / 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)[:, None, None]
    flat = F.pad(tiles.flatten(0, 1)[None], [reach] * 4, mode="reflect")
    flat = F.conv2d(flat, kernel, groups=n * channels)
    flat = F.conv2d(flat, kernel.transpose(-2, -1), groups=n * channels)
    return flat[0].unflatten(0, (n, channels))


def _reach(sigma: float) -> int:
    """Where a Gaussian has fallen to a hundredth: three standard deviations."""
    return max(1, round(3 * sigma))
