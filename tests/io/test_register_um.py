"""Objects from other readers get the µm per pixel of their images."""

from __future__ import annotations

import numpy as np
import pytest
import spatialdata as sd
from spatialdata.models import Image2DModel
from spatialdata.transformations import (
    Affine,
    Identity,
    Scale,
    get_transformation,
    set_transformation,
)

import stpredict as stp
from stpredict._sdata._spot_table import open_table
from stpredict.io._shared._assemble import assemble_section


def random_pixels(height=200, width=260, channels=3, dtype=np.uint8, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, np.iinfo(dtype).max, (height, width, channels), dtype=dtype)


def only_section(sdata):
    (section,) = open_table(sdata).sections
    return section


def mean_colour(tiles):
    return tiles.mean((-2, -1))


def small(name="S1", genes=("A", "B", "C"), *, n=5, mpp=2.0, patient=None, **options):
    rng = np.random.default_rng(len(genes))
    return assemble_section(
        name,
        image=random_pixels(60, 80),
        counts=rng.poisson(3.0, (n, len(genes))),
        obs_names=[f"s{i}" for i in range(n)],
        var_names=list(genes),
        positions=rng.uniform(5, 55, (n, 2)),
        mpp=mpp,
        diameter_um=10,
        patient=patient,
        **options,
    )


def foreign(*, scale=1.0):
    """Elements that share only a pixel coordinate system, as from spatialdata-io."""
    sdata = small()
    set_transformation(
        sdata.images["S1_image"], {"global": Scale([scale, scale], ("x", "y"))}, set_all=True
    )
    set_transformation(sdata.shapes["S1"], {"global": Identity()}, set_all=True)
    return sdata


def test_the_scale_can_be_set_and_corrected():
    sdata = foreign()
    with pytest.raises(ValueError, match=r"µm per pixel .* not known .*stp\.io\.register_um"):
        stp.pp.neighbors(sdata, n_neighbors=2)
    stp.io.register_um(sdata, "S1", mpp=0.5)  # of the only image
    section = only_section(sdata)
    assert section.mpp == 0.5
    np.testing.assert_allclose(section.centers, sdata.tables["table"].obsm["spatial"])
    stp.pp.neighbors(sdata, n_neighbors=2)
    # the pixel coordinate system is kept
    assert set(get_transformation(sdata.shapes["S1"], get_all=True)) == {"global", "S1_um"}
    stp.io.register_um(sdata, "S1", image="S1_image", mpp=0.25)  # may be corrected
    assert only_section(sdata).mpp == 0.25


def test_spots_follow_the_common_system():
    sdata = foreign(
        scale=4.0
    )  # a downscaled image: each of its pixels is four of the common system
    turned = Affine(
        np.array([[0, -1, 70], [1, 0, 3], [0, 0, 1.0]]),
        input_axes=("x", "y"),
        output_axes=("x", "y"),
    )
    set_transformation(sdata.shapes["S1"], {"global": turned}, set_all=True)
    stp.io.register_um(sdata, "S1", image="S1_image", mpp=2.0)
    section = only_section(sdata)
    x, y = sdata.tables["table"].obsm["spatial"].T
    np.testing.assert_allclose(section.centers, np.column_stack([70 - y, x + 3]) / 4)
    assert section.mpp == 2.0
    shapes = sdata.shapes["S1"]
    np.testing.assert_allclose(section.radius_um, shapes["radius"] / 4 * 2.0)


def test_several_systems_may_agree():
    # as spatialdata-io's Visium: hires image and spots share the full resolution and their own
    sdata = foreign()
    set_transformation(
        sdata.images["S1_image"],
        {"V1": Scale([4.0, 4.0], ("x", "y")), "V1_downscaled": Identity()},
        set_all=True,
    )
    quarter = {"V1": Identity(), "V1_downscaled": Scale([0.25, 0.25], ("x", "y"))}
    set_transformation(sdata.shapes["S1"], quarter, set_all=True)
    stp.io.register_um(sdata, "S1", image="S1_image", mpp=2.0)
    np.testing.assert_allclose(
        only_section(sdata).centers, sdata.tables["table"].obsm["spatial"] / 4
    )


