"""Drawn tissue is detected at its position, and measured under every spot."""

from __future__ import annotations

from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import spatialdata as sd
from spatialdata.models import Image2DModel
from spatialdata.transformations import Affine, Scale, get_transformation, set_transformation

import stpredict as stp
from stpredict._sdata import _elements, _provenance
from stpredict._sdata._tissue import TissueMask, stored_tissue_mask
from stpredict.io._shared._assemble import assemble_section
from stpredict.pp._tissue._find import find_tissue

DATA = Path(__file__).parents[3] / "shared" / "data" / "her2st"
MPP = 2.0


def slide(*discs, shape=(1200, 1600), seed=0):
    """White glass with discs (y, x, radius) of tissue, (3, y, x)."""
    rng = np.random.default_rng(seed)
    pixels = np.full((3, *shape), 240.0)
    yy, xx = np.ogrid[: shape[0], : shape[1]]
    for y, x, radius in discs:
        pixels[:, (yy - y) ** 2 + (xx - x) ** 2 <= radius**2] = np.array([[180], [110], [170]])
    return np.clip(pixels + rng.normal(0, 3, pixels.shape), 0, 255).astype(np.uint8)


def section(name="S1", *, pixels=None, mpp=MPP):
    """Spots in the first disc, at its rim, and on the glass."""
    pixels = slide((600, 500, 300)) if pixels is None else pixels
    return assemble_section(
        name,
        image=pixels,
        counts=np.full((4, 2), 200),
        obs_names=["in", "rim", "out", "corner"],
        var_names=["A", "B"],
        positions=np.array([[500, 600], [800, 600], [1300, 600], [3, 3]], dtype=float),
        mpp=mpp,
        diameter_um=60,
    )


@pytest.fixture
def sdata():
    return section()


def image_only(pixels, *, name="slide", **options):
    element = Image2DModel.parse(pixels, dims=("c", "y", "x"), **options)
    return sd.SpatialData(images={name: element})


def mask_at_full_resolution(sdata, image="S1_image"):
    levels = _elements.levels_of(sdata, image)
    mask = stored_tissue_mask(sdata, image, levels[0].shape[1:])
    y, x = np.mgrid[: levels[0].shape[1], : levels[0].shape[2]]
    return mask.contains(np.stack([x, y], axis=-1) + 0.5)


