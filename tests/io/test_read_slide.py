"""Whole slides are read lazily, with the pyramid and the µm per pixel of the file."""

from __future__ import annotations

import dask
import dask.array as da
import numpy as np
import pytest
import spatialdata as sd
import tifffile
import wsidata
from distributed import Client, LocalCluster
from PIL import Image
from spatialdata.transformations import Scale, get_transformation

import stpredict as stp
from stpredict._sdata import _slide_levels
from stpredict._sdata._pyramid import multiscale_image
from stpredict.io._shared._image import open_image

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


def mpp_of(sdata):
    to_um = get_transformation(sdata.images["a_image"], to_coordinate_system="a_um")
    return to_um.scale[0]


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
    assert mpp_of(sdata) == 0.25


@pytest.mark.parametrize(("size", "unit"), [(0.5, "µm"), (500, "nm"), (0.0005, "mm")])
def test_units_of_ome_are_converted(tmp_path, size, unit):
    ome_tiff(tmp_path / "a.ome.tif", levels_of(), size=size, unit=unit)
    assert mpp_of(stp.io.read_slide(tmp_path / "a.ome.tif")) == pytest.approx(0.5)


@pytest.mark.parametrize("unit", ["INCH", "NONE"])
def test_the_resolution_of_a_screen_is_not_that_of_a_slide(tmp_path, unit):
    options = {"resolution": (72, 72), "resolutionunit": unit}
    pyramid_tiff(tmp_path / "a.tif", levels_of(), mpp=None, **options)
    with pytest.raises(ValueError, match="has no µm per pixel"):
        stp.io.read_slide(tmp_path / "a.tif")


def test_a_jpeg_or_png_image_is_a_slide_if_its_scale_is_given(tmp_path):
    Image.fromarray(tissue()).save(tmp_path / "a.png")
    sdata = stp.io.read_slide(tmp_path / "a.png", mpp=0.5)
    np.testing.assert_array_equal(arrays(sdata)[0], tissue().transpose(2, 0, 1))
    assert len(arrays(sdata)) == 2


def test_the_format_is_recognised_by_the_content(tmp_path):
    svs(tmp_path / "a.png", levels_of())
    assert mpp_of(stp.io.read_slide(tmp_path / "a.png")) == 0.499


def test_a_slide_can_be_preprocessed_without_naming_its_image(tmp_path):
    sdata = stp.datasets.phantom(size_px=1200, mpp=0.5)
    finest = sdata.images["S1_image"]["scale0"]["image"].transpose("y", "x", "c").to_numpy()
    svs(tmp_path / "a.svs", [finest, np.ascontiguousarray(finest[::4, ::4])])
    slide = stp.io.read_slide(tmp_path / "a.svs")
    stp.pp.grid(slide, pitch_um=100)
    stp.pp.embed(slide, "texture", tile_um=56)
    assert slide.tables["table"].obsm["X_texture"].shape == (slide.tables["table"].n_obs, 200)


# --- levels -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sides", "expected"),
    [
        ([20_000, 5_000, 1_250], [20_000, 5_000, 1_250, 625]),
        ([20_000, 1_250], [20_000, 10_000, 5_000, 1_250, 625]),
        ([20_001, 5_000, 1_250], [20_001, 5_000, 1_250, 625]),
        ([3_000], [3_000, 1_500, 750]),
        ([500], [500, 250]),
        ([500, 125], [500, 125]),
    ],
)
def test_levels_are_added_where_they_are_far_apart_or_all_large(sides, expected):
    levels = [da.zeros((3, side, side), dtype=np.uint8, chunks=(3, 1024, 1024)) for side in sides]
    image = multiscale_image(levels, {"a_um": Scale([0.5, 0.5], axes=("x", "y"))})
    assert [level["image"].shape[1] for level in image.children.values()] == expected


def test_images_that_are_no_levels_of_the_slide_are_left_out():
    shapes = [(2_000, 3_000), (500, 600), (500, 750), (500, 750)]
    levels = [da.zeros((3, *shape), dtype=np.uint8) for shape in shapes]
    image = multiscale_image(levels, {"a_um": Scale([0.5, 0.5], axes=("x", "y"))})
    assert [level["image"].shape[1:] for level in image.children.values()][:2] == [
        (2_000, 3_000),
        (500, 750),
    ]


