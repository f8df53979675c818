"""The texture encoder: colour, texture and nuclei of a tile, without learnt weights."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from stpredict._runtime import single_threaded
from stpredict.encoders import _texture_spatial as spatial

# Optical density in R, G, B of the two stains (Ruifrok & Johnston 2001). The third axis, their
# cross product, is the residual.
_HAEMATOXYLIN = (0.650, 0.704, 0.286)
_EOSIN = (0.072, 0.990, 0.105)

MIN_PX = 48  # leaves 3 x 3 pixels at the coarsest of five levels
_QUANTILES = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)
_CHANNELS = ("R", "G", "B", "OD_R", "OD_G", "OD_B", "H", "E", "residual", "saturation")
_TISSUE_DENSITIES = (0.1, 0.2, 0.4)  # optical density, summed over R, G, B
# Coarse levels take ten tiles of 224 px at a time, which amortises the calls and bounds the memory;
# GPUs need larger chunks.
_CHUNK_PIXELS = {"cpu": 2**19}
_CHUNK_PIXELS_ACCELERATOR = 2**21
_CACHE_PIXELS = 2**17  # at full resolution, two tiles at a time; threads wait less for each other


class Texture(nn.Module):
    r"""Describe H&E tiles by about two hundred handcrafted features, without weights or training.

    Tiles are RGB at 0.5 µm per pixel, with any size from 48 px. Nearly all features are means over
    pixels, so that tiles of different sizes are comparable. Features are invariant to mirroring and
    rotation by 90°, and do not depend on other tiles of the batch.

    Optical density is :math:`-\log_{10}` of the grey value. Fixed stain vectors [1]_ separate it
    into haematoxylin (H), eosin (E) and a residual. H and E are analysed on a pyramid with pixels
    of 0.5, 1, 2, 4 and 8 µm [2]_. The groups of features are:

    colour
        ``*_mean``, ``*_std`` of R, G, B, of their optical densities, of H, E, residual and
        saturation; correlations between channels; skewness of the stains; ``tissue_share_*``, the
        share of the tile above a density threshold.
    quantiles
        ``*_q02`` to ``*_q98`` of H, E and the optical densities, at 2 µm per pixel.
    scales
        For H and E at each level: ``contrast``, the root mean square of the band-pass (logarithm);
        ``sparsity``, its root mean square over its mean absolute value (few strong or many weak
        details); ``polarity``, the share of its power that is darker than the surroundings (0.5 if
        bright and dark details balance); ``gradient`` (logarithm); ``direction`` and ``alignment``,
        the coherence of gradients locally and across the tile, from the structure tensor [3]_
        (fibres versus round cells). ``HE_correlation``, the correlation of the stains at that
        scale. ``clustering_<fine>_<coarse>``, the unevenness of fine details at a coarser scale, as
        in the second order of a wavelet scattering transform [4]_.
    patterns
        ``H_pattern0`` to ``9``: shares of rotation-invariant uniform local binary patterns [5]_ of
        H with pixels of 1, 2 and 4 µm; 0 to 8 brighter neighbours, 9 for any other pattern.
    nuclei
        Blobs of H that exceed their surroundings, at three radii [6]_: ``nuclei_per_mm2``,
        ``nuclei_contrast``; share of area, log area per nucleus, clustering; colour inside (mean,
        std) and ``between_nuclei``. This is an estimate, not a segmentation: touching nuclei merge.

    Densities below one 8-bit grey level count as no contrast, so that blank, black and grey tiles
    have finite features. Features are computed in float32, without gradients.

    References
    ----------
    .. [1] Ruifrok and Johnston, Quantification of histochemical staining by color deconvolution,
       Anal Quant Cytol Histol 23, 2001.
    .. [2] Burt and Adelson, The Laplacian pyramid as a compact image code, IEEE Trans Commun 31,
       1983.
    .. [3] Bigün and Granlund, Optimal orientation detection of linear symmetry, ICCV 1987.
    .. [4] Bruna and Mallat, Invariant scattering convolution networks, IEEE TPAMI 35, 2013.
    .. [5] Ojala, Pietikäinen and Mäenpää, Multiresolution gray-scale and rotation invariant texture
       classification with local binary patterns, IEEE TPAMI 24, 2002.
    .. [6] Lindeberg, Feature detection with automatic scale selection, IJCV 30, 1998.
    """

    def __init__(self) -> None:
        super().__init__()
        stains = functional.normalize(torch.tensor([_HAEMATOXYLIN, _EOSIN]).double(), dim=1)
        residual = functional.normalize(torch.linalg.cross(stains[0], stains[1]), dim=0)
        mixing = torch.cat([stains, residual[None]]).T
        self.mixing: Tensor
        self.unmixing: Tensor
        self.register_buffer("mixing", mixing.float().contiguous(), persistent=False)
        self.register_buffer("unmixing", mixing.inverse().float().contiguous(), persistent=False)
        groups = self._groups(torch.zeros(1, 3, MIN_PX, MIN_PX))
        # in the order of the columns
        self.feature_names: tuple[str, ...] = tuple(n for names, _ in groups for n in names)
        self.dimension: int = len(self.feature_names)

    def forward(self, tiles: Tensor) -> Tensor:
        """Features ``(b, dimension)`` float32 of tiles ``(b, 3, h, w)``, RGB in [0, 1]."""
        _check_input(tiles)
        size = tiles.shape[-2] * tiles.shape[-1]
        pixels = _CHUNK_PIXELS.get(tiles.device.type, _CHUNK_PIXELS_ACCELERATOR)
        if tiles.device.type != "cpu":
            chunks = tiles.split(max(1, pixels // size))
            return torch.cat([self._describe(chunk) for chunk in chunks])
        n_threads = torch.get_num_threads()
        chunks = tiles.split(max(1, min(pixels // size, -(-len(tiles) // n_threads))))
        with single_threaded(n_threads) as pool:
            return torch.cat(list(pool.map(self._describe, chunks)))

    @torch.no_grad()
    def _describe(self, tiles: Tensor) -> Tensor:
        with torch.autocast(tiles.device.type, enabled=False):
            groups = self._groups(tiles.float())
            return torch.cat([values for _, values in groups], dim=1)

    def _groups(self, rgb: Tensor) -> list[spatial.Group]:
        """Names and values of all groups of features, from ``(b, 3, h, w)`` float32."""
        at_once = max(1, _CACHE_PIXELS // (rgb.shape[-2] * rgb.shape[-1]))
        chunks = rgb.split(at_once) if rgb.device.type == "cpu" else (rgb,)
        finest = [self._finest(tiles) for tiles in chunks]
        stains, envelope, statistics, *moments = map(torch.cat, zip(*finest, strict=True))
        levels = [stains]
        for _ in spatial.LEVELS[2:]:
            levels.append(spatial.halve(levels[-1]))
        pyramid = [level[:, :2] for level in levels]
        # halving and mixing commute, and the stains are halved anyway
        density_1um, density_2um = (
            torch.matmul(self.mixing, level.flatten(2)).view_as(level) for level in levels[:2]
        )
        coarse = torch.cat([pyramid[1], density_2um], dim=1)
        quantiles = _quantile_features(coarse, ["H", "E", "OD_R", "OD_G", "OD_B"])
        groups = [*_colour_features(*moments), quantiles]
        groups += spatial.level_features(statistics, spatial.LEVELS[0])
        groups += spatial.scale_features(pyramid, envelope)
        groups += spatial.pattern_features(pyramid)
        return groups + spatial.nuclear_features(pyramid, density_1um)

    def _finest(self, rgb: Tensor) -> tuple[Tensor, ...]:
        """Stains and envelope at 1 µm per pixel, and the statistics at full resolution."""
        channels = rgb.new_empty(len(rgb), len(_CHANNELS), *rgb.shape[-2:])
        density, stains = channels[:, 3:6], channels[:, 6:9]
        torch.clamp(rgb, 0, 1, out=channels[:, :3])
        torch.clamp(rgb, 1 / 255, 1, out=density).log10_().neg_()
        torch.matmul(self.unmixing, density.flatten(2), out=stains.flatten(2))
        statistics, envelope = spatial.level_statistics(stains[:, :2])
        halved = spatial.halve(stains), spatial.halve(envelope)
        return *halved, statistics, *_colour_moments(channels)


def _check_input(tiles: Tensor) -> None:
    """Require RGB in [0, 1] of sufficient size."""
    if not tiles.is_floating_point():
        raise TypeError(f"tiles are {tiles.dtype} instead of RGB in [0, 1]: tiles.float() / 255")
    if tiles.ndim != 4 or tiles.shape[1] != 3 or min(tiles.shape[-2:]) < MIN_PX:
        shape = tuple(tiles.shape)
        raise ValueError(f"tiles must be (b, 3, h, w), sides at least {MIN_PX} px, not {shape}")
    if tiles.numel() == 0:
        return
    low, high = (float(v) for v in tiles.aminmax())
    if not (low >= -0.05 and high <= 1.05):  # also refuses NaN; resampling may overshoot slightly
        raise ValueError(
            f"tiles range from {low:g} to {high:g}; expected RGB in [0, 1]: divide bytes by 255"
        )


def _colour_moments(channels: Tensor) -> tuple[Tensor, ...]:
    """Tissue shares, means, covariances and third moments of channels, which are overwritten."""
    rgb, density, saturation = channels[:, :3], channels[:, 3:6], channels[:, 9]
    # a smooth threshold on the summed density is robust to rounding
    steepness = torch.tensor([4 / t for t in _TISSUE_DENSITIES], device=rgb.device)
    weights = steepness[:, None].expand(len(rgb), -1, 3)
    shares = torch.baddbmm(rgb.new_tensor(-4.0), weights, density.flatten(2)).sigmoid_().mean(-1)
    brightest = rgb.amax(1)
    torch.sub(brightest, rgb.amin(1), out=saturation).div_(brightest.add_(1e-3))
    x = channels.flatten(2)
    average = x.mean(-1)
    x -= average[..., None]
    covariance = torch.bmm(x, x.transpose(1, 2)) / x.shape[-1]
    return shares, average, covariance, x[:, 6:9].square().mul_(x[:, 6:9]).mean(-1)


def _colour_features(
    shares: Tensor, average: Tensor, covariance: Tensor, third_moment: Tensor
) -> list[spatial.Group]:
    """Mean, standard deviation, skewness and correlation of channels at full resolution."""
    std = covariance.diagonal(dim1=1, dim2=2).clamp_min(0).sqrt()
    groups = [([f"{n}_mean" for n in _CHANNELS], average), ([f"{n}_std" for n in _CHANNELS], std)]
    pairs = [(3, 4), (3, 5), (4, 5), (6, 7), (6, 8), (7, 8), (6, 9), (7, 9)]
    first, second = (list(side) for side in zip(*pairs, strict=True))
    labels = [f"{_CHANNELS[i]}_{_CHANNELS[j]}_correlation" for i, j in pairs]
    correlation = spatial.share(covariance[:, first, second], std[:, first] * std[:, second])
    groups.append((labels, correlation))
    skewness = third_moment / (std[:, 6:9] + spatial.GREY_LEVEL) ** 3
    groups.append(([f"{n}_skewness" for n in _CHANNELS[6:9]], skewness))
    groups.append(([f"tissue_share_od{t}" for t in _TISSUE_DENSITIES], shares))
    return groups


def _quantile_features(x: Tensor, names: list[str]) -> spatial.Group:
    """Quantiles of every channel over pixels."""
    values = x.flatten(2)
    # on a CPU, numpy sorts twenty times as fast as torch
    on_cpu = x.device.type == "cpu"
    values = torch.from_numpy(np.sort(values.numpy())) if on_cpu else values.sort().values
    labels, columns = [], []
    for q in _QUANTILES:
        low, weight = divmod(q * (values.shape[-1] - 1), 1)
        columns.append(torch.lerp(values[..., int(low)], values[..., int(low) + 1], weight))
        labels += [f"{n}_q{round(100 * q):02d}" for n in names]
    return labels, torch.cat(columns, dim=1)
