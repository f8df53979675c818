"""Speed on one GPU: embedding, a DeepSpot epoch, prediction of cells; and agreement with the CPU.

Networks have random weights, and the slide is a phantom. Every figure is the median of three runs
after a warm-up. ``--device cpu --size-px 700 --spots 64 --cells 200`` tries the script on a machine
without a GPU.

    python benchmarks/gpu.py [--encoders timm:resnet50 timm:vit_large_patch16_224]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import spatialdata as sd
import timm
import torch
from torch.nn import functional as F

import stpredict as stp
from stpredict.encoders._embed import tile_side_px
from stpredict.nn import DeepCell, DeepSets
from stpredict.targets import Standard
from stpredict.training import Inputs, Measured, fit_network

TILE_UM, BATCH = 112.0, 64
#: Largest difference between predictions on the GPU and on the CPU, in standard deviations of a
#: gene: matrix products on a GPU round differently.
LIMIT_DIFFERENCE = 1e-2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    encoders = ["timm:resnet50", "timm:vit_large_patch16_224"]
    parser.add_argument("--encoders", nargs="+", default=encoders)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--size-px", type=int, default=8000)
    parser.add_argument("--cells", type=int, default=200_000)
    parser.add_argument("--spots", type=int, default=1024)
    options = parser.parse_args()
    stp.settings.verbosity = 0
    is_cuda = options.device.startswith("cuda")
    print(torch.cuda.get_device_name(options.device) if is_cuda else options.device)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "slide.zarr"
        stp.datasets.phantom(size_px=options.size_px, mpp=0.5, pitch_um=60.0).write(path)
        for name in options.encoders:
            embed(name, path, options.device)
    deepspot_epoch(options.device, options.spots)
    predict_cells(options.device, options.cells)
    agree(options.device)


def median_seconds(run: Callable[[], object], device: str) -> tuple[float, float]:
    """Median seconds of a call, and the peak memory of the GPU in GiB."""
    is_cuda = device.startswith("cuda")
    run()
    if is_cuda:
        torch.cuda.reset_peak_memory_stats(device)
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        run()
        if is_cuda:
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds), torch.cuda.max_memory_allocated(device) / 2**30 * is_cuda


def embed(name: str, path: Path, device: str) -> None:
    """Tiles per second of `pp.embed` from zarr, and of the bare encoder on tiles in memory."""
    network = timm.create_model(name.removeprefix("timm:"), pretrained=False, num_classes=0)
    # as for the encoders of the registry, mixed precision on a GPU
    record = stp.encoders.EncoderRecord(
        "random", lambda: network, input_px=224, mean=(0.5,) * 3, std=(0.25,) * 3
    )
    encoder = stp.encoders.load(record).to(device)
    sdata = sd.read_zarr(path)
    n_tiles = len(sdata["table"])
    whole, memory = median_seconds(
        lambda: stp.pp.embed(sdata, record, tile_um=TILE_UM, batch_size=BATCH, device=device),
        device,
    )
    side = tile_side_px(encoder, TILE_UM)
    generator = torch.Generator().manual_seed(0)
    tiles = torch.randint(0, 256, (BATCH, 3, side, side), dtype=torch.uint8, generator=generator)
    sizes = [min(BATCH, n_tiles - start) for start in range(0, n_tiles, BATCH)]
    bare, _ = median_seconds(lambda: [encoder(tiles[:size]).cpu() for size in sizes], device)
    print(
        f"{name}: {n_tiles / whole:.0f} tiles/s with reading, {n_tiles / bare:.0f} bare, ratio "
        f"{whole / bare:.2f}, {memory:.1f} GiB",
        flush=True,
    )


def random_inputs(n: int, d: int, *, n_subtiles: int, n_neighbors: int) -> Inputs:
    random = np.random.default_rng(0)
    center = random.standard_normal((n, d), dtype=np.float32)
    scaler = Standard.fit(center)
    subtiles = None
    if n_subtiles:
        subtiles = random.standard_normal((n, n_subtiles, d), dtype=np.float32)
    neighbors = (np.arange(n)[:, None] + np.arange(1, n_neighbors + 1)) % n
    return Inputs(center, scaler, subtiles, scaler if n_subtiles else None, neighbors)


def deepspot_epoch(device: str, n_spots: int) -> None:
    """Seconds of an epoch: (1 + 9 + 8) tiles per spot, 1,024 features, 1,000 genes."""
    n, d, g = n_spots + 64, 1024, 1000
    inputs = random_inputs(n, d, n_subtiles=9, n_neighbors=8)
    targets = np.random.default_rng(1).standard_normal((n, g), dtype=np.float32)

    def train(n_epochs: int) -> None:
        schedule = stp.tl.Schedule(max_epochs=n_epochs, patience=n_epochs, monitor="loss")
        fit_network(
            lambda: DeepSets(d, g),
            inputs,
            Measured(targets),
            training=np.arange(n_spots),
            validation=np.arange(n_spots, n),
            loss=F.mse_loss,
            schedule=schedule,
            seed=0,
            device=device,
        )

    (one, _), (four, memory) = (median_seconds(lambda k=k: train(k), device) for k in (1, 4))
    print(f"DeepSpot epoch: {(four - one) / 3:.2f} s, {memory:.1f} GiB", flush=True)


@torch.inference_mode()
def predict_cells(device: str, n_cells: int) -> None:
    """Cells per second of DeepCell: 1,024 features, 45 neighbours, 1,000 genes."""
    inputs = random_inputs(n_cells, 1024, n_subtiles=0, n_neighbors=45)
    network = DeepCell(1024, 1000).to(device).eval()

    def predict() -> None:
        for _, predicted, _ in inputs.walk(network, torch.device(device), members=False):
            predicted.cpu()

    seconds, memory = median_seconds(predict, device)
    print(f"DeepCell: {n_cells / seconds:,.0f} cells/s, {memory:.1f} GiB", flush=True)


def agree(device: str) -> None:
    """Difference between predictions of one model on this device and on the CPU."""
    sdata = stp.datasets.phantom(2, size_px=600)
    stp.pp.normalize(sdata)
    stp.pp.select_genes(sdata, n_top_genes=20)
    stp.pp.embed(sdata, n_subtiles=3)
    stp.pp.neighbors(sdata)
    model = stp.tl.fit_deepspot(sdata, schedule=stp.tl.Schedule(max_epochs=5))
    for name in ("cpu", device):
        stp.tl.predict(sdata, model, device=name, key_added=name.replace(":", "_"))
    one, other = (np.asarray(sdata[name.replace(":", "_")].X) for name in ("cpu", device))
    difference = float((np.abs(one - other) / one.std(axis=0)).max())
    print(f"largest difference from the CPU: {difference:.1e} standard deviations of a gene")
    if difference > LIMIT_DIFFERENCE:
        raise SystemExit(f"the limit is {LIMIT_DIFFERENCE:g}")


if __name__ == "__main__":
    main()