class TestLabels:
    def test_planted_disc(self, sdata):
        assert stp.pp.detect_tissue(sdata) is None
        labels = sdata.labels["S1_image_tissue"]
        assert labels.dtype == np.int32
        # at a coarse resolution
        assert labels.shape == (600, 800)
        y, x = np.mgrid[:1200, :1600] + 0.5
        planted = (y - 600) ** 2 + (x - 500) ** 2 <= 300**2
        mask = mask_at_full_resolution(sdata)
        assert (mask & planted).sum() / (mask | planted).sum() > 0.98

    def test_it_lies_on_the_image_in_every_coordinate_system(self, sdata):
        turned = np.array([[0, -3, 70], [3, 0, 5], [0, 0, 1.0]])
        to_other = Affine(turned, input_axes=("x", "y"), output_axes=("x", "y"))
        set_transformation(sdata.images["S1_image"], to_other, "other")
        stp.pp.detect_tissue(sdata)
        labels = sdata.labels["S1_image_tissue"]
        assert set(get_transformation(labels, get_all=True)) == {"S1_um", "other"}
        for system, pixel in (("S1_um", MPP), ("other", 3.0)):
            one, two = (
                sd.get_extent(element, coordinate_system=system)
                for element in (sdata.images["S1_image"], labels)
            )
            for axis in ("x", "y"):
                np.testing.assert_allclose(one[axis], two[axis], atol=2 * pixel)
        y, x = np.nonzero(np.asarray(labels) > 0)
        affine = get_transformation(labels, "S1_um").to_affine_matrix(("x", "y"), ("x", "y"))
        middle = affine @ [x.mean() + 0.5, y.mean() + 0.5, 1]
        np.testing.assert_allclose(middle[:2], [500 * MPP, 600 * MPP], atol=2 * MPP)

    @pytest.mark.parametrize("method", ["otsu", "felzenszwalb", "weka"])
    def test_methods(self, sdata, method, capsys):
        stp.pp.detect_tissue(sdata, method=method)
        mask = mask_at_full_resolution(sdata)
        area = np.pi * 300**2
        assert 0.95 < mask.sum() / area < 1.2
        record = _provenance.recorded(sdata.tables["table"], "detect_tissue")
        assert (record["method"], record["images"]) == (method, ["S1_image"])
        assert capsys.readouterr().out == ""

    def test_all_pieces_are_kept_and_numbered_and_debris_is_not(self):
        pieces = [(300, 300, 150), (300, 900, 150), (900, 600, 80)]
        sdata = image_only(slide(*pieces, (900, 1200, 15)))
        stp.pp.detect_tissue(sdata)
        levels = _elements.levels_of(sdata, "slide")
        labels = np.asarray(sdata.labels["slide_tissue"])
        assert sorted(np.unique(labels)) == [0, 1, 2, 3]
        mask = stored_tissue_mask(sdata, "slide", levels[0].shape[1:])
        centers = np.array([(x, y) for y, x, _ in [*pieces, (900, 1200, 15)]], dtype=float)
        assert list(mask.contains(centers)) == [True, True, True, False]

    def test_pale_tissue_that_is_enclosed_is_tissue(self):
        pixels = slide((600, 500, 300))
        yy, xx = np.ogrid[:1200, :1600]
        pixels[:, (yy - 600) ** 2 + (xx - 500) ** 2 <= 20**2] = 236  # fat
        pixels[:, (yy - 600) ** 2 + (xx - 650) ** 2 <= 90**2] = 240  # a hole one can look through
        sdata = section(pixels=pixels)
        stp.pp.detect_tissue(sdata)
        mask = mask_at_full_resolution(sdata)
        assert mask[600, 500]
        assert not mask[600, 650]

    def test_glass_that_is_darker_at_the_corners(self):
        pixels = slide((600, 800, 200)).astype(float)
        yy, xx = np.ogrid[:1200, :1600]
        pixels *= 1 - 0.1 * ((yy - 600) ** 2 + (xx - 800) ** 2) / (600**2 + 800**2)
        sdata = image_only(pixels.astype(np.uint8))
        stp.pp.detect_tissue(sdata)
        share = (np.asarray(sdata.labels["slide_tissue"]) > 0).mean()
        assert share == pytest.approx(np.pi * 200**2 / (1200 * 1600), rel=0.05)

    def test_an_image_without_glass_is_all_tissue(self, sdata):
        dark = sdata.images["S1_image"]
        for scale in dark.children:
            dark[scale].ds["image"].data = dark[scale].ds["image"].data // 3
        stp.pp.detect_tissue(sdata)
        assert (np.asarray(sdata.labels["S1_image_tissue"]) == 1).all()

    def test_a_second_call_replaces_the_labels(self, sdata):
        stp.pp.detect_tissue(sdata)
        sdata.labels["S1_image_tissue"].data[:] = 0
        stp.pp.detect_tissue(sdata)
        assert np.asarray(sdata.labels["S1_image_tissue"]).any()
        assert sdata.tables["table"].obs["tissue_fraction"].iloc[0] == 1

    def test_the_share_of_tissue_is_logged(self, sdata, capsys, monkeypatch):
        monkeypatch.setattr(stp.settings, "verbosity", 1)
        stp.pp.detect_tissue(sdata)
        assert "detect_tissue: S1_image: 15 % tissue" in capsys.readouterr().out