def test_systems_that_disagree_raise():
    sdata = foreign()
    for element, factor in ((sdata.images["S1_image"], 4.0), (sdata.shapes["S1"], 1.0)):
        set_transformation(element, Scale([factor, factor], ("x", "y")), "aligned")
    with pytest.raises(ValueError, match=r"systems 'global' and 'aligned' place .*differently"):
        stp.io.register_um(sdata, "S1", image="S1_image", mpp=2.0)
    assert sorted(sdata.coordinate_systems) == ["aligned", "global"]


def test_one_of_several_images_is_chosen():
    sdata = foreign()
    sdata.images["other"] = Image2DModel.parse(
        random_pixels(60, 80).transpose(2, 0, 1),
        dims=("c", "y", "x"),
        transformations={"global": Identity()},
    )
    with pytest.raises(ValueError, match="several images could belong to section 'S1'"):
        _ = open_table(sdata).sections
    for image in ("S1_image", "other", "S1_image"):  # another choice replaces the one before
        stp.io.register_um(sdata, "S1", image=image, mpp=0.5)
        assert only_section(sdata).image == image


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"section": "S9"}, KeyError, "no shapes 'S9'; shapes: S1"),
        ({"image": "S9_image"}, KeyError, "no image 'S9_image'; images: S1_image"),
        ({"mpp": 0}, ValueError, r"mpp must be a number above 0 \(µm per pixel\): 0"),
        ({"mpp": np.nan}, ValueError, "mpp must be a finite number"),
    ],
)
def test_bad_input_raises(options, error, message):
    sdata = foreign()
    arguments = {"section": "S1", "image": "S1_image", "mpp": 0.5, **options}
    with pytest.raises(error, match=message):
        stp.io.register_um(sdata, arguments.pop("section"), **arguments)
    assert sdata.coordinate_systems == ["global"]


def test_no_common_system_raises():
    sdata = foreign()
    set_transformation(sdata.shapes["S1"], {"elsewhere": Identity()}, set_all=True)
    with pytest.raises(ValueError, match="share no coordinate system: elsewhere and global"):
        stp.io.register_um(sdata, "S1", image="S1_image", mpp=0.5)
    assert sorted(sdata.coordinate_systems) == ["elsewhere", "global"]


def bare_images(*names):
    return sd.SpatialData(
        images={
            name: Image2DModel.parse(random_pixels(60, 80).transpose(2, 0, 1), dims=("c", "y", "x"))
            for name in names
        }
    )


@pytest.mark.parametrize(("section", "image"), [("slide", "slide_image"), ("S9", "slide")])
def test_an_image_without_spots_is_registered(section, image):
    sdata = bare_images(image)
    stp.io.register_um(sdata, section, image=image, mpp=0.5)
    to_um = get_transformation(sdata.images[image], f"{section}_um")
    np.testing.assert_allclose(to_um.to_affine_matrix(("x",), ("x",)), [[0.5, 0], [0, 1]])
    assert not sdata.shapes


def test_the_alpha_channel_of_an_image_of_spatialdata_io_is_left_out(capsys, monkeypatch):
    monkeypatch.setattr(stp.settings, "verbosity", 1)
    sdata = foreign()
    pixels = random_pixels(60, 80, channels=4).transpose(2, 0, 1)
    sdata.images["S1_image"] = Image2DModel.parse(pixels, dims=("c", "y", "x"), rgb=None)
    stp.io.register_um(sdata, "S1", image="S1_image", mpp=0.5)
    assert "images['S1_image'] has an alpha channel, which is left out" in capsys.readouterr().out
    section = only_section(sdata)
    np.testing.assert_array_equal(section.levels[0], pixels[:3])
    stp.pp.embed(sdata, mean_colour, key_added="X_colour", tile_um=4, n_subtiles=1)
    stp.pp.detect_tissue(sdata)
    assert sdata.tables["table"].obsm["X_colour"].shape == (5, 3)


def test_an_image_next_to_a_section_is_registered():
    # both in "global", spatialdata's default
    sdata = foreign()
    sdata.images["slide_image"] = bare_images("slide_image").images["slide_image"]
    with pytest.raises(KeyError, match="no shapes 'S9'; shapes: S1"):
        stp.io.register_um(sdata, "S9", image="slide_image", mpp=0.5)
    stp.io.register_um(sdata, "slide", image="slide_image", mpp=0.5)
    assert "slide_um" in get_transformation(sdata.images["slide_image"], get_all=True)
