"""Spatial features of the texture encoder: scales, patterns and nuclei."""

# Filters use shifted views and elementwise arithmetic. On a CPU this is several times faster than
# depthwise convolution, and it commutes exactly with mirroring. Borders repeat the edge pixel, so
# that small sub-tiles keep their full area.

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

LEVELS = ("0.5um", "1um", "2um", "4um", "8um")  # pixel sizes of the pyramid
# Optical density of one grey level near white; smaller contrasts are rounding error.
GREY_LEVEL = 0.002
_PATTERN_MARGIN = 0.01  # haematoxylin, about the noise of a JPEG
# Radii of the nuclear detectors, and the number of blurs (sigma of one pixel of 1 um) that give a
# Gaussian with sigma = radius / sqrt(2), which responds best to that radius (Lindeberg 1998).
_NUCLEUS_BLURS = {"2um": 2, "3um": 5, "5um": 12}
_NUCLEUS_CONTRAST = 0.1  # least haematoxylin of a nucleus above its surroundings
Group = tuple[list[str], Tensor]  # names of the columns, (b, n_names) values


def _pad(x: Tensor, y_width: int, x_width: int) -> Tensor:
    """Repeat the edge pixels at both ends of the last two dimensions."""
    return functional.pad(x, (x_width, x_width, y_width, y_width), mode="replicate")


def _taps(x: Tensor, dim: int, count: int, *, step: int = 1) -> tuple[Tensor, ...]:
    """Views of ``x`` shifted by 0 to ``count - 1`` pixels along ``dim``, with stride ``step``."""
    return x.unfold(dim, count, step).unbind(-1)


def _blur(x: Tensor, *, scale: float = 1 / 256) -> Tensor:
    """Smooth with the binomial kernel (1, 4, 6, 4, 1) / 16, a Gaussian with sigma of one pixel."""
    x = _pad(x, 2, 2)
    for dim in (-2, -1):
        a, b, c, d, e = _taps(x, dim, 5)
        x = (a + e).add_(b + d, alpha=4).add_(c, alpha=6)
    return x if scale == 1 else x.mul_(scale)


def halve(x: Tensor) -> Tensor:
    """Smooth and keep every second pixel, symmetrically for even and odd sides."""
    # Even sides: (1, 3, 3, 1) / 8, odd sides: (1, 8, 14, 8, 1) / 32. Both have a variance of
    # 0.75 px², so that the scale of a level does not depend on the size of the tile.
    odd = [size % 2 for size in x.shape[-2:]]
    x = _pad(x, 1 + odd[0], 1 + odd[1])
    for dim in (-2, -1):
        if odd[dim]:
            a, b, c, d, e = _taps(x, dim, 5, step=2)
            x = (a + e).add_(b + d, alpha=8).add_(c, alpha=14)
        else:
            a, b, c, d = _taps(x, dim, 4, step=2)
            x = (a + d).add_(b + c, alpha=3)
    return x.mul_(1 / (8 * 4 ** odd[0] * 8 * 4 ** odd[1]))


