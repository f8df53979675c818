"""Read a slide: its pyramid and its µm per pixel."""

from __future__ import annotations

from pathlib import Path

from spatialdata import SpatialData
from spatialdata.transformations import Scale

from stpredict import _keys, _validate
from stpredict._arguments import checked
from stpredict._log import warn
from stpredict._sdata._pyramid import multiscale_image
from stpredict.io._shared._image import open_image
from stpredict.io._shared._plausible import (
    PLAUSIBLE_MPP,
    require_plausible_mpp,
    warn_implausible_mpp,
)

_MOST_STRETCH = 0.03  # relative difference of the pixels' sides above which they are not square
_MOST_DIFFERENCE = 0.1  # of mpp= and the file's µm per pixel, above which one must be wrong


@checked
def read_slide(
    path: str | Path, *, mpp: float | None = None, name: str | None = None
) -> SpatialData:
    """Read a whole slide, or any other H&E image, lazily and with the file's own pyramid.

    The format is recognised by its content: SVS, NDPI, MRXS, SCN, BIF, DICOM and whatever else the
    installed readers of wsidata open, TIFF and OME-TIFF, JPEG and PNG. Areas that a scanner left
    out are white. Place spots with :func:`stpredict.pp.grid`.

    JPEG and PNG files are decoded whole, at the first use: up to 16 MiB of pixels stay in memory,
    larger images go to temporary files that are removed at exit. The environment variable
    ``TMPDIR`` sets their folder. Other formats are read in parts.

    Parameters
    ----------
    path
        File of the slide.
    mpp
        µm per pixel of the full resolution, by default those in the file.
    name
        Name of the slide, by default that of the file without its suffix.

    Returns
    -------
    SpatialData
        ``images[f"{name}_image"]`` (3, y, x) uint8, lazy and multiscale, with the coordinate system
        ``f"{name}_um"``.

    Raises
    ------
    FileNotFoundError
        If the file does not exist, or is a folder.
    ValueError
        If the file is damaged or no slide, is not 8-bit RGB, has no µm per pixel and none are
        given, or they are not plausible (0.05 to 20) or not equal along both axes.

    Warns
    -----
    UserWarning
        If ``mpp`` and the file's µm per pixel differ, or details of the tissue have another size.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import mkdtemp
    >>> import tifffile
    >>> import stpredict as stp
    >>> pixels = stp.datasets.phantom().images["S1_image"]["scale0"]["image"].to_numpy()
    >>> path = Path(mkdtemp()) / "slide.tif"
    >>> tifffile.imwrite(path, pixels.transpose(1, 2, 0), photometric="rgb", tile=(256, 256))
    >>> slide = stp.io.read_slide(path, mpp=1.0)
    >>> list(slide.images)
    ['slide_image']
    """
    path = Path(path)
    if mpp is not None:
        require_plausible_mpp(mpp)
    section = _keys.slide(path) if name is None else _validate.slot_name("name", name)
    slide = open_image(path)
    mpp = _mpp(path, slide.mpp_xy, mpp)
    warn_implausible_mpp(section, mpp, slide.levels[0])
    to_um = {_keys.um(section): Scale([mpp, mpp], axes=("x", "y"))}
    return SpatialData(images={_keys.image(section): multiscale_image(slide.levels, to_um)})


def _mpp(path: Path, in_file: tuple[float, float] | None, given: float | None) -> float:
    """µm per pixel, as given or else as in the file."""
    if given is not None:
        if in_file is not None and abs(given / in_file[0] - 1) > _MOST_DIFFERENCE:
            in_file_um = f"{in_file[0]:.4g} µm per pixel"
            warn(f"mpp={given:g}, but {path} has {in_file_um}. Check which is right")
        return given
    if in_file is None:
        raise ValueError(f"{path} has no µm per pixel. Give them with mpp=, for example mpp=0.25")
    x, y = in_file
    low, high = PLAUSIBLE_MPP
    if not (low <= min(x, y) and max(x, y) <= high):
        raise ValueError(
            f"{path} has {x:.4g} × {y:.4g} µm per pixel, but slides have {low:g} to {high:g}. Give "
            "them with mpp="
        )
    if max(x, y) / min(x, y) > 1 + _MOST_STRETCH:
        raise ValueError(
            f"{path} has pixels of {x:.4g} × {y:.4g} µm (x × y), but they must be square. Resample "
            "the image, or give mpp= if the file is wrong"
        )
    return (x * y) ** 0.5
