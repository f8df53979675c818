"""Large slides for benchmarks: the sections of HER2ST side by side, as often as they fit.

python benchmarks/_slides.py slide.svs --side-px 40000 [--kind svs] [--directory PATH]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import tifffile
from _sections import LOCAL, SECTIONS
from PIL import Image

import stpredict as stp

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

MPP = 0.687  # 291 px between spots, which are 200 µm apart
TILE_PX = 256
#: Side of a section, which all images have: a number of tiles.
CELL_PX = 36 * TILE_PX
#: Pixels of the full resolution per pixel of a level.
STEPS = {"tiff": (1, 2, 4, 8, 16, 32), "svs": (1, 4, 16)}
APERIO = "Aperio Image Library v12.0.0\r\n{0}x{0} [0,0 {0}x{0}] (256x256) JPEG/RGB Q=80|AppMag = 20"


def make_slide(
    path: str | Path,
    side_px: int,
    kind: Literal["tiff", "svs"] = "tiff",
    *,
    directory: str | Path | None = None,
) -> Path:
    """Write a square slide: a pyramidal BigTIFF with JPEG tiles, generic or as Aperio writes it.

    The sections and the glass around them repeat every 18,432 px, so that a larger slide has more
    tissue of the same kind. The µm per pixel are in the file.
    """
    if directory is None and LOCAL.is_dir():
        directory = LOCAL
    pattern = _pattern(directory)
    options: dict[str, Any] = {
        "photometric": "rgb",
        "compression": "jpeg",
        "compressionargs": {"level": 80},
        "resolution": (1e4 / MPP, 1e4 / MPP),
        "resolutionunit": "CENTIMETER",
        "metadata": None,
        "maxworkers": 1,  # several encode all tiles in memory at once
    }
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for step in STEPS[kind]:
            level = np.asarray(pattern.reduce(step))
            shape = (-(-side_px // step),) * 2
            if kind == "svs":
                options["description"] = APERIO.format(shape[0]) + f"|MPP = {MPP}"
            file.write(
                _tiles(level, shape),
                shape=(*shape, 3),
                dtype=np.uint8,
                tile=(TILE_PX, TILE_PX),
                subfiletype=int(kind == "tiff" and step > 1),
                **options,
            )
            if kind == "svs" and step == 1:  # Aperio's second image is a thumbnail
                thumbnail = np.asarray(pattern.resize((1024, 1024)))
                file.write(thumbnail, rowsperstrip=16, **options)
    return Path(path)


def _pattern(directory: str | Path | None) -> Image.Image:
    """Four sections in a square."""
    sdata = stp.datasets.her2st(SECTIONS, directory=directory)
    pattern = Image.new("RGB", (2 * CELL_PX, 2 * CELL_PX))
    for k, section in enumerate(SECTIONS):
        pixels = sdata.images[f"{section}_image"]["scale0"]["image"].transpose("y", "x", "c")
        cell = Image.fromarray(pixels[:CELL_PX, :CELL_PX].to_numpy())
        pattern.paste(cell, (k % 2 * CELL_PX, k // 2 * CELL_PX))
    return pattern


def _tiles(pattern: NDArray[np.uint8], shape: tuple[int, int]) -> Iterator[NDArray[np.uint8]]:
    """Tiles of the repeated pattern, row by row."""
    side = np.arange(TILE_PX)
    for top in range(0, shape[0], TILE_PX):
        rows = pattern[(top + side) % len(pattern)]
        for left in range(0, shape[1], TILE_PX):
            yield rows[:, (left + side) % len(pattern)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path")
    parser.add_argument("--side-px", type=int, default=40_000)
    parser.add_argument("--kind", choices=STEPS, default="tiff")
    parser.add_argument("--directory")
    arguments = parser.parse_args()
    make_slide(arguments.path, arguments.side_px, arguments.kind, directory=arguments.directory)


if __name__ == "__main__":
    main()