def _structure(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean squared gradient, and its coherent parts within about three pixels and overall."""
    # twice the central differences on the interior
    gy = x[..., 2:, 1:-1] - x[..., :-2, 1:-1]
    gx = x[..., 1:-1, 2:] - x[..., 1:-1, :-2]
    # the structure tensor (Bigün 1987), whose coherence is invariant to rotation
    squares = gy.square().addcmul_(gx, gx)
    energy = mean(squares)
    difference, product = squares.addcmul_(gx, gx, value=-2), gy.mul_(gx)
    overall = torch.hypot(mean(difference), 2 * mean(product))
    difference, product = _blur(difference, scale=1), _blur(product, scale=1)
    # torch.hypot is not vectorised on the CPU
    local = difference.square_().addcmul_(product, product, value=4).sqrt_()
    return energy / 4, mean(local) / (4 * 256), overall / 4


def _local_maximum(x: Tensor) -> Tensor:
    """Largest value in the square window of seven pixels around each pixel."""
    x = _pad(x, 3, 3)
    for dim in (-2, -1):
        for shift in (1, 2, 3):  # windows of 2, 4 and 7 pixels
            n = x.shape[dim] - shift
            x = torch.maximum(x.narrow(dim, 0, n), x.narrow(dim, shift, n))
    return x


def _binary_patterns(x: Tensor) -> Tensor:
    """Shares (b, 10) of rotation-invariant uniform local binary patterns (Ojala et al. 2002)."""
    n, h, w = x.shape
    centre = x[:, 1:-1, 1:-1] + _PATTERN_MARGIN  # noise in flat areas gives no pattern
    ring = [(0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0)]
    code = torch.arange(n, dtype=torch.int32, device=x.device)[:, None, None] * 256
    bits = torch.zeros_like(centre, dtype=torch.uint8)
    for k, (i, j) in enumerate(ring):
        bits.add_(x[:, i : i + h - 2, j : j + w - 2] > centre, alpha=2**k)
    counts = torch.bincount((bits + code).flatten(), minlength=256 * n).view(n, 256)
    shares = torch.zeros(n, 10, dtype=counts.dtype, device=x.device)
    shares.index_add_(1, _pattern_class().to(x.device), counts)
    return shares / ((h - 2) * (w - 2))


def _pattern_class() -> Tensor:
    """Number of brighter neighbours of the 256 patterns if they are one run in the ring, else 9."""
    bits = torch.arange(256)[:, None] >> torch.arange(8) & 1
    changes = (bits != bits.roll(1, 1)).sum(1)
    return torch.where(changes <= 2, bits.sum(1), 9)


def mean(x: Tensor) -> Tensor:
    """Mean over pixels."""
    return x.mean((-2, -1))


def products(x: Tensor, y: Tensor) -> Tensor:
    """Means over pixels of the products of channels (b, c, h, w) and (b, d, h, w); (b, c, d)."""
    x, y = x.flatten(2), y.flatten(2)
    return torch.bmm(x, y.transpose(1, 2)) / x.shape[-1]


def share(part: Tensor, whole: Tensor) -> Tensor:
    """Ratio of squared contrasts; zero if the contrast is only rounding error."""
    return part / (whole + GREY_LEVEL**2)


def _log(x: Tensor) -> Tensor:
    """Logarithm of a contrast, bounded below by one grey level."""
    return torch.log10(x + GREY_LEVEL)


def level_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Means of haematoxylin's and eosin's band-pass and gradient, (b, 13), and the envelope."""
    smooth = _blur(x)
    band = x - smooth
    envelope = band.abs()
    power, signed = mean(band.square()), mean(band * envelope)
    parts = (power, signed, mean(envelope), *_structure(smooth), mean(band[:, :1] * band[:, 1:]))
    return torch.cat(parts, dim=1), envelope


def level_features(statistics: Tensor, scale: str) -> list[Group]:
    """Band-pass and gradient features of haematoxylin and eosin at a level."""
    parts = statistics[:, :12].unflatten(1, (6, 2)).unbind(1)
    power, signed, magnitude, energy, local, overall = parts
    root = power.sqrt()
    features = {
        "contrast": _log(root),
        "sparsity": _log(root) - _log(magnitude),
        "polarity": share((power + signed) / 2, power),
        "gradient": _log(energy.sqrt()),
        "direction": local / (energy + GREY_LEVEL**2 / 4),
        "alignment": overall / (energy + GREY_LEVEL**2 / 4),
    }
    groups = [([f"{s}_{n}_{scale}" for s in "HE"], values) for n, values in features.items()]
    correlation = share(statistics[:, 12:], root[:, :1] * root[:, 1:])
    return [*groups, ([f"HE_correlation_{scale}"], correlation)]


def scale_features(pyramid: list[Tensor], envelopes: Tensor) -> list[Group]:
    """Features of the levels from the second, and the clustering of finer envelopes at each."""
    # envelopes: of the first level, halved
    groups: list[Group] = []
    previous = envelopes[:, :0]
    for k, (x, scale) in enumerate(zip(pyramid, LEVELS[1:], strict=True)):
        statistics, envelope = level_statistics(x)
        groups += level_features(statistics, scale)
        if k > 0:  # unevenness of the envelopes of finer levels at this level
            e = halve(envelopes)
            names = [f"{s}_clustering_{fine}_{scale}" for fine in LEVELS[:k] for s in "HE"]
            groups.append((names, _log(mean((e - _blur(e)).abs_())) - _log(mean(e))))
            envelopes = torch.cat([e, halve(previous)], dim=1)
        previous = envelope
    return groups


def pattern_features(pyramid: list[Tensor]) -> list[Group]:
    """Local binary patterns of haematoxylin at pixels of 1, 2 and 4 µm."""
    return [
        ([f"H_pattern{k}_{scale}" for k in range(10)], _binary_patterns(x[:, 0]))
        for x, scale in zip(pyramid[:3], LEVELS[1:4], strict=True)
    ]


def nuclear_features(pyramid: list[Tensor], density: Tensor) -> list[Group]:
    """Number, size, colour and clustering of haematoxylin blobs."""
    # density: optical density of R, G and B at 1 µm per pixel, the first level of the pyramid
    x = pyramid[0][:, 0]
    size = [x.shape[-2], x.shape[-1]]
    # at 8 µm per pixel, a nucleus is smaller than a pixel
    surroundings = functional.interpolate(_blur(pyramid[3][:, :1]), size=size, mode="bilinear")
    rows, columns = (_nucleus_blurs(n, x.device) for n in size)
    smooth = [row @ (x @ column.T) for row, column in zip(rows, columns, strict=True)]
    contrast = torch.stack(smooth, dim=1).sub_(surroundings)
    peak = ((contrast >= _local_maximum(contrast)) & (contrast > _NUCLEUS_CONTRAST)).float()
    count = mean(peak)  # per pixel of 1 µm²
    height = mean(peak.mul_(contrast)) / (count + 1e-5)
    groups: list[Group] = []
    for k, radius in enumerate(_NUCLEUS_BLURS):
        groups.append(([f"nuclei_per_mm2_{radius}"], count[:, k : k + 1] * 1e6))
        groups.append(([f"nuclei_contrast_{radius}"], height[:, k : k + 1]))
    # The edge of a nucleus is at half its height. A ramp instead of a step is robust to rounding.
    edge = (height[:, :1] / 2).clamp_min(_NUCLEUS_CONTRAST)[..., None, None]
    mask = (contrast[:, :1] - 0.7 * edge).div_(0.6 * edge).clamp_(0, 1)
    area = mean(mask)
    groups.append((["nuclei_area_share"], area))
    groups.append((["nuclei_log_area_um2"], torch.log10((area + 1e-3) / (count[:, 1:2] + 1e-4))))
    spread = mean((halve(halve(halve(mask))) - area[..., None, None]).square()).sqrt()
    groups.append((["nuclei_clustering_8um"], spread))
    names = ["H", "E", "OD_R", "OD_G", "OD_B"]
    x = torch.cat([pyramid[0], density], dim=1)
    # the constants give 0 instead of noise if a tile has no nuclei or only nuclei
    inside = products(mask, x)[:, 0] / (area + 1e-3)
    outside = products(1 - mask, x)[:, 0] / (1 - area + 1e-3)
    deviation = (x - inside[..., None, None]).square_()
    spread = (products(mask, deviation)[:, 0] / (area + 1e-3)).sqrt()
    groups.append(([f"nuclei_{n}_mean" for n in names], inside))
    groups.append(([f"nuclei_{n}_std" for n in names], spread))
    groups.append(([f"between_nuclei_{n}_mean" for n in names], outside))
    return groups


@lru_cache(maxsize=16)
def _nucleus_blurs(n: int, device: torch.device) -> Tensor:
    """Matrices (3, n, n) that blur along a side of n pixels for each of the nuclear detectors."""
    pixel = torch.arange(n)
    once = torch.zeros(n, n)
    for shift, weight in zip(range(-2, 3), (1, 4, 6, 4, 1), strict=True):
        once += weight / 16 * torch.eye(n)[(pixel + shift).clamp(0, n - 1)]
    powers = [torch.linalg.matrix_power(once, count) for count in _NUCLEUS_BLURS.values()]
    return torch.stack(powers).to(device)
