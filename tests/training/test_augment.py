"""Augmentation: comparison with torchvision and scikit-image, ranges and errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as TF

from stpredict.nn._tiles import symmetry
from stpredict.training import Augmentation
from stpredict.training._augment import blur, recolor, restain

STRONG = Augmentation(flip=True, rotate=True, stain=0.5, color=0.5, blur=2.0)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def tiles_of(n=6, px=16, seed=0, dtype=torch.uint8):
    tiles = torch.randint(0, 256, (n, 3, px, px), dtype=torch.uint8, generator=seeded(seed))
    return tiles if dtype == torch.uint8 else (tiles.to(torch.float64) / 255).to(dtype)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float16])
def test_the_default_augmentation_returns_the_same_tiles(dtype):
    tiles = tiles_of(dtype=dtype)
    state = torch.get_rng_state()
    assert Augmentation()(tiles) is tiles
    assert torch.equal(torch.get_rng_state(), state)
    assert Augmentation().is_off


@settings(deadline=None, max_examples=40)
@given(
    st.booleans(),
    st.booleans(),
    st.floats(0, 1),
    st.floats(0, 1),
    st.floats(0, 3),
    st.sampled_from([torch.uint8, torch.float32, torch.float16]),
    st.integers(0, 10**6),
)
def test_shape_type_and_range_are_preserved(flip, rotate, stain, color, sigma, dtype, seed):
    tiles = tiles_of(3, 9, seed, dtype)
    original = tiles.clone()
    augmentation = Augmentation(flip=flip, rotate=rotate, stain=stain, color=color, blur=sigma)
    changed = augmentation(tiles, generator=seeded(seed))
    assert changed.shape == tiles.shape
    assert changed.dtype == dtype
    assert torch.equal(tiles, original)
    if dtype != torch.uint8:
        assert 0 <= changed.min() <= changed.max() <= 1


def test_the_same_seed_gives_the_same_tiles():
    tiles = tiles_of()
    first = STRONG(tiles, generator=seeded(1))
    assert torch.equal(first, STRONG(tiles, generator=seeded(1)))
    assert not torch.equal(first, STRONG(tiles, generator=seeded(2)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        assert torch.equal(first, STRONG(tiles))


@pytest.mark.parametrize(
    "augmentation",
    [
        Augmentation(rotate=True, flip=True),
        Augmentation(stain=0.5),
        Augmentation(color=0.5),
        Augmentation(blur=2.0),
    ],
)
def test_each_tile_is_changed_differently(augmentation):
    tiles = tiles_of(1).expand(8, -1, -1, -1)
    changed = augmentation(tiles, generator=seeded())
    assert len({tuple(tile.flatten().tolist()) for tile in changed}) > 3


@pytest.mark.parametrize(
    ("flip", "rotate", "allowed"),
    [
        (False, True, (0, 1, 2, 3)),
        (True, False, (0, 2, 4, 6)),
        (True, True, range(8)),
    ],
)
def test_flips_and_rotations_are_drawn_from_the_allowed_symmetries(flip, rotate, allowed):
    tiles = tiles_of(200, 3)
    changed = Augmentation(flip=flip, rotate=rotate)(tiles, generator=seeded())
    count = dict.fromkeys(allowed, 0)
    for tile, result in zip(tiles, changed, strict=True):
        matches = [k for k in allowed if torch.equal(symmetry(tile, k), result)]
        assert len(matches) == 1
        count[matches[0]] += 1
    assert min(count.values()) > 200 / len(count) / 2


def test_symmetries_equal_flips_and_rotations_of_torchvision_and_numpy():
    tile = tiles_of(1, 4)
    assert torch.equal(symmetry(tile, 4), TF.horizontal_flip(tile))
    assert torch.equal(symmetry(tile, 6), TF.vertical_flip(tile))
    assert torch.equal(
        symmetry(tile, 1), torch.from_numpy(np.rot90(tile.numpy(), axes=(-2, -1)).copy())
    )


def test_colour_is_changed_as_in_torchvision():
    tiles = tiles_of(4, dtype=torch.float32)
    factors = torch.tensor([[1.3, 1, 1], [1, 0.6, 1], [1, 1, 1.4], [0.8, 1.2, 0.5]])
    changed = recolor(tiles, factors)
    for tile, (brightness, contrast, saturation), result in zip(
        tiles, factors.tolist(), changed, strict=True
    ):
        expected = TF.adjust_brightness(tile, brightness)
        expected = TF.adjust_contrast(expected, contrast)
        expected = TF.adjust_saturation(expected, saturation)
        torch.testing.assert_close(result, expected, rtol=1e-3, atol=1e-3)


def test_blur_equals_that_of_torchvision_with_one_sigma_per_tile():
    tiles = tiles_of(3, dtype=torch.float32)
    sigma = torch.tensor([0.4, 1.0, 2.0])
    changed = blur(tiles, sigma, reach=6)
    for tile, s, result in zip(tiles, sigma.tolist(), changed, strict=True):
        expected = TF.gaussian_blur(tile, kernel_size=[13, 13], sigma=[s, s])
        torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(blur(tiles, torch.zeros(3), reach=6), tiles)


def test_stains_are_separated_as_in_scikit_image():
    from skimage.color import hed_from_rgb, rgb_from_hed

    tiles = torch.rand(3, 3, 8, 8, generator=seeded()) * 0.8 + 0.1
    factors = torch.tensor([[1.0, 1.0, 1.0], [1.4, 1.0, 1.0], [0.7, 1.2, 0.9]])
    changed = restain(tiles, factors)
    for tile, per_stain, result in zip(tiles, factors.numpy(), changed, strict=True):
        density = -np.log(tile.numpy().transpose(1, 2, 0).astype(float))
        expected = np.exp(-(density @ hed_from_rgb * per_stain) @ rgb_from_hed)
        expected = torch.from_numpy(expected.clip(0, 1).transpose(2, 0, 1)).float()
        torch.testing.assert_close(result, expected, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(changed[0], tiles[0], rtol=1e-4, atol=1e-5)


def test_stain_augmentation_does_not_change_white():
    white = torch.full((5, 3, 4, 4), 255, dtype=torch.uint8)
    assert torch.equal(Augmentation(stain=1.0)(white, generator=seeded()), white)


def test_an_empty_batch_stays_empty():
    assert STRONG(tiles_of(0)).shape == (0, 3, 16, 16)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"stain": -0.1}, ValueError, "stain must be from 0 to 1: -0.1"),
        ({"stain": float("nan")}, ValueError, "stain must be from 0 to 1: nan"),
        ({"color": 1.5}, ValueError, "color must be from 0 to 1: 1.5"),
        ({"blur": -1.0}, ValueError, "blur must be at least 0 px: -1.0"),
        ({"blur": float("inf")}, ValueError, "blur must be at least 0 px: inf"),
        ({"flip": 0.5}, TypeError, "flip must be True or False: 0.5"),
    ],
)
def test_invalid_strengths_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        Augmentation(**options)


def test_invalid_tiles_are_refused():
    with pytest.raises(TypeError, match=r"torch\.int64"):
        STRONG(torch.zeros(1, 3, 4, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"must be square to rotate, not \(4, 5\)"):
        STRONG(torch.zeros(1, 3, 4, 5, dtype=torch.uint8))