def test_only_the_part_that_is_needed_is_decoded(tmp_path, monkeypatch):
    svs(tmp_path / "a.svs", [tissue(1_100, 4_200), tissue(1_100, 4_200, step=4)])
    n_read = []
    get_region = _slide_levels._OnWhite.get_region

    def counting(self, x, y, width, height, level=0, **options):
        n_read.append((level, width * height))
        return get_region(self, x, y, width, height, level, **options)

    monkeypatch.setattr(_slide_levels._OnWhite, "get_region", counting)
    table = stp.datasets.phantom(size_px=400).tables["table"][:2].copy()
    table.obsm["spatial"] = np.array([[50.0, 50.0], [90.0, 90.0]])
    options = {"section": "S1", "mpp": 0.5, "diameter_um": 5, "outside": "error"}
    sdata = stp.io.read_h5ad(table, tmp_path / "a.svs", **options)
    n_read.clear()
    for scale in ("scale0", "scale1"):
        sdata.images["S1_image"][scale]["image"][:, :100, :100].to_numpy()
    assert n_read == [(0, 1024 * 1024), (1, 275 * 1024)]


# --- areas without an image ---------------------------------------------------------------------


def remove_first_tile(path):
    """As a scanner that leaves out glass: a tile without bytes."""
    with tifffile.TiffFile(path, mode="r+") as file:
        for name in ("TileByteCounts", "TileOffsets"):
            tag = file.pages[0].tags[name]
            tag.overwrite((0, *tag.value[1:]))


@pytest.mark.parametrize("name", ["a.tif", "a.svs"])
def test_areas_that_a_scanner_left_out_are_white(tmp_path, name):
    WRITERS[name](tmp_path / name, levels_of())
    remove_first_tile(tmp_path / name)
    finest = open_image(tmp_path / name).levels[0].compute()
    assert (finest[:, :64, :64] == 255).all()
    difference = (
        finest[:, 64:600, 64:600].astype(int) - tissue().transpose(2, 0, 1)[:, 64:600, 64:600]
    )
    assert np.abs(difference).max() <= 8


def test_a_slide_opened_with_wsidata_has_white_areas_too(tmp_path):
    svs(tmp_path / "a.svs", levels_of())
    remove_first_tile(tmp_path / "a.svs")
    slide = wsidata.open_wsi(tmp_path / "a.svs", store=None)
    stp.pp.detect_tissue(slide, "a_image")
    assert (arrays(slide)[0][:, :64, :64] == 255).all()


# --- other processes ----------------------------------------------------------------------------


def test_images_are_read_by_dask_in_threads_and_in_other_processes(tmp_path):
    for name, write in WRITERS.items():
        write(tmp_path / name, levels_of())
    pyramid_tiff(tmp_path / "plain.tif", [tissue()], compression=None, tile=None)
    Image.fromarray(tissue()).save(tmp_path / "a.png")
    files = sorted(tmp_path.iterdir())
    images = [level for file in files for level in open_image(file).levels]
    sums = [image.astype(int).sum() for image in images]
    expected = dask.compute(*sums, scheduler="synchronous")
    assert dask.compute(*sums, scheduler="threads", num_workers=8) == expected
    options = {"n_workers": 1, "threads_per_worker": 2, "dashboard_address": ":0"}
    with LocalCluster(processes=True, **options) as cluster, Client(cluster) as client:
        assert client.gather(client.compute(sums)) == list(expected)


