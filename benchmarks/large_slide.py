"""Peak memory and time of preprocessing a slide of 20,000 × 20,000 px.

The slide is a phantom: tissue repeated over the slide, within a rim of glass, computed chunk by
chunk when it is read; once with the full resolution only, once as a pyramid. Each measurement runs
in a process of its own; memory is its peak resident size, including its libraries.

    python benchmarks/large_slide.py [--size-px 20000] [--limit-mib 2048]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import dask.array as da
import matplotlib as mpl
import numpy as np
import spatialdata as sd
from spatialdata.models import Image2DModel
from spatialdata.transformations import Scale

import stpredict as stp
from stpredict._runtime import peak_memory

if TYPE_CHECKING:
    from collections.abc import Callable

MPP, CHUNK_PX = 0.5, 1024
STORED = {"single scale": None, "pyramid": [2, 2, 2, 2]}

#: Steps in the order in which they are run, each on the result of those before.
STEPS: dict[str, Callable[[sd.SpatialData], object]] = {
    "detect_tissue": lambda sdata: stp.pp.detect_tissue(sdata),
    "grid": lambda sdata: stp.pp.grid(sdata, "slide_image"),
    "normalize_stain": lambda sdata: stp.pp.normalize_stain(sdata),
    "pl.tissue": lambda sdata: stp.pl.tissue(sdata),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size-px", type=int, default=20_000)
    parser.add_argument("--limit-mib", type=float, default=2048)
    parser.add_argument("--only", choices=STORED)
    arguments = parser.parse_args()
    stp.settings.verbosity = 0
    mpl.use("agg")
    if arguments.only:
        print(json.dumps(measure(arguments.only, arguments.size_px)))
        return
    print(f"{arguments.size_px} px slide")
    print(f"{'':16}{'':16}{'seconds':>9}{'peak MiB':>10}")
    worst = 0.0
    for stored in STORED:
        command = [sys.executable, __file__, "--only", stored, "--size-px", str(arguments.size_px)]
        output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        for step, (seconds, peak) in json.loads(output.splitlines()[-1]).items():
            print(f"{stored:16}{step:16}{seconds:9.1f}{peak:10.0f}", flush=True)
            worst = max(worst, peak)
    if worst > arguments.limit_mib:
        raise SystemExit(f"{worst:.0f} MiB is more than {arguments.limit_mib:.0f}")


def slide(stored: str, size_px: int) -> sd.SpatialData:
    """A slide of phantom tissue with a rim of glass."""
    pattern = stp.datasets.phantom(size_px=2 * CHUNK_PX, mpp=MPP, n_null=2)
    pixels = np.asarray(pattern.images["S1_image"]["scale0"].ds["image"].data)
    middle = slice(CHUNK_PX // 2, CHUNK_PX // 2 + CHUNK_PX)
    tissue, glass = pixels[:, middle, middle].copy(), pixels[:, :8, :8].mean((1, 2)).round()

    def chunk(block_info: dict | None = None) -> np.ndarray:
        _, (y0, y1), (x0, x1) = block_info[None]["array-location"]
        block = tissue[:, : y1 - y0, : x1 - x0].copy()
        y, x = np.ogrid[y0:y1, x0:x1]
        off_tissue = np.hypot(y - size_px / 2, x - size_px / 2) > 0.4 * size_px
        block[:, off_tissue] = glass.astype(np.uint8)[:, None]
        return block

    side = da.core.normalize_chunks(CHUNK_PX, (size_px,))[0]
    image = da.map_blocks(
        chunk, chunks=((3,), side, side), dtype=np.uint8, meta=np.empty((0, 0, 0), np.uint8)
    )
    element = Image2DModel.parse(
        image,
        dims=("c", "y", "x"),
        scale_factors=STORED[stored],
        transformations={"slide_um": Scale([MPP, MPP], axes=("x", "y"))},
    )
    return sd.SpatialData(images={"slide_image": element})


def measure(stored: str, size_px: int) -> dict[str, tuple[float, float]]:
    sdata = slide(stored, size_px)
    measurements = {"before": (0.0, peak_memory() / 2**20)}
    for name, step in STEPS.items():
        started = time.perf_counter()
        step(sdata)
        measurements[name] = time.perf_counter() - started, peak_memory() / 2**20
    return measurements


if __name__ == "__main__":
    main()
