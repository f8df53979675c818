"""Peak memory and time of `tl.predict_slide` on slides of three sizes, next to the bare encoder.

Slides repeat the sections of HER2ST; the model is a ridge regression on tiles and their neighbours,
embedded by a network of timm with random weights, which is as fast as a trained one. Each slide is
predicted in a process of its own, from the file to the files of the result. The bare encoder embeds
random tiles in memory in the same process, half of them before and half after.

    python benchmarks/slides.py [--encoder timm:resnet50] [--sizes 10000 20000 40000]
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
import timm
import torch
from _sections import LOCAL, read_sections
from safetensors.torch import save_file

import stpredict as stp
from stpredict._runtime import peak_memory
from stpredict.encoders._embed import tile_side_px

#: Random tiles that the bare encoder embeds.
N_TILES = 256
LIMIT_MIB = 2384  # 2.5 GB
#: Of the last slide: on small ones, seconds of imports are a large part.
LIMIT_RATIO = 1.2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoder", default="timm:resnet50")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 20_000, 40_000])
    parser.add_argument("--kind", choices=["tiff", "svs"], default="svs")
    parser.add_argument("--pitch-um", type=float)
    parser.add_argument("--train", type=Path, metavar="MODEL")
    parser.add_argument("--only", type=Path, nargs=2, metavar=("SLIDE", "MODEL"))
    arguments = parser.parse_args()
    stp.settings.verbosity = 0
    if arguments.train:
        train(arguments.encoder, arguments.train)
        return
    if arguments.only:
        print(json.dumps(measure(*arguments.only, arguments.encoder, arguments.pitch_um)))
        return
    print(f"{arguments.encoder}, {torch.get_num_threads()} threads")
    print(f"{'px':>7}{'spots':>8}{'MB':>7}{'ms/spot':>9}{'bare':>7}{'ratio':>7}{'peak MiB':>10}")
    most_mib = ratio = 0.0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model = folder / "model"
        # peak memory of a process includes that of the one that starts it: keep this one small
        run(__file__, "--encoder", arguments.encoder, "--train", model)
        for size in arguments.sizes:
            slide = folder / f"slide_{size}.{arguments.kind}"
            maker = Path(__file__).with_name("_slides.py")
            run(maker, slide, "--side-px", size, "--kind", arguments.kind)
            options = ["--encoder", arguments.encoder, "--only", slide, model]
            if arguments.pitch_um is not None:
                options += ["--pitch-um", arguments.pitch_um]
            result = json.loads(run(__file__, *options).splitlines()[-1])
            ratio = result["ms"] / result["bare_ms"]
            print(
                f"{size:7}{result['spots']:8}{slide.stat().st_size / 1e6:7.0f}{result['ms']:9.1f}"
                f"{result['bare_ms']:7.1f}{ratio:7.2f}{result['peak_mib']:10.0f}",
                flush=True,
            )
            slide.unlink()
            most_mib = max(most_mib, result["peak_mib"])
    if most_mib > LIMIT_MIB or ratio > LIMIT_RATIO:
        raise SystemExit(f"limits are {LIMIT_MIB} MiB and a ratio of {LIMIT_RATIO}")


def run(*command: object) -> str:
    """Run a script in a process of its own."""
    arguments = [sys.executable, *map(str, command)]
    return subprocess.run(arguments, stdout=subprocess.PIPE, text=True, check=True).stdout


def train(encoder: str, path: Path) -> None:
    """Save random weights and a model trained on them."""
    weights = path.parent / "weights.safetensors"
    torch.manual_seed(0)
    network = timm.create_model(encoder.removeprefix("timm:"), pretrained=False, num_classes=0)
    save_file(network.state_dict(), weights)
    sdata = read_sections(LOCAL if LOCAL.is_dir() else None, ["C2"])
    stp.pp.select_genes(sdata, n_top_genes=250)
    stp.pp.embed(sdata, encoder, weights=weights)
    stp.pp.neighbors(sdata)
    slot = next(iter(sdata["table"].obsm.keys() - {"spatial"}))
    stp.tl.fit_ridge(sdata, embedding=slot).save(path)


def measure(slide: Path, model_path: Path, name: str, pitch_um: float | None) -> dict[str, float]:
    weights = model_path.parent / "weights.safetensors"
    encoder, model = stp.encoders.load(name, weights=weights), stp.models.load(model_path)
    bare = time_encoder(encoder)
    started = time.perf_counter()
    result = stp.tl.predict_slide(
        slide, model, weights=weights, pitch_um=pitch_um, out=slide.parent / slide.stem
    )
    seconds = time.perf_counter() - started
    peak = peak_memory() / 2**20
    bare = (bare + time_encoder(encoder)) / 2
    spots = result.tables["predicted"].n_obs
    return {
        "spots": spots,
        "ms": 1000 * seconds / spots,
        "bare_ms": 1000 * bare,
        "peak_mib": peak,
    }


def time_encoder(encoder: stp.encoders.Encoder) -> float:
    """Seconds per tile."""
    side, batch = tile_side_px(encoder, 112.0), 64
    generator = np.random.default_rng(0)
    tiles = torch.from_numpy(generator.integers(0, 256, (batch, 3, side, side), dtype=np.uint8))
    encoder(tiles[:2])  # warm-up: the first call allocates memory
    started = time.perf_counter()
    for _ in range(N_TILES // 2 // batch):
        encoder(tiles)
    return (time.perf_counter() - started) / (N_TILES // 2)


if __name__ == "__main__":
    main()
