"""Spatial features of the texture encoder: scales, patterns and nuclei."""

# Filters use shifted views and elementwise arithmetic. On a CPU this is several times faster than
# depthwise convolution, and it commutes exactly with mirroring. Borders repeat the edge pixel, so
# that small sub-tiles keep their full area.

from __future__ import annotations

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


def _pad(x: Tensor, dim: int, width: int) -> Tensor:
    """Repeat the edge pixels ``width`` times at both ends of one of the last two dimensions."""
    pad = (0, 0, width, width) if dim == -2 else (width, width, 0, 0)
    return functional.pad(x, pad, mode="replicate")


def _taps(x: Tensor, dim: int, count: int, *, step: int = 1) -> list[Tensor]:
    """Views of ``x`` shifted by 0 to ``count - 1`` pixels along ``dim``, with stride ``step``."""
    length = (x.shape[dim] - count) // step + 1
    stop = step * (length - 1) + 1
    if dim == -2:
        return [x[..., i : i + stop : step, :] for i in range(count)]
    return [x[..., i : i + stop : step] for i in range(count)]


def _blur(x: Tensor) -> Tensor:
    """Smooth with the binomial kernel (1, 4, 6, 4, 1) / 16, a Gaussian with sigma of one pixel."""
    for dim in (-2, -1):
        a, b, c, d, e = _taps(_pad(x, dim, 2), dim, 5)
        x = (a + e).mul_(1 / 16).add_(b + d, alpha=1 / 4).add_(c, alpha=3 / 8)
    return x


def halve(x: Tensor) -> Tensor:
    """Smooth and keep every second pixel, symmetrically for even and odd sides."""
    # Even sides: (1, 3, 3, 1) / 8, odd sides: (1, 8, 14, 8, 1) / 32. Both have a variance of
    # 0.75 px², so that the scale of a level does not depend on the size of the tile.
    for dim in (-2, -1):
        if x.shape[dim] % 2:
            a, b, c, d, e = _taps(_pad(x, dim, 2), dim, 5, step=2)
            x = (a + e).mul_(1 / 32).add_(b + d, alpha=1 / 4).add_(c, alpha=14 / 32)
        else:
            a, b, c, d = _taps(_pad(x, dim, 1), dim, 4, step=2)
            x = (a + d).mul_(1 / 8).add_(b + c, alpha=3 / 8)
    return x


def _gradient(x: Tensor) -> tuple[Tensor, Tensor]:
    """Central differences along y and x, on the interior: ``(b, c, h - 2, w - 2)`` each."""
    gy = (x[..., 2:, 1:-1] - x[..., :-2, 1:-1]).mul_(0.5)
    gx = (x[..., 1:-1, 2:] - x[..., 1:-1, :-2]).mul_(0.5)
    return gy, gx


