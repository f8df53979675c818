"""Tiles per second of `pp.embed`, reading included, and of the bare encoder on tiles in memory.

A phantom slide is written to zarr and read back lazily, so that every chunk has to be decoded.
Each measurement runs in a process of its own; memory is its peak resident size minus its size
before embedding.

    python benchmarks/embedding.py [--encoders texture timm:resnet50] [--size-px 5000]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import spatialdata as sd
import timm
import torch

import stpredict as stp
from stpredict._runtime import peak_memory
from stpredict._sdata._spot_table import open_table
from stpredict.encoders._embed import embed_section, tile_side_px

MPP, TILE_UM, PITCH_UM = 0.5, 112.0, 60.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoders", nargs="+", default=["texture", "timm:resnet50"])
    parser.add_argument("--size-px", type=int, default=5000)
    parser.add_argument("--n-tiles", type=int, default=512)
    parser.add_argument("--only", nargs=3, metavar=("ENCODER", "N_SUBTILES", "ZARR"))
    arguments = parser.parse_args()
    stp.settings.verbosity = 0
    if arguments.only:
        encoder, n_subtiles, path = arguments.only
        print(json.dumps(measure(encoder, int(n_subtiles), Path(path), arguments.n_tiles)))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "slide.zarr"
        stp.datasets.phantom(size_px=arguments.size_px, mpp=MPP, pitch_um=PITCH_UM).write(path)
        print(f"{arguments.size_px} px slide, tiles of 224 px, {torch.get_num_threads()} threads")
        print(f"{'':24}{'tiles/s':>9}{'bare':>9}{'ratio':>8}{'peak MiB':>10}")
        for encoder in arguments.encoders:
            for n_subtiles in ("1", "3"):
                command = [sys.executable, __file__, "--only", encoder, n_subtiles, str(path)]
                command += ["--n-tiles", str(arguments.n_tiles)]
                output = subprocess.run(
                    command, stdout=subprocess.PIPE, text=True, check=True
                ).stdout
                result = json.loads(output.splitlines()[-1])
                label = f"{encoder}, {n_subtiles} x {n_subtiles}"
                print(
                    f"{label:24}{result['tiles_per_s']:9.0f}{result['bare_tiles_per_s']:9.0f}"
                    f"{result['bare_tiles_per_s'] / result['tiles_per_s']:8.2f}"
                    f"{result['peak_mib']:10.0f}",
                    flush=True,
                )


def load(name: str) -> stp.encoders.Encoder:
    """Load an encoder; networks of timm get random weights, which are as fast as trained ones."""
    if not name.startswith("timm:"):
        return stp.encoders.load(name)
    network = timm.create_model(name.removeprefix("timm:"), pretrained=False, num_classes=0)
    return stp.encoders.load(network, name="random")


def measure(name: str, n_subtiles: int, path: Path, n_tiles: int) -> dict[str, float]:
    sdata = sd.read_zarr(path)
    section = open_table(sdata).sections[0]
    centers = section.centers[:n_tiles]
    encoder = load(name)
    side = tile_side_px(encoder, TILE_UM)
    generator = np.random.default_rng(0)
    whole = torch.from_numpy(generator.integers(0, 256, (64, 3, side, side), dtype=np.uint8))
    part = whole[..., : side // n_subtiles, : side // n_subtiles].contiguous()
    encoder(whole[:2])  # warm-up: the first call allocates memory
    before = peak_memory()

    started = time.perf_counter()
    embed_section(
        section.levels,
        centers,
        encoder,
        mpp=section.mpp,
        fields_um=[TILE_UM],
        n_subtiles=n_subtiles,
    )
    seconds = time.perf_counter() - started
    peak = peak_memory()

    started = time.perf_counter()
    for start in range(0, len(centers), 64):
        n = min(64, len(centers) - start)
        encoder(whole[:n])
        for _ in range(n_subtiles**2 if n_subtiles > 1 else 0):
            encoder(part[:n])
    bare = time.perf_counter() - started
    return {
        "tiles_per_s": len(centers) / seconds,
        "bare_tiles_per_s": len(centers) / bare,
        "peak_mib": (peak - before) / 2**20,
    }


if __name__ == "__main__":
    main()
