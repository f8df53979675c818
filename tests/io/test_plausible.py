"""An implausible µm per pixel is reported by the readers and by register_um."""

from __future__ import annotations

import numpy as np
import pytest
from spatialdata.transformations import get_transformation

import stpredict as stp


@pytest.fixture(scope="module")
def sections():
    """Phantoms, drawn at 0.5 and at 1 µm per pixel."""
    return {mpp: stp.datasets.phantom(size_px=800, mpp=mpp) for mpp in (0.5, 1.0)}


def pixels_of(sdata):
    return sdata.images["S1_image"]["scale0"]["image"].data


def read(sdata, image=None, **options):
    image = pixels_of(sdata) if image is None else image
    return stp.io.read_h5ad(
        sdata.tables["table"], image, **{"section": "A", "diameter_um": 55, **options}
    )


@pytest.mark.parametrize("factor", [0.5, 1, 2])
@pytest.mark.parametrize("mpp", [0.5, 1.0])
def test_a_plausible_scale_is_not_reported(sections, mpp, factor):
    # a warning is an error in these tests
    read(sections[mpp], mpp=factor * mpp, diameter_um=30)


@pytest.mark.parametrize(
    ("true_mpp", "mpp", "message"),
    [
        (
            1.0,
            0.2,
            r"'A': at 0.2 µm per pixel details .* are 0.4\d* µm wide; about 1.\d µm per pixel",
        ),
        (
            0.5,
            4,
            r"'A': at 4 µm per pixel details .* are 1\d µm wide; about 0.\d+ µm per pixel are",
        ),
        (
            0.5,
            0.05,
            "'A': at 0.05 µm per pixel neighbouring spots of 55 µm are 10 µm apart, .* 27.5",
        ),
    ],
)
def test_an_implausible_scale_is_reported(sections, true_mpp, mpp, message):
    options = {"diameter_um": 5} if "details" in message else {}
    with pytest.warns(UserWarning, match=message) as reported:
        read(sections[true_mpp], mpp=mpp, **options)
    assert reported[0].filename == __file__


def test_an_image_wider_than_a_slide_is_reported(sections):
    image = np.full((800, 6000, 3), 255, dtype=np.uint8)
    message = "'A': at 20 µm per pixel the image is 120 mm wide, but a slide is at most 75 mm"
    with pytest.warns(UserWarning, match=message):
        read(sections[0.5], image, mpp=20)


@pytest.mark.parametrize("mpp", [1e-3, 200, 2e289])
def test_absurd_um_per_pixel_are_refused(sections, mpp):
    sdata = stp.datasets.phantom(size_px=400)
    before = get_transformation(sdata.images["S1_image"], get_all=True)
    message = r"mpp=\S+ is not plausible: images of tissue have 0\.05 to 20 µm per pixel"
    with pytest.raises(ValueError, match=message):
        read(sections[0.5], mpp=mpp)
    with pytest.raises(ValueError, match=message):
        stp.io.register_um(sdata, "S1", mpp=mpp)
    assert get_transformation(sdata.images["S1_image"], get_all=True) == before


def test_images_without_details_say_nothing_about_the_scale(sections):
    noise = np.random.default_rng(0).integers(0, 255, (800, 800, 3), dtype=np.uint8)
    for image in (noise, np.full_like(noise, 255), np.zeros_like(noise)):
        read(sections[0.5], image, mpp=0.05, diameter_um=2)


@pytest.mark.parametrize("with_spots", [True, False])
def test_register_um_reports_an_implausible_scale(with_spots):
    sdata = stp.datasets.phantom(size_px=800, mpp=1.0)
    if not with_spots:
        del sdata.shapes["S1"], sdata.tables["table"]
    stp.io.register_um(sdata, "S1", image="S1_image", mpp=1.0)
    with pytest.warns(UserWarning, match="'S1': at 0.2 µm per pixel details") as warned:
        stp.io.register_um(sdata, "S1", image="S1_image", mpp=0.2)
    assert warned[0].filename == __file__  # it points to the user's code