# --- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("share", [0.001, 0.3, 0.6, 0.95])
def test_a_truncated_slide_is_refused(tmp_path, name, share):
    path = tmp_path / name
    WRITERS[name](path, levels_of())
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=rf"{name} (is truncated|cannot be read)"):
        stp.io.read_slide(path, mpp=0.5)


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", bytes(5000)])
@pytest.mark.parametrize("name", ["a.svs", "a.tif", "a.ndpi", "a.czi", "a"])
def test_a_file_that_is_no_slide_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    message = rf"{name} cannot be read: it is no TIFF, JPEG or PNG image, .*\(openslide"
    with pytest.raises(ValueError, match=message):
        stp.io.read_slide(tmp_path / name)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such file: .*a\.svs"):
        stp.io.read_slide(tmp_path / "a.svs")
    with pytest.raises(FileNotFoundError, match="is a folder, not a file"):
        stp.io.read_slide(tmp_path)


def test_a_mirax_file_without_its_folder_is_refused(tmp_path):
    """The file itself is only a small preview."""
    Image.fromarray(tissue(40, 50)).save(tmp_path / "a.mrxs", format="jpeg")
    with pytest.raises(ValueError, match=r"a\.mrxs cannot be read without its folder .*a"):
        stp.io.read_slide(tmp_path / "a.mrxs", mpp=0.5)


def fluorescence(path, dtype):
    channels = np.zeros((5, 128, 128), dtype=dtype)
    tifffile.imwrite(path, channels, ome=True, photometric="minisblack", tile=(64, 64))


@pytest.mark.parametrize(
    "write",
    [
        lambda path: tifffile.imwrite(path, tissue()[..., 0], tile=(64, 64)),
        lambda path: tifffile.imwrite(path, tissue().astype("u2"), photometric="rgb"),
        lambda path: fluorescence(path, "u1"),
        lambda path: fluorescence(path, "u2"),
        lambda path: Image.fromarray(tissue()[..., 0]).save(path, format="png"),
    ],
    ids=["grey", "16 bit", "fluorescence", "fluorescence of 16 bit", "grey PNG"],
)
def test_images_that_are_not_8_bit_rgb_are_refused(tmp_path, write):
    write(tmp_path / "a.ome.tif")
    with pytest.raises(ValueError, match=r"a\.ome\.tif has .*Convert it to 8-bit RGB"):
        stp.io.read_slide(tmp_path / "a.ome.tif", mpp=0.5)


@pytest.mark.parametrize("size", [300, 0.001, 0, -1])
def test_absurd_um_per_pixel_in_the_file_are_refused(tmp_path, size):
    ome_tiff(tmp_path / "a.ome.tif", levels_of(), size=size)
    message = r"a\.ome\.tif has .* per pixel, but slides have 0.05 to 20. Give them with mpp="
    with pytest.raises(ValueError, match=message):
        stp.io.read_slide(tmp_path / "a.ome.tif")


@pytest.mark.parametrize(
    ("mpp", "error", "message"),
    [
        (0, ValueError, "mpp must be a number above 0"),
        (np.nan, ValueError, "mpp must be"),
        (250, ValueError, "mpp=250 is not plausible: images of tissue have 0.05 to 20"),
        (0.001, ValueError, "mpp=0.001 is not plausible"),
        ("0.5", TypeError, "mpp must be a finite number or None, not str"),
    ],
)
def test_absurd_um_per_pixel_that_are_given_are_refused(tmp_path, mpp, error, message):
    pyramid_tiff(tmp_path / "a.tif", levels_of())
    with pytest.raises(error, match=message):
        stp.io.read_slide(tmp_path / "a.tif", mpp=mpp)


def test_um_per_pixel_other_than_the_files_warn(tmp_path):
    svs(tmp_path / "a.svs", levels_of())
    with pytest.warns(UserWarning, match=r"mpp=0.25, but .*a\.svs has 0.499 µm per pixel"):
        sdata = stp.io.read_slide(tmp_path / "a.svs", mpp=0.25)
    assert mpp_of(sdata) == 0.25


def test_pixels_that_are_not_square_are_refused(tmp_path):
    options = {"resolution": (1e4 / 0.25, 1e4 / 0.5)}
    pyramid_tiff(tmp_path / "a.tif", levels_of(), mpp=None, **options)
    with pytest.raises(ValueError, match=r"a\.tif has pixels of 0.25 × 0.5 µm \(x × y\)"):
        stp.io.read_slide(tmp_path / "a.tif")