class TestResolution:
    """The working resolution does not depend on how the image is stored."""

    @pytest.mark.parametrize("options", [{}, {"scale_factors": [2, 2, 2]}, {"scale_factors": [16]}])
    def test_single_and_multiscale(self, options):
        pixels = slide((1500, 2000, 700), shape=(3001, 4003))
        sdata = image_only(pixels, transformations={"slide_um": Scale([0.5, 0.5], ("x", "y"))})
        if options:
            sdata = image_only(
                pixels, transformations={"slide_um": Scale([0.5, 0.5], ("x", "y"))}, **options
            )
        stp.pp.detect_tissue(sdata)
        labels = sdata.labels["slide_tissue"]
        affine = get_transformation(labels, "slide_um").to_affine_matrix(("x", "y"), ("x", "y"))
        assert 3.9 < affine[0, 0] < 8
        assert 3.9 < affine[1, 1] < 8
        area = (np.asarray(labels) > 0).sum() * affine[0, 0] * affine[1, 1]
        assert area == pytest.approx(np.pi * 350**2, rel=0.02)

    def test_chunks_are_not_held_together(self):
        """A slide whose chunks are computed on demand: no chunk is computed twice."""
        computed = []

        def chunk(block_info=None):
            (_, (y0, y1), (x0, x1)) = block_info[None]["array-location"]
            computed.append((y0, x0))
            yy, xx = np.ogrid[y0:y1, x0:x1]
            inside = (yy - 4000) ** 2 + (xx - 5000) ** 2 < 2500**2
            return np.where(inside, 120, 240).astype(np.uint8)[None].repeat(3, 0)

        chunks = ((3,), (1000,) * 8, (1000,) * 10)
        image = da.map_blocks(chunk, chunks=chunks, dtype=np.uint8, meta=np.empty((0, 0, 0), "u1"))
        pieces, scale = find_tissue([image], mpp=None)
        assert pieces.size < 3e6
        assert len(computed) == len(set(computed)) == 80
        area = (pieces > 0).sum() * scale[0] * scale[1]
        assert area == pytest.approx(np.pi * 2500**2, rel=0.01)


class TestFraction:
    def test_under_spots(self, sdata):
        stp.pp.detect_tissue(sdata)
        fraction = sdata.tables["table"].obs["tissue_fraction"]
        assert fraction.iloc[0] == 1
        assert fraction.iloc[1] == pytest.approx(0.5, abs=0.1)
        assert list(fraction.iloc[2:]) == [0, 0]

    @pytest.mark.parametrize("radius", [1.0, 3.0, 17.0])
    def test_as_counted_pixel_by_pixel(self, radius):
        rng = np.random.default_rng(0)
        coarse = rng.random((12, 15)) < 0.5
        tissue = TissueMask(mask=coarse, scale=(8.0, 8.0), shape_yx=(96, 120))
        centers = rng.uniform(0, 96, (40, 2))
        # fine pixels, a border of glass around
        fine = np.kron(np.pad(coarse, 4), np.ones((80, 80), dtype=bool))
        y, x = (np.mgrid[: fine.shape[0] : 2, : fine.shape[1] : 2] + 0.5) / 10 - 32
        value = fine[::2, ::2]
        shares = tissue.fraction(centers, np.full(40, radius))
        for center, share in zip(centers, shares, strict=True):
            near = (x - center[0]) ** 2 + (y - center[1]) ** 2 <= radius**2
            # small circles have few fine pixels
            assert share == pytest.approx(value[near].mean(), abs=0.04 + 0.08 / radius)

    def test_area_outside_the_image_is_not_tissue(self):
        tissue = TissueMask(mask=np.ones((4, 4), dtype=bool), scale=(2.0, 2.0), shape_yx=(9, 9))
        centers = np.array([[np.nan, 3.0], [-20.0, 3.0], [4.5, 4.5], [8.5, 8.5]])
        np.testing.assert_array_equal(tissue.fraction(centers, np.full(4, 0.4)), [0, 0, 1, 1])

    def test_sections_on_other_images_keep_theirs(self):
        sdata = stp.io.concat([section("S1"), section("S2")])
        stp.pp.detect_tissue(sdata, "S1_image")
        obs = sdata.tables["table"].obs
        first = (obs["region"] == "S1").to_numpy()
        assert obs.loc[first, "tissue_fraction"].notna().all()
        assert obs.loc[~first, "tissue_fraction"].isna().all()
        assert set(sdata.labels) == {"S1_image_tissue"}
        before = obs.loc[first, "tissue_fraction"].copy()
        stp.pp.detect_tissue(sdata, ["S2_image"])
        obs = sdata.tables["table"].obs
        assert obs["tissue_fraction"].notna().all()
        np.testing.assert_array_equal(obs.loc[first, "tissue_fraction"], before)

    def test_without_a_table_all_images(self):
        sdata = image_only(slide((600, 500, 300)))
        sdata.images["other"] = Image2DModel.parse(slide((600, 900, 200)), dims=("c", "y", "x"))
        stp.pp.detect_tissue(sdata)
        assert set(sdata.labels) == {"slide_tissue", "other_tissue"}


