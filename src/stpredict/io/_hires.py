"""The image that spots of Space Ranger's output lie on: the full resolution, or the hires image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stpredict._log import tell
from stpredict.io._image import open_image

if TYPE_CHECKING:
    from numpy.typing import NDArray

HIRES = "tissue_hires_image.png"


def choose_image(spatial: Path, fullres_image: str | Path | None, hires: Path | None) -> Path:
    """Choose the full-resolution image where it is given, else the hires image; it must exist."""
    if fullres_image is not None:
        if not Path(fullres_image).is_file():
            raise FileNotFoundError(f"fullres_image {fullres_image} does not exist")
        return Path(fullres_image)
    if hires is None or not hires.is_file():
        raise FileNotFoundError(
            f"{spatial} has no {HIRES}; give the full-resolution image as fullres_image="
        )
    return hires


def place(
    positions: NDArray[np.float64],
    mpp: float,
    *,
    image: Path,
    hires: Path | None,
    scale: float,
    section: str,
) -> tuple[NDArray[np.float64], float]:
    """Positions (n, 2) in pixels, and µm per pixel, of the image that was chosen.

    Parameters
    ----------
    positions, mpp
        Of the full resolution.
    image
        As `choose_image` gave it.
    hires
        The hires image, if there is one; a full-resolution image must be that it was made of.
    scale
        Pixels of the hires image per pixel of the full resolution.
    section
        Its name, for messages.
    """
    if image == hires:
        tell(
            f"{section}: no fullres_image=, using the hires image ({mpp / scale:.2f} µm per pixel)"
        )
        return positions * scale, mpp / scale
    if hires is not None and hires.is_file():
        _check_fullres(image, hires, scale=scale)
    return positions, mpp


def _check_fullres(image: Path, hires: Path, *, scale: float) -> None:
    """Require the image that the hires image was made of, by its size."""
    given = np.array(open_image(image).shape[1:])
    expected = np.array(open_image(hires).shape[1:]) / scale
    if np.any(np.abs(given - expected) > 0.01 * expected + 2 / scale):
        raise ValueError(
            f"fullres_image {image} has {given[1]} × {given[0]} px, but {hires.name} was made of "
            f"one of about {expected[1]:.0f} × {expected[0]:.0f} px: positions would not fit. Give "
            "the image that Space Ranger was given"
        )
