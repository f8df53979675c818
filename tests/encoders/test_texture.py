"""Features of the texture encoder on images with planted content."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from stpredict.encoders import _texture_spatial as spatial
from stpredict.encoders.texture import Texture

HAEMATOXYLIN = torch.tensor([0.650, 0.704, 0.286])
EOSIN = torch.tensor([0.072, 0.990, 0.105])


@pytest.fixture(scope="module")
def encoder() -> Texture:
    return Texture()


def stain(haematoxylin: Tensor, eosin: Tensor) -> Tensor:
    """Beer-Lambert image ``(1, 3, h, w)`` of two stain maps ``(h, w)``."""
    h = HAEMATOXYLIN / HAEMATOXYLIN.norm()
    e = EOSIN / EOSIN.norm()
    density = h[:, None, None] * haematoxylin + e[:, None, None] * eosin
    return (10**-density)[None]


def nuclei(count: int, radius_um: float, *, side: int = 224, amount: float = 0.6) -> Tensor:
    """Tissue with ``count`` round nuclei on a jittered grid that do not touch."""
    rng = np.random.default_rng(0)
    per_side = int(np.ceil(np.sqrt(count)))
    pitch = side / per_side
    yy, xx = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    mask = torch.zeros(side, side)
    for cell in rng.permutation(per_side**2)[:count]:
        jitter = rng.uniform(-0.1, 0.1, 2)
        y, x = (np.array(divmod(int(cell), per_side)) + 0.5 + jitter) * pitch
        distance = torch.hypot(yy - y, xx - x)
        mask = torch.maximum(mask, torch.sigmoid(2 * (2 * radius_um - distance)))
    return stain(0.1 + amount * mask, torch.full((side, side), 0.2))


def waves(period_um: float, *, side: int = 224) -> Tensor:
    """Crossed sine waves of haematoxylin."""
    angle = torch.arange(side) * (0.5 * 2 * torch.pi / period_um)
    return stain(0.4 + 0.2 * angle.sin()[:, None] * angle.sin(), torch.full((side, side), 0.2))


def noise(count: int, side: int = 80) -> Tensor:
    """Smooth random tiles ``(count, 3, side, side)``."""
    coarse = torch.rand(count, 3, side // 4, side // 4, generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")


def feature(encoder: Texture, tiles: Tensor, name: str) -> float:
    return float(encoder(tiles)[0, encoder.feature_names.index(name)])


def test_shape_names_and_dtype(encoder: Texture) -> None:
    features = encoder(noise(3))
    assert features.shape == (3, encoder.dimension)
    assert features.dtype == torch.float32
    assert 100 <= encoder.dimension <= 300
    assert len(encoder.feature_names) == encoder.dimension == len(set(encoder.feature_names))


@pytest.mark.parametrize("size", [(48, 48), (75, 75), (74, 75), (101, 60), (224, 224), (300, 300)])
def test_tiles_of_any_size_are_accepted(encoder: Texture, size: tuple[int, int]) -> None:
    features = encoder(torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0)))
    assert features.shape == (2, encoder.dimension)
    assert features.isfinite().all()


def test_it_has_no_weights_and_accepts_an_empty_batch(encoder: Texture) -> None:
    assert not encoder.state_dict()
    assert not list(encoder.parameters())
    assert encoder(torch.zeros(0, 3, 64, 64)).shape == (0, encoder.dimension)


@pytest.mark.parametrize(
    "colour", [(1, 1, 1), (0, 0, 0), (0.5, 0.5, 0.5), (1, 0, 0), (0.9, 0.6, 0.8)]
)
@pytest.mark.parametrize("side", [75, 224])
def test_constant_tiles_have_no_texture(
    encoder: Texture, colour: tuple[float, float, float], side: int
) -> None:
    tile = torch.tensor(colour).view(1, 3, 1, 1).expand(1, 3, side, side).float()
    features = encoder(tile)
    assert features.isfinite().all()
    assert features.abs().max() < 20  # no division by values close to 0
    values = dict(zip(encoder.feature_names, features[0].tolist(), strict=True))
    for name, value in values.items():
        if name.endswith("_std") or "nuclei_per_mm2" in name or "alignment" in name:
            assert value == pytest.approx(0, abs=1e-3), name
    assert values["H_pattern0_1um"] == 1
    assert values["H_contrast_1um"] == pytest.approx(np.log10(0.002), abs=1e-2)


def test_a_tile_does_not_depend_on_its_batch(
    encoder: Texture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stpredict.encoders.texture._CHUNK_PIXELS", {"cpu": 3 * 80 * 80})
    tiles = torch.cat([noise(5), torch.ones(1, 3, 80, 80), torch.zeros(1, 3, 80, 80)])
    together = encoder(tiles)
    alone = torch.cat([encoder(tile[None]) for tile in tiles])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    shuffled = torch.randperm(len(tiles), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(encoder(tiles[shuffled]), together[shuffled], rtol=1e-4, atol=1e-5)


def test_repeated_calls_and_new_encoders_agree(encoder: Texture) -> None:
    tiles = noise(4)
    assert torch.equal(encoder(tiles), encoder(tiles))
    assert torch.equal(encoder(tiles), Texture()(tiles))


def test_the_input_of_any_layout_is_unchanged(encoder: Texture) -> None:
    tiles = noise(2)
    expected, copy = encoder(tiles), tiles.clone()
    assert torch.equal(tiles, copy)
    torch.testing.assert_close(encoder(tiles.to(memory_format=torch.channels_last)), expected)
    torch.testing.assert_close(encoder(tiles.double()), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(encoder(tiles), expected)


@pytest.mark.parametrize("size", [(75, 75), (80, 80), (80, 75)])
@pytest.mark.parametrize("turn", ["mirror", "upside down", "quarter", "transpose"])
def test_features_are_invariant_to_mirroring_and_rotation(
    encoder: Texture, size: tuple[int, int], turn: str
) -> None:
    tiles = noise(3, 80)[..., : size[0], : size[1]]
    turned = {
        "mirror": tiles.flip(-1),
        "upside down": tiles.flip(-2),
        "quarter": tiles.rot90(1, (-2, -1)),
        "transpose": tiles.transpose(-1, -2),
    }[turn]
    torch.testing.assert_close(encoder(turned), encoder(tiles), rtol=1e-3, atol=1e-4)


def test_stains_are_separated(encoder: Texture) -> None:
    h = torch.full((64, 64), 0.35)
    e = torch.full((64, 64), 0.15)
    assert feature(encoder, stain(h, e), "H_mean") == pytest.approx(0.35, abs=1e-3)
    assert feature(encoder, stain(h, e), "E_mean") == pytest.approx(0.15, abs=1e-3)
    assert feature(encoder, stain(h, e), "residual_mean") == pytest.approx(0, abs=1e-3)
    assert feature(encoder, stain(2 * h, e), "H_q50") == pytest.approx(0.7, abs=1e-3)
    assert feature(encoder, stain(2 * h, e), "E_q50") == pytest.approx(0.15, abs=1e-3)


def test_quantiles_and_tissue_share_of_a_half_empty_tile(encoder: Texture) -> None:
    h = torch.zeros(96, 96)
    h[:, 48:] = 0.5
    tile = stain(h, h)
    assert feature(encoder, tile, "tissue_share_od0.2") == pytest.approx(0.5, abs=0.02)
    assert feature(encoder, tile, "H_q10") == pytest.approx(0, abs=1e-3)
    assert feature(encoder, tile, "H_q90") == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("count", [9, 25, 64])
def test_nuclear_density_counts_nuclei(encoder: Texture, count: int) -> None:
    tile = nuclei(count, radius_um=3)
    per_tile = feature(encoder, tile, "nuclei_per_mm2_3um") * 0.112**2
    assert per_tile == pytest.approx(count, rel=0.1)
    area = feature(encoder, tile, "nuclei_area_share") * 112**2 / count
    assert area == pytest.approx(np.pi * 3**2, rel=0.25)


def test_the_nuclear_density_is_the_mean_over_subtiles(encoder: Texture) -> None:
    tile = nuclei(64, radius_um=3)
    parts = [tile[..., y : y + 112, x : x + 112] for y in (0, 112) for x in (0, 112)]
    for name in ("nuclei_area_share", "H_mean", "H_contrast_1um", "E_q50"):
        whole = feature(encoder, tile, name)
        assert np.mean([feature(encoder, p, name) for p in parts]) == pytest.approx(whole, rel=0.1)


def test_larger_and_darker_nuclei_change_area_and_contrast(encoder: Texture) -> None:
    small, large = nuclei(25, radius_um=2.5), nuclei(25, radius_um=5)
    pale = nuclei(25, radius_um=5, amount=0.3)
    name = "nuclei_log_area_um2"
    assert feature(encoder, large, name) > feature(encoder, small, name) + 0.2
    name = "nuclei_H_mean"
    assert feature(encoder, large, name) > feature(encoder, pale, name) + 0.15


@pytest.mark.parametrize(
    ("period_um", "scale"), [(2.5, "0.5um"), (5, "1um"), (10, "2um"), (20, "4um"), (40, "8um")]
)
def test_contrast_is_largest_at_the_scale_of_the_texture(
    encoder: Texture, period_um: float, scale: str
) -> None:
    contrast = {
        s: feature(encoder, waves(period_um), f"H_contrast_{s}")
        for s in ("0.5um", "1um", "2um", "4um", "8um")
    }
    assert max(contrast, key=contrast.__getitem__) == scale


def test_alignment_separates_fibres_from_cells(encoder: Texture) -> None:
    angle = torch.arange(160) * (2 * torch.pi / 20)
    eosin = torch.full((160, 160), 0.2)
    fibres = stain((0.4 + 0.2 * angle.sin())[:, None].expand(160, 160), eosin)
    for name in ("H_alignment_1um", "H_direction_1um"):
        assert feature(encoder, fibres, name) > 0.9
    assert feature(encoder, nuclei(36, radius_um=3), "H_alignment_1um") < 0.2


def test_polarity_separates_dark_from_bright_details(encoder: Texture) -> None:
    dark = nuclei(36, radius_um=2)
    bright = stain(0.8 - (-(dark[0, 0].log10()) - 0.1), torch.full((224, 224), 0.2))
    name = "H_polarity_2um"
    assert feature(encoder, dark, name) > 0.55
    assert feature(encoder, bright, name) < 0.45


def test_clustering_separates_even_from_uneven_details(encoder: Texture) -> None:
    even = nuclei(64, radius_um=2)
    uneven = torch.ones_like(even) * even[..., :1, :1]
    uneven[..., :112, :112] = nuclei(64, radius_um=2, side=224)[..., :112, :112]
    for name in ("nuclei_clustering_8um", "H_clustering_1um_8um"):
        assert feature(encoder, uneven, name) > feature(encoder, even, name)


@pytest.mark.parametrize(
    ("tiles", "error", "message"),
    [
        (torch.zeros(1, 3, 64, 64, dtype=torch.uint8), TypeError, r"uint8.*float\(\) / 255"),
        (torch.zeros(3, 64, 64), ValueError, r"\(3, 64, 64\)"),
        (torch.zeros(1, 4, 64, 64), ValueError, r"\(1, 4, 64, 64\)"),
        (torch.zeros(1, 3, 47, 64), ValueError, "at least 48 px"),
        (torch.full((1, 3, 64, 64), 255.0), ValueError, "divide bytes by 255"),
        (torch.full((1, 3, 64, 64), -2.0), ValueError, "from -2 to -2"),
        (torch.full((1, 3, 64, 64), float("nan")), ValueError, "nan"),
    ],
)
def test_invalid_tiles_are_refused(
    encoder: Texture, tiles: Tensor, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        encoder(tiles)


def test_the_blurs_of_the_nuclear_detectors_equal_repeated_smoothing() -> None:
    x = noise(2)[:, :1, :64, :41]
    rows, columns = (spatial._nucleus_blurs(n, x.device) for n in x.shape[-2:])
    for k, count in enumerate(spatial._NUCLEUS_BLURS.values()):
        expected = x
        for _ in range(count):
            expected = spatial._blur(expected)
        torch.testing.assert_close(rows[k] @ x @ columns[k].T, expected, rtol=0, atol=1e-6)


def test_the_local_maximum_equals_max_pooling() -> None:
    x = torch.rand(2, 3, 20, 31, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.max_pool2d(x, 7, stride=1, padding=3)
    assert torch.equal(spatial._local_maximum(x), expected)


def test_binary_patterns_equal_a_count_pixel_by_pixel() -> None:
    x = torch.rand(2, 9, 12, generator=torch.Generator().manual_seed(0))
    expected = torch.zeros(2, 10)
    ring = [(-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1)]
    for tile, i, j in np.ndindex(2, 7, 10):
        centre = x[tile, i + 1, j + 1] + spatial._PATTERN_MARGIN
        bits = [bool(x[tile, i + 1 + di, j + 1 + dj] > centre) for di, dj in ring]
        changes = sum(bit != bits[k - 1] for k, bit in enumerate(bits))
        expected[tile, sum(bits) if changes <= 2 else 9] += 1 / 70
    torch.testing.assert_close(spatial._binary_patterns(x), expected)


def test_large_batches_equal_single_tiles_at_any_number_of_threads(encoder: Texture) -> None:
    tiles = noise(23, side=101)
    alone = torch.cat([encoder(tile[None]) for tile in tiles])
    n_threads = torch.get_num_threads()
    try:
        for n in (1, 3):
            torch.set_num_threads(n)
            torch.testing.assert_close(encoder(tiles), alone, rtol=1e-5, atol=1e-5)
    finally:
        torch.set_num_threads(n_threads)