class TestFilterSpots:
    def test_uses_the_labels(self, sdata):
        stp.pp.detect_tissue(sdata)
        del sdata.tables["table"].obs["tissue_fraction"]
        sdata.labels["S1_image_tissue"].data[:] = 0
        sdata.labels["S1_image_tissue"].data[:, 400:] = 1
        stp.pp.filter_spots(sdata)
        assert list(sdata.tables["table"].obs["instance_id"]) == ["rim", "out"]

    def test_uses_labels_of_squidpy(self, sdata):
        from squidpy.experimental.im import detect_tissue

        with pytest.warns(FutureWarning, match="area_threshold"):
            detect_tissue(sdata, "S1_image")
        stp.pp.filter_spots(sdata)
        assert list(sdata.tables["table"].obs["instance_id"]) == ["in", "rim"]

    def test_stores_no_labels(self, sdata):
        stp.pp.filter_spots(sdata)
        assert list(sdata.tables["table"].obs["instance_id"]) == ["in", "rim"]
        assert not sdata.labels

    def test_tissue_is_detected_where_the_fraction_is_unknown(self):
        sdata = stp.io.concat([section("S1"), section("S2")])
        stp.pp.detect_tissue(sdata, "S1_image")
        stp.pp.filter_spots(sdata)
        assert list(sdata.tables["table"].obs["instance_id"]) == ["in", "rim"] * 2

    def test_misaligned_labels_are_refused(self, sdata):
        stp.pp.detect_tissue(sdata)
        del sdata.tables["table"].obs["tissue_fraction"]
        labels = sdata.labels["S1_image_tissue"]
        shifted = np.array([[4, 0, 500], [0, 4, 0], [0, 0, 1.0]])
        moved = Affine(shifted, input_axes=("x", "y"), output_axes=("x", "y"))
        set_transformation(labels, {"S1_um": moved}, set_all=True)
        with pytest.raises(ValueError, match=r"rotated or shifted .*stp\.pp\.detect_tissue"):
            stp.pp.filter_spots(sdata)
        set_transformation(labels, {"elsewhere": moved}, set_all=True)
        with pytest.raises(ValueError, match="share no coordinate system: elsewhere and S1_um"):
            stp.pp.filter_spots(sdata)


def test_copy(sdata):
    changed = stp.pp.detect_tissue(sdata, copy=True)
    assert "S1_image_tissue" in changed.labels
    assert "tissue_fraction" in changed.tables["table"].obs
    assert not sdata.labels
    assert "tissue_fraction" not in sdata.tables["table"].obs
    assert "stpredict" not in sdata.tables["table"].uns


