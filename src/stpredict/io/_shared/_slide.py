"""Slides in the formats of scanners, through wsidata's readers."""

from __future__ import annotations

from pathlib import Path

import openslide
from wsidata.reader import READERS, OpenSlideReader

from stpredict._sdata._slide_levels import slide_levels
from stpredict.io._shared._files import reading
from stpredict.io._shared._tiff import is_tiff, require_complete
from stpredict.io._shared._windows import Pyramid

_MIRAX = ".mrxs"  # a JPEG file, next to a folder with the slide


def is_vendor_format(path: Path) -> bool:
    """Whether OpenSlide reads a file as the format of a scanner, by its content."""
    vendor = openslide.OpenSlide.detect_format(path)
    if vendor is None and path.suffix.lower() == _MIRAX:
        folder = path.with_suffix("")
        raise ValueError(f"{path} cannot be read without its folder {folder}. Copy it, too")
    # of generic TIFF files, OpenSlide reads few compressions and no levels in sub-images (OME)
    return vendor not in (None, "generic-tiff")


def open_vendor_format(path: Path) -> Pyramid:
    """Open a slide that OpenSlide reads."""
    if is_tiff(path):
        require_complete(path)
    with reading(path):
        reader = OpenSlideReader(path)
        x, y = (float(reader.raw_properties.get(name) or 0) for name in ("mpp-x", "mpp-y"))
        return Pyramid(slide_levels(reader), (x, y) if min(x, y) > 0 else None)


def open_other_format(path: Path) -> Pyramid:
    """Open a file with whichever of the installed readers reads it."""
    try:
        reader = READERS.try_open(str(path))
    except ValueError as error:
        names = ", ".join(reader.name for reader in READERS if reader.is_available())
        raise ValueError(
            f"{path} cannot be read: it is no TIFF, JPEG or PNG image, and no slide for the "
            f"installed readers ({names}). Check that it is complete, or convert it to OME-TIFF"
        ) from error
    mpp = reader.properties.mpp
    return Pyramid(slide_levels(reader), (mpp, mpp) if mpp else None)
