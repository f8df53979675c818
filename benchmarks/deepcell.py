"""DeepCell on a phantom of 100,000 cells with 45 neighbours: savings of gathering, and memory.

Prediction encodes every cell once and gathers (`stpredict.training.Inputs.walk`). The naive
alternative calls the network with the neighbours of every cell, which encodes each of them again
for every cell that it neighbours. Training draws batches as patches of tissue. Its alternatives are
single cells with their neighbours gathered for each, and single cells with every tile of a batch
encoded once.

Cells lie at random in a plane; embeddings are smooth in it plus noise. Each case runs in a process
of its own. Its peak resident size is printed, which includes the arrays of the phantom, and its
processor time, which does not depend on other processes. Only `walk` goes through all cells; the
other cases are timed on some steps and extrapolated.

    python benchmarks/deepcell.py [--cells 100000] [--batch 256] [--patch 64] …
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.neighbors import KDTree
from torch.nn import functional as F

import stpredict
from stpredict._runtime import peak_memory
from stpredict.nn import DeepCell
from stpredict.targets import Standard
from stpredict.training import Inputs, Measured
from stpredict.training._batches import training_loader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    Case = Callable[["DeepCell", Inputs, Measured, argparse.Namespace], dict[str, Any]]

# Targets of the roadmap.
TARGET_GIB, TARGET_RATIO = 4.0, 15.0
CPU = torch.device("cpu")


def phantom(options: argparse.Namespace) -> tuple[Inputs, Measured]:
    """Cells at random in a plane, with smooth and noisy embeddings and targets."""
    random = np.random.default_rng(options.seed)
    positions = random.random((options.cells, 2)) * options.cells**0.5
    tree = KDTree(positions)
    waves = np.cos(positions @ random.normal(0, 0.05, (2, 32)) + random.random(32) * 6)
    center = random.standard_normal((options.cells, options.features), dtype=np.float32)
    center += (waves @ random.normal(0, 0.3, (32, options.features))).astype(np.float32)
    targets = random.standard_normal((options.cells, options.targets), dtype=np.float32)
    neighbors = tree.query(positions, options.neighbors + 1, return_distance=False)[:, 1:]
    inputs = Inputs(
        center=center,
        scaler=Standard.fit(center),
        neighbors=np.ascontiguousarray(neighbors, dtype=np.int64),
        order=np.asarray(tree.get_arrays()[1], dtype=np.int64),
    )
    return inputs, Measured(targets)


def sample_of(options: argparse.Namespace) -> NDArray[np.intp]:
    """Cells whose predictions are compared between cases."""
    drawn = np.random.default_rng(1).choice(options.cells, options.sample, replace=False)
    return np.sort(drawn)


def with_neighbors(inputs: Inputs, rows: NDArray[np.intp]) -> dict[str, torch.Tensor]:
    """Embeddings of cells, and of the neighbours of each cell."""
    assert inputs.neighbors is not None
    near = inputs.neighbors[rows]
    tiles = inputs.tiles(np.maximum(near, 0).ravel()).unflatten(0, near.shape)
    mask = torch.from_numpy(near >= 0)
    return {"center": inputs.tiles(rows), "neighbors": tiles, "neighbor_mask": mask}


def predict_gathered(
    network: DeepCell, inputs: Inputs, measured: Measured, options: argparse.Namespace
) -> dict[str, Any]:
    """Predict all cells, and store the sample."""
    sample = sample_of(options)
    outputs = np.empty((len(sample), options.targets), dtype=np.float32)
    start = time.process_time()
    for rows, predicted, _ in inputs.walk(network.eval(), CPU):
        outputs[np.isin(sample, rows)] = predicted.numpy()[np.isin(rows, sample)]
    seconds = time.process_time() - start
    np.save(options.scratch / "gathered.npy", outputs)
    return {"seconds": seconds, "cells": len(inputs), "tiles": len(inputs)}


@torch.inference_mode()
def predict_naive(
    network: DeepCell, inputs: Inputs, measured: Measured, options: argparse.Namespace
) -> dict[str, Any]:
    """Predict the sample, with neighbours encoded for every cell."""
    sample, network = sample_of(options), network.eval()
    start = time.process_time()
    parts = [
        network(**with_neighbors(inputs, rows))
        for rows in np.array_split(sample, -(-len(sample) // options.batch))
    ]
    seconds = time.process_time() - start
    np.save(options.scratch / "naive.npy", torch.cat(parts).numpy())
    n_tiles = len(sample) * (1 + options.neighbors)
    return {"seconds": seconds, "cells": len(sample), "tiles": n_tiles}


def train_gathered(patch_size: int | None) -> Case:
    """Train on patches of this many cells, by default the number in the options."""

    def train(
        network: DeepCell, inputs: Inputs, measured: Measured, options: argparse.Namespace
    ) -> dict[str, Any]:
        loader = training_loader(
            inputs,
            measured,
            np.arange(len(inputs)),
            batch_size=options.batch,
            generator=torch.Generator().manual_seed(0),
            patch_size=patch_size or options.patch,
        )

        def batches() -> Iterator[tuple[torch.Tensor, torch.Tensor, int]]:
            for batch in loader:
                yield batch.predict(network), batch.targets, len(batch.tiles)

        return train_steps(network, batches(), options)

    return train


def train_naive(
    network: DeepCell, inputs: Inputs, measured: Measured, options: argparse.Namespace
) -> dict[str, Any]:
    """Train on single cells, with neighbours encoded for every cell."""

    def batches() -> Iterator[tuple[torch.Tensor, torch.Tensor, int]]:
        for drawn in torch.randperm(len(inputs)).split(options.batch):
            rows = drawn.numpy()
            predicted = network(**with_neighbors(inputs, rows))
            yield (
                predicted,
                torch.from_numpy(measured.targets[rows]),
                rows.size * (1 + options.neighbors),
            )

    return train_steps(network, batches(), options)


def train_steps(
    network: DeepCell,
    batches: Iterator[tuple[torch.Tensor, torch.Tensor, int]],
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Time some steps after a warm-up step."""
    optimizer = torch.optim.AdamW(network.train().parameters(), lr=1e-4, weight_decay=1e-6)
    n_cells = n_tiles = 0
    start = time.process_time()
    for step in range(options.steps + 1):
        predicted, targets, tiles = next(batches)
        optimizer.zero_grad()
        F.mse_loss(predicted, targets).backward()
        optimizer.step()
        if step == 0:
            start = time.process_time()
        else:
            n_cells, n_tiles = n_cells + len(targets), n_tiles + tiles
    return {"seconds": time.process_time() - start, "cells": n_cells, "tiles": n_tiles}