def _structure(gy: Tensor, gx: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean squared gradient, and its coherent parts within about three pixels and overall."""
    # the structure tensor (Bigün 1987), whose coherence is invariant to rotation
    yy, xx = gy.square(), gx.square()
    energy = (yy + xx).mean((-2, -1))
    difference, product = yy.sub_(xx), gy * gx
    overall = torch.hypot(difference.mean((-2, -1)), 2 * product.mean((-2, -1)))
    # torch.hypot is not vectorised on the CPU
    local = _blur(difference).square_().add_(_blur(product).square_(), alpha=4).sqrt_()
    return energy, local.mean((-2, -1)), overall


def _local_maximum(x: Tensor, radius: int) -> Tensor:
    """Largest value in the square window of ``2 * radius + 1`` pixels around each pixel."""
    for dim in (-2, -1):
        first, *others = _taps(_pad(x, dim, radius), dim, 2 * radius + 1)
        x = first
        for other in others:
            x = torch.maximum(x, other)
    return x


def _binary_patterns(x: Tensor) -> Tensor:
    """Shares (b, 10) of rotation-invariant uniform local binary patterns (Ojala et al. 2002)."""
    # 0 to 8 brighter neighbours in one run of the ring of eight; 9 is any other pattern
    h, w = x.shape[-2:]
    centre = x[:, 1:-1, 1:-1] + _PATTERN_MARGIN  # noise in flat areas gives no pattern
    ring = [(0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0)]
    bits = [(x[:, i : i + h - 2, j : j + w - 2] > centre).to(torch.uint8) for i, j in ring]
    ones, changes = torch.zeros_like(bits[0]), torch.zeros_like(bits[0])
    for k, bit in enumerate(bits):
        ones += bit
        changes += bit ^ bits[k - 1]
    code = torch.where(changes <= 2, ones, 9)
    return torch.stack([(code == k).float().mean((-2, -1)) for k in range(10)], dim=1)


def mean(x: Tensor) -> Tensor:
    """Mean over pixels."""
    return x.mean((-2, -1))


def share(part: Tensor, whole: Tensor) -> Tensor:
    """Ratio of squared contrasts; zero if the contrast is only rounding error."""
    return part / (whole + GREY_LEVEL**2)


def _log(x: Tensor) -> Tensor:
    """Logarithm of a contrast, bounded below by one grey level."""
    return torch.log10(x + GREY_LEVEL)


def scale_features(pyramid: list[Tensor]) -> list[Group]:
    """Band-pass, gradient and envelope statistics of haematoxylin and eosin at each level."""
    groups: list[Group] = []
    envelopes: list[tuple[str, Tensor]] = []
    for x, scale in zip(pyramid, LEVELS, strict=True):
        smooth = _blur(x)
        band = x - smooth
        power, envelope = mean(band.square()), band.abs()
        excess = mean(band.clamp_min(0).square())
        both = mean(band[:, :1] * band[:, 1:])
        energy, local, overall = _structure(*_gradient(smooth))
        root = power.sqrt()
        features = {
            "contrast": _log(root),
            "sparsity": _log(root) - _log(mean(envelope)),
            "polarity": share(excess, power),
            "gradient": _log(energy.sqrt()),
            "direction": local / (energy + GREY_LEVEL**2 / 4),
            "alignment": overall / (energy + GREY_LEVEL**2 / 4),
        }
        groups += [([f"{s}_{n}_{scale}" for s in "HE"], values) for n, values in features.items()]
        groups.append(([f"HE_correlation_{scale}"], share(both, root[:, :1] * root[:, 1:])))
        # unevenness of the envelopes of finer levels at this level
        envelopes = [(n, halve(e)) for n, e in envelopes]
        for fine, e in envelopes[:-1]:
            ratio = _log(mean((e - _blur(e)).abs())) - _log(mean(e))
            groups.append(([f"{s}_clustering_{fine}_{scale}" for s in "HE"], ratio))
        envelopes.append((scale, envelope))
    return groups


def pattern_features(pyramid: list[Tensor]) -> list[Group]:
    """Local binary patterns of haematoxylin at pixels of 1, 2 and 4 µm."""
    return [
        ([f"H_pattern{k}_{LEVELS[i]}" for k in range(10)], _binary_patterns(pyramid[i][:, 0]))
        for i in (1, 2, 3)
    ]


def nuclear_features(pyramid: list[Tensor], density: Tensor) -> list[Group]:
    """Number, size, colour and clustering of haematoxylin blobs."""
    # density: optical density of R, G and B at the second level (1 µm per pixel)
    x = pyramid[1][:, :1]
    size = [x.shape[-2], x.shape[-1]]
    # at 8 µm per pixel, a nucleus is smaller than a pixel
    surroundings = functional.interpolate(_blur(pyramid[4][:, :1]), size=size, mode="bilinear")
    groups: list[Group] = []
    contrasts, counts, heights = {}, {}, {}
    for radius, blurs in _NUCLEUS_BLURS.items():
        smooth = x
        for _ in range(blurs):
            smooth = _blur(smooth)
        contrast = contrasts[radius] = smooth - surroundings
        peak = (contrast >= _local_maximum(contrast, 3)) & (contrast > _NUCLEUS_CONTRAST)
        count = counts[radius] = mean(peak.float())  # per pixel of 1 µm²
        heights[radius] = mean(peak * contrast) / (count + 1e-5)
        groups.append(([f"nuclei_per_mm2_{radius}"], count * 1e6))
        groups.append(([f"nuclei_contrast_{radius}"], heights[radius]))
    # The edge of a nucleus is at half its height. A ramp instead of a step is robust to rounding.
    edge = (heights["2um"] / 2).clamp_min(_NUCLEUS_CONTRAST)[..., None, None]
    mask = ((contrasts["2um"] - 0.7 * edge) / (0.6 * edge)).clamp(0, 1)
    area = mean(mask)
    groups.append((["nuclei_area_share"], area))
    groups.append((["nuclei_log_area_um2"], torch.log10((area + 1e-3) / (counts["3um"] + 1e-4))))
    spread = mean((halve(halve(halve(mask))) - area[..., None, None]).square()).sqrt()
    groups.append((["nuclei_clustering_8um"], spread))
    names = ["H", "E", "OD_R", "OD_G", "OD_B"]
    x = torch.cat([pyramid[1], density], dim=1)
    # the constants give 0 instead of noise if a tile has no nuclei or only nuclei
    inside = mean(mask * x) / (area + 1e-3)
    outside = mean((1 - mask) * x) / (1 - area + 1e-3)
    spread = (mean(mask * (x - inside[..., None, None]).square()) / (area + 1e-3)).sqrt()
    groups.append(([f"nuclei_{n}_mean" for n in names], inside))
    groups.append(([f"nuclei_{n}_std" for n in names], spread))
    groups.append(([f"between_nuclei_{n}_mean" for n in names], outside))
    return groups