def test_survives_zarr(sdata, tmp_path):
    stp.pp.detect_tissue(sdata)
    sdata.write(tmp_path / "a.zarr")
    back = sd.read_zarr(tmp_path / "a.zarr")
    name = "S1_image_tissue"
    np.testing.assert_array_equal(np.asarray(back.labels[name]), np.asarray(sdata.labels[name]))
    one, two = (
        get_transformation(s.labels[name], "S1_um").to_affine_matrix(("x", "y"), ("x", "y"))
        for s in (sdata, back)
    )
    np.testing.assert_allclose(one, two)
    before = back.tables["table"].obs.pop("tissue_fraction")
    stp.pp.filter_spots(back, min_tissue_fraction=0)
    np.testing.assert_array_equal(back.tables["table"].obs["tissue_fraction"], before)
    stp.pp.detect_tissue(back)


def unchanged(sdata):
    return (
        not sdata.labels
        and "tissue_fraction" not in sdata.tables["table"].obs
        and "stpredict" not in sdata.tables["table"].uns
    )


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"images": "S9_image"}, KeyError, "no image 'S9_image'; images: S1_image"),
        ({"images": ["S1_image", "S1_image"]}, ValueError, "images are not unique"),
        ({"images": []}, ValueError, "no images are named; images: S1_image"),
        ({"method": "magic"}, ValueError, "method='magic' is not one of 'otsu', 'felzenszwalb'"),
    ],
)
def test_bad_options(sdata, options, error, message):
    with pytest.raises(error, match=message):
        stp.pp.detect_tissue(sdata, **options)
    assert unchanged(sdata)


@pytest.mark.parametrize("method", ["otsu", "felzenszwalb", "weka"])
@pytest.mark.parametrize("noise", [0, 1])
def test_blank_glass(method, noise):
    pixels = slide() if noise else np.full((3, 1200, 1600), 240, dtype=np.uint8)
    sdata = stp.io.concat([section("S1"), section("S2", pixels=pixels)])
    with pytest.raises(ValueError, match=r"images\['S2_image'\] has no tissue.*method="):
        stp.pp.detect_tissue(sdata, method=method)
    assert unchanged(sdata)
    with pytest.raises(ValueError, match="no spot of section 'S2' would be left"):
        stp.pp.filter_spots(sdata)
    assert unchanged(sdata)


@pytest.mark.parametrize(
    ("channels", "dtype", "message"),
    [
        (1, np.uint8, "has 1 channels of uint8"),
        (4, np.uint8, "has 4 channels of uint8"),
        (3, np.uint16, "has 3 channels of uint16"),
    ],
)
def test_images_other_than_rgb_are_refused(channels, dtype, message):
    sdata = image_only(np.zeros((channels, 600, 600), dtype=dtype))
    with pytest.raises(ValueError, match=message):
        stp.pp.detect_tissue(sdata)
    assert not sdata.labels


def test_a_used_name_is_refused(sdata):
    sdata.images["S1_image_tissue"] = Image2DModel.parse(slide(), dims=("c", "y", "x"))
    with pytest.raises(
        ValueError, match="the name 'S1_image_tissue' of the labels is used by another"
    ):
        stp.pp.detect_tissue(sdata, "S1_image")
    assert unchanged(sdata)


@pytest.mark.parametrize("wrong", [None, "C2"])
def test_other_objects_are_refused(wrong):
    with pytest.raises(TypeError, match="sdata must be a SpatialData"):
        stp.pp.detect_tissue(wrong)


@pytest.mark.skipif(not DATA.is_dir(), reason="HER2ST is not available")
def test_real_sections():
    sdata = stp.datasets.her2st(["C2"], directory=DATA)
    stp.pp.detect_tissue(sdata)
    labels = np.asarray(sdata.labels["C2_image_tissue"])
    assert labels.max() == 1  # one piece
    assert (labels > 0).mean() == pytest.approx(0.168, abs=0.01)
    fraction = sdata.tables["table"].obs["tissue_fraction"]
    assert (fraction > 0.1).all()
    assert (fraction > 0.95).mean() > 0.85
