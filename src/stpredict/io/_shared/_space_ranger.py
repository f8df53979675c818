"""The image of Space Ranger's output on which spots or bins lie."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stpredict._log import info
from stpredict.io._shared._files import require_file
from stpredict.io._shared._image import open_image

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

HIRES = "tissue_hires_image.png"


def choose_image(fullres_image: str | Path | None, hires: Path) -> Path:
    """Choose the full-resolution image if there is one, else the hires image."""
    if fullres_image is not None:
        return require_file(fullres_image)
    return require_file(hires, hint="Pass the full-resolution image as fullres_image=")


def to_image(
    positions: NDArray[np.float64],
    mpp: float,
    *,
    image: Path,
    hires: Path,
    scale: float,
    section: str,
) -> tuple[NDArray[np.float64], float]:
    """Convert positions (n, 2) and µm per pixel from the full resolution to the chosen image.

    ``scale`` is the number of pixels of the hires image per pixel of the full resolution. A
    full-resolution image must have the size that the hires image, if it exists, implies.
    """
    if image == hires:
        info(
            f"{section}: no fullres_image=, using the hires image ({mpp / scale:.2f} µm per pixel)"
        )
        return positions * scale, mpp / scale
    if hires.is_file():
        size = np.array(open_image(image).shape[1:])
        expected = np.array(open_image(hires).shape[1:]) / scale
        # 1 % for scale factors with few digits, 2 px of the hires image for rounding
        if np.any(np.abs(size - expected) > 0.01 * expected + 2 / scale):
            raise ValueError(
                f"fullres_image {image} has {size[1]} × {size[0]} px, but {hires.name} belongs to "
                f"an image of about {expected[1]:.0f} × {expected[0]:.0f} px. Pass the image that "
                "was used as input of Space Ranger"
            )
    return positions, mpp
