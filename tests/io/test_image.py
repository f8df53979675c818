"""Images are read lazily as 8-bit RGB, from files and arrays."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

import stpredict as stp
from stpredict._sdata import _pyramid
from stpredict.io._shared import _decoded, _image


def random_pixels(height=200, width=260, channels=3, dtype=np.uint8, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, np.iinfo(dtype).max, (height, width, channels), dtype=dtype)


def png(path, pixels):
    Image.fromarray(pixels).save(path)


def tiff(path, pixels):
    tifffile.imwrite(path, pixels, tile=(64, 64), photometric="rgb")


def plain_tiff(path, pixels):
    tifffile.imwrite(path, pixels, photometric="rgb")


def planar_tiff(path, pixels):
    tifffile.imwrite(path, pixels.transpose(2, 0, 1), photometric="rgb", planarconfig="separate")


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.png", png),
        ("a.PNG", png),
        ("a.tif", tiff),
        ("a.tiff", plain_tiff),
        ("a.btf", tiff),
        ("planar.tif", planar_tiff),
        ("misnamed.png", tiff),
        ("misnamed.tif", png),
    ],
)
def test_rgb_files_are_read_as_channels_first_arrays(tmp_path, name, write):
    pixels = random_pixels()
    write(tmp_path / name, pixels)
    for path in (tmp_path / name, str(tmp_path / name)):
        array = _image.open_image(path).levels[0]
        assert array.dtype == np.uint8
        np.testing.assert_array_equal(array.compute(), pixels.transpose(2, 0, 1))
        np.testing.assert_array_equal(
            array[:, 3:70, 100:170].compute(), pixels[3:70, 100:170].transpose(2, 0, 1)
        )


def test_a_jpeg_file_is_read(tmp_path):
    y, x = np.mgrid[:128, :160]
    smooth = np.stack([y, x, 255 - y], axis=2).astype(np.uint8)
    Image.fromarray(smooth).save(tmp_path / "a.jpg", quality=95)
    array = _image.open_image(tmp_path / "a.jpg").levels[0].compute()
    np.testing.assert_allclose(array, smooth.transpose(2, 0, 1), atol=8)


@pytest.mark.parametrize("channels_first", [True, False])
def test_arrays_may_have_channels_first_or_last(channels_first):
    pixels = random_pixels()
    (array,) = _image.open_image(pixels.transpose(2, 0, 1) if channels_first else pixels).levels
    np.testing.assert_array_equal(array.compute(), pixels.transpose(2, 0, 1))


def test_a_replaced_file_is_read_again(tmp_path):
    path = tmp_path / "a.png"
    for seed in (0, 1):
        pixels = random_pixels(seed=seed)
        png(path, pixels)
        array = _image.open_image(path).levels[0]
        np.testing.assert_array_equal(array.compute(), pixels.transpose(2, 0, 1))


@pytest.mark.parametrize("name", ["a.png", "a.tif", None])
def test_an_alpha_channel_is_left_out_and_logged(tmp_path, name, capsys, monkeypatch):
    monkeypatch.setattr(stp.settings, "verbosity", 1)
    pixels = random_pixels(channels=4)
    image = pixels if name is None else tmp_path / name
    if name == "a.png":
        png(image, pixels)
    elif name == "a.tif":
        tifffile.imwrite(image, pixels, photometric="rgb", extrasamples=["unassalpha"])
    array = _image.open_image(image).levels[0]
    np.testing.assert_array_equal(array.compute(), pixels[..., :3].transpose(2, 0, 1))
    assert "has an alpha channel, which is left out" in capsys.readouterr().out


def write_unsupported(path, kind):
    if kind == "grey":
        Image.fromarray(random_pixels()[..., 0]).save(path)
    elif kind == "grey16":
        Image.fromarray(random_pixels(dtype=np.uint16)[..., 0]).save(path)
    elif kind == "palette":
        Image.fromarray(random_pixels()).quantize(8).save(path)
    elif kind == "grey_tiff":
        tifffile.imwrite(path, random_pixels()[..., 0])
    elif kind == "grey_pages":
        tifffile.imwrite(path, random_pixels().transpose(2, 0, 1), photometric="minisblack")
    elif kind == "lab":
        tifffile.imwrite(path, random_pixels(), photometric="cielab")
    elif kind == "ycbcr":
        tifffile.imwrite(path, random_pixels(), photometric="ycbcr")
    elif kind == "rgb16_tiff":
        tifffile.imwrite(path, random_pixels(dtype=np.uint16), photometric="rgb")
    elif kind == "stack_tiff":
        tifffile.imwrite(path, np.zeros((5, 20, 20, 3), dtype=np.uint8), photometric="rgb")
    elif kind == "cmyk":
        Image.fromarray(random_pixels()).convert("CMYK").save(path)


@pytest.mark.parametrize(
    ("kind", "name", "properties"),
    [
        ("grey", "a.png", "colour model L"),
        ("grey16", "a.png", "colour model I;16"),
        ("palette", "a.png", "colour model P"),
        ("palette", "a.tif", "colour model PALETTE"),
        ("grey_tiff", "a.tif", "colour model MINISBLACK"),
        ("grey_pages", "a.tif", "colour model MINISBLACK"),
        ("cmyk", "a.tif", "colour model SEPARATED"),
        ("lab", "a.tif", "colour model CIELAB"),
        ("ycbcr", "a.tif", "colour model YCBCR"),
        ("rgb16_tiff", "a.tif", r"shape \(3, 200, 260\) and dtype uint16"),
        ("stack_tiff", "a.tif", r"shape \(5, 20, 20, 3\) and dtype uint8"),
        ("cmyk", "a.jpg", "colour model CMYK"),
    ],
)
def test_images_that_are_not_8_bit_rgb_raise(tmp_path, kind, name, properties):
    write_unsupported(tmp_path / name, kind)
    with pytest.raises(ValueError, match=rf"{name}.*{properties}.*Convert it to 8-bit RGB"):
        _image.open_image(tmp_path / name)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.99])
def test_a_truncated_file_is_refused_when_it_is_opened(tmp_path, name, share):
    path = tmp_path / name
    (tiff if name == "a.tif" else png)(path, random_pixels())
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=rf"{name} (is truncated|cannot be read)"):
        _image.open_image(path)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_damaged_pixels_raise_an_error_that_names_the_file(tmp_path, name):
    path = tmp_path / name
    if name == "a.png":
        png(path, random_pixels())
    else:
        tifffile.imwrite(
            path, random_pixels(), tile=(64, 64), photometric="rgb", compression="zlib"
        )
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2000] = bytes(2000)
    path.write_bytes(content)
    array = _image.open_image(path).levels[0]
    with pytest.raises(ValueError, match=rf"{name} cannot be read \(.*complete"):
        array.compute()


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_a_size_that_the_file_cannot_contain_is_refused(tmp_path):
    header = struct.pack(">IIBBBBB", 600_000, 600_000, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    bomb = b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*part) for part in parts)
    (tmp_path / "bomb.png").write_bytes(bomb)
    message = "bomb.png declares 600000 × 600000 × 3 values, but stores them in 65 bytes"
    with pytest.raises(ValueError, match=message):
        _image.open_image(tmp_path / "bomb.png")


def test_a_ycbcr_tiff_with_jpeg_compression_is_rgb(tmp_path):
    y, x = np.mgrid[:128, :128]
    smooth = np.stack([y, x, 255 - y], axis=2).astype(np.uint8)
    stored = np.asarray(Image.fromarray(smooth).convert("YCbCr"))
    options = {"photometric": "ycbcr", "compression": "jpeg", "tile": (64, 64)}
    tifffile.imwrite(tmp_path / "a.tif", stored, **options, compressionargs={"level": 95})
    array = _image.open_image(tmp_path / "a.tif").levels[0].compute()
    np.testing.assert_allclose(array, smooth.transpose(2, 0, 1), atol=12)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_arrays_that_are_not_8_bit_raise(dtype):
    with pytest.raises(ValueError, match=f"the image array has .*dtype {np.dtype(dtype)}"):
        _image.open_image(np.zeros((20, 30, 3), dtype=dtype))


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_a_missing_image_file_raises(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=f"no such file: .*{name}"):
        _image.open_image(tmp_path / name)


def test_a_tiff_file_is_read_by_window(tmp_path, monkeypatch):
    # without the decoder of whole files, only windows can be read
    pixels = random_pixels(2100, 1100)
    tifffile.imwrite(tmp_path / "a.tif", pixels, tile=(256, 256), photometric="rgb")
    monkeypatch.setattr(_decoded, "_decode", None)
    array = _image.open_image(tmp_path / "a.tif").levels[0]
    assert max(array.chunks[1]) <= _image.CHUNK_PX
    np.testing.assert_array_equal(
        array[:, 2000:2010, 1000:1010].compute(),
        pixels[2000:2010, 1000:1010].transpose(2, 0, 1),
    )


@pytest.mark.parametrize("memory_bytes", [2**30, 0])
def test_a_png_file_is_decoded_once_into_a_pyramid(tmp_path, monkeypatch, memory_bytes):
    monkeypatch.setattr(_decoded, "_MEMORY_BYTES", memory_bytes)
    monkeypatch.setattr(_decoded, "_STRIP_PX", 64)
    monkeypatch.setattr(_pyramid, "COARSEST_PX", 100)
    pixels = random_pixels(1051, 403)
    png(tmp_path / "a.png", pixels)
    levels = _image.open_image(tmp_path / "a.png").levels
    assert [level.shape for level in levels] == [
        (3, 1051, 403),
        (3, 525, 201),
        (3, 262, 100),
        (3, 131, 50),
    ]
    np.testing.assert_array_equal(levels[0].compute(), pixels.transpose(2, 0, 1))
    (tmp_path / "a.png").unlink()  # it is not read again
    expected = _pyramid._halved(levels[0], 3)
    for level, means in zip(levels[1:], expected, strict=True):
        np.testing.assert_array_equal(level.compute(), means.compute())


def test_opening_a_png_file_does_not_decode_it(tmp_path, monkeypatch):
    monkeypatch.setattr(_decoded, "_decode", None)
    png(tmp_path / "a.png", random_pixels())
    assert _image.open_image(tmp_path / "a.png").levels[0].shape == (3, 200, 260)


def test_pixels_in_a_temporary_file_are_logged_and_removed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(stp.settings, "verbosity", 1)
    monkeypatch.setattr(_decoded, "_MEMORY_BYTES", 0)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    png(tmp_path / "a.png", random_pixels())
    _image.open_image(tmp_path / "a.png").levels[0].compute()
    _image.open_image(tmp_path / "a.png").levels[1].compute()
    assert len(list((tmp_path / "temporary").iterdir())) == 2
    log = capsys.readouterr().out
    assert log.count("a.png (200 × 260 px) is decoded once, into temporary files") == 1
    _decoded._decode.cache_clear()
    assert not list((tmp_path / "temporary").iterdir())