CASES: dict[str, Case] = {
    "predict, gathered": predict_gathered,
    "predict, naive": predict_naive,
    "train, patches": train_gathered(None),
    "train, cells one by one": train_gathered(1),
    "train, naive": train_naive,
}


def measure(case: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run one case."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    inputs, measured = phantom(options)
    network = DeepCell(options.features, options.targets, n_hidden=options.hidden)
    return CASES[case](network, inputs, measured, options) | {"gib": peak_memory() / 2**30}


def measure_in_process(case: str, scratch: str) -> dict[str, Any]:
    """Run `measure` with the same options in a fresh process."""
    command = [sys.executable, __file__, *sys.argv[1:], "--only", case, "--scratch", scratch]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(output.splitlines()[-1])


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    defaults = {
        "cells": 100_000,
        "neighbors": 45,
        "features": 1024,
        "targets": 338,
        "hidden": 1024,
        "batch": 256,
        "patch": 64,
        "steps": 4,
        "sample": 512,
        "threads": 2,
        "seed": 0,
    }
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=value, help=f"default {value}")
    parser.add_argument(
        "--cases", dest="cases_to_run", nargs="+", choices=CASES, default=list(CASES)
    )
    parser.add_argument("--only", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--scratch", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Print the table."""
    options = parse_options()
    if options.only:
        print(json.dumps(measure(options.only, options)))
        return
    print(
        f"{datetime.date.today()}, stpredict {stpredict.__version__}, torch {torch.__version__}\n"
        f"{options.cells:,} cells, {options.neighbors} neighbours, {options.features} features, "
        f"{options.targets} targets, 10 + 10 members of {options.hidden}, batches of "
        f"{options.batch}, patches of {options.patch}, {options.threads} threads\n\n"
        f"{'':>24} {'cpu s':>10} {'cells':>8} {'s for all':>10} {'tiles/cell':>10} "
        f"{'peak GiB':>9}"
    )
    runs = {}
    with tempfile.TemporaryDirectory() as scratch:
        for case in options.cases_to_run:
            runs[case] = run = measure_in_process(case, scratch)
            run["all"] = run["seconds"] / run["cells"] * options.cells
            print(
                f"{case:>24} {run['seconds']:10.1f} {run['cells']:8,} {run['all']:10.0f} "
                f"{run['tiles'] / run['cells']:10.2f} {run['gib']:9.2f}",
                flush=True,
            )
        conclude(runs, Path(scratch))


def conclude(runs: dict[str, dict[str, Any]], scratch: Path) -> None:
    """Print the ratios of the cases that ran."""
    for what, gathered in {"predict": "predict, gathered", "train": "train, patches"}.items():
        naive = f"{what}, naive"
        if {gathered, naive} <= runs.keys():
            ratio = runs[naive]["all"] / runs[gathered]["all"]
            memory = runs[gathered]["gib"]
            target = f" (target {TARGET_RATIO:.0f})" if what == "predict" else ""
            print(
                f"{what}: {ratio:.1f} times as fast as naive{target}, peak {memory:.2f} GiB "
                f"(target at most {TARGET_GIB:.0f})"
            )
    if {"predict, gathered", "predict, naive"} <= runs.keys():
        gathered, naive = (np.load(scratch / f"{name}.npy") for name in ("gathered", "naive"))
        print(
            f"the predictions of {len(gathered)} cells differ by at most "
            f"{np.abs(gathered - naive).max():g}, with values up to {np.abs(naive).max():.3g}"
        )


if __name__ == "__main__":
    main()
