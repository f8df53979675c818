"""Whole slides are read lazily, with the pyramid and the µm per pixel of the file."""

from __future__ import annotations

import numpy as np
import pytest
import spatialdata as sd
import tifffile
from spatialdata.transformations import get_transformation

import stpredict as stp

TILE = {"photometric": "rgb", "tile": (64, 64), "compression": "zlib", "metadata": None}
APERIO = "Aperio Image Library v11.2.1\r\n{0}x{1} [0,0 {0}x{1}] (64x64) JPEG/RGB Q=95|AppMag = 20"


def tissue(height=700, width=900, *, step=1):
    """Smooth colours, so that JPEG keeps them, which differ between the levels of a pyramid."""
    y, x = np.mgrid[:height:step, :width:step]
    return np.stack([x * 255 // width, y * 255 // height, 0 * x + 40 * step], axis=2).astype("u1")


def levels_of(steps=(1, 4)):
    return [tissue(step=step) for step in steps]


def pyramid_tiff(path, levels, *, mpp=0.5, **options):
    resolution = {} if mpp is None else {"resolution": (1e4 / mpp, 1e4 / mpp)}
    resolution["resolutionunit"] = "CENTIMETER"
    with tifffile.TiffWriter(path) as file:
        for k, level in enumerate(levels):
            file.write(level, subfiletype=min(k, 1), **{**TILE, **resolution, **options})


def ome_tiff(path, levels, *, size=0.5, unit="µm"):
    sizes = {f"PhysicalSize{axis}": size for axis in "XY"}
    units = {f"PhysicalSize{axis}Unit": unit for axis in "XY"}
    metadata = {"axes": "YXS", **sizes, **units}
    with tifffile.TiffWriter(path, ome=True) as file:
        file.write(levels[0], subifds=len(levels) - 1, **{**TILE, "metadata": metadata})
        for level in levels[1:]:
            file.write(level, subfiletype=1, **TILE)


def svs(path, levels, *, fields="|MPP = 0.4990"):
    """A file that OpenSlide takes for one of Aperio: a thumbnail is its second image."""
    options = {**TILE, "compression": "jpeg", "compressionargs": {"level": 95}}
    with tifffile.TiffWriter(path) as file:
        for k, level in enumerate(levels):
            text = APERIO.format(level.shape[1], level.shape[0]) + fields
            file.write(level, description=text, **options)
            if k == 0:
                small = np.ascontiguousarray(level[::8, ::8])
                file.write(small, **{**options, "tile": None}, description=text)


WRITERS = {"a.tif": pyramid_tiff, "a.ome.tif": ome_tiff, "a.svs": svs}


def arrays(sdata, image="a_image"):
    return [sdata.images[image][scale]["image"] for scale in sdata.images[image].children]


@pytest.mark.parametrize("name", WRITERS)
def test_a_slide_has_the_levels_and_the_um_per_pixel_of_its_file(tmp_path, name):
    levels = levels_of((1, 4, 16))
    WRITERS[name](tmp_path / name, levels)
    sdata = stp.io.read_slide(tmp_path / name)
    assert list(sdata.images) == ["a_image"]
    assert sdata.coordinate_systems == ["a_um"]
    read = arrays(sdata)
    assert len(read) == 3
    for array, level in zip(read, levels, strict=True):
        assert array.dtype == np.uint8
        assert array.shape == (3, *level.shape[:2])
        difference = np.abs(array.to_numpy().astype(int) - level.transpose(2, 0, 1))
        # JPEG blurs the border of the image with the rest of its last tiles
        assert difference[:, :-16, :-16].max() <= (8 if name == "a.svs" else 0)
    to_um = get_transformation(sdata.images["a_image"], to_coordinate_system="a_um")
    mpp = 0.499 if name == "a.svs" else 0.5
    matrix = to_um.to_affine_matrix(("x", "y"), ("x", "y"))
    np.testing.assert_allclose(matrix, np.diag([mpp, mpp, 1]))


def test_levels_keep_their_own_scale_through_zarr(tmp_path):
    pyramid_tiff(tmp_path / "a.tif", levels_of((1, 4, 16)))
    sdata = stp.io.read_slide(tmp_path / "a.tif")
    sdata.write(tmp_path / "a.zarr")
    for image in (sdata.images["a_image"], sd.read_zarr(tmp_path / "a.zarr").images["a_image"]):
        for k, scale in enumerate(image.children):
            array = image[scale]["image"]
            to_um = get_transformation(array, to_coordinate_system="a_um")
            scales = np.diag(to_um.to_affine_matrix(("x", "y"), ("x", "y")))
            np.testing.assert_allclose(scales[:2], 0.5 * 4**k, rtol=0.02)
            # the border of the image is at the same place in every level
            half = (array.x[1] - array.x[0]) / 2
            assert array.x[-1] + half == pytest.approx(900)


def test_a_slide_is_registered_as_register_um_does(tmp_path):
    pyramid_tiff(tmp_path / "a.tif", levels_of())
    sdata = stp.io.read_slide(tmp_path / "a.tif")
    before = get_transformation(sdata.images["a_image"], get_all=True)
    stp.io.register_um(sdata, "a", image="a_image", mpp=0.5)
    assert get_transformation(sdata.images["a_image"], get_all=True) == before


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("tumour 1.tif", "tumour_1"),
        ("__hidden.tif", "hidden"),
        ("S-1.ome.tif", "S-1"),
        ("S.1.tif", "S.1"),
        ("née.TIF", "née"),
        ("§.tif", "slide"),
    ],
)
def test_the_name_is_that_of_the_file(tmp_path, file, name):
    pyramid_tiff(tmp_path / file, levels_of())
    assert list(stp.io.read_slide(tmp_path / file).images) == [f"{name}_image"]
    assert list(stp.io.read_slide(tmp_path / file, name="B").images) == ["B_image"]


def test_an_invalid_name_raises(tmp_path):
    pyramid_tiff(tmp_path / "a.tif", levels_of())
    with pytest.raises(ValueError, match="name='a/b' must be a name of letters"):
        stp.io.read_slide(tmp_path / "a.tif", name="a/b")


@pytest.mark.parametrize("name", WRITERS)
def test_missing_um_per_pixel_raise_and_can_be_given(tmp_path, name):
    path = tmp_path / name
    missing = {"a.tif": {"mpp": None}, "a.ome.tif": {"unit": "pixel"}, "a.svs": {"fields": ""}}
    WRITERS[name](path, levels_of(), **missing[name])
    with pytest.raises(ValueError, match=rf"{name} has no µm per pixel. Give them with mpp="):
        stp.io.read_slide(path)
    sdata = stp.io.read_slide(path, mpp=0.25)
    to_um = get_transformation(sdata.images["a_image"], to_coordinate_system="a_um")
    assert to_um.scale.tolist() == [0.25, 0.25]
