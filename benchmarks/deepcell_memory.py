"""Peak memory of a whole session with DeepCell: 100,000 cells, 45 neighbours, 1,024-wide tiles.

`tl.fit_deepcell` holds out cells, scales, trains some steps (memory is the same in every step) and
validates all held-out cells; `tl.predict` writes the table of predictions. The measurement covers
interpreter, packages, and the table itself with its embeddings, counts and graph. The peak resident
size is printed after each step; it never falls, so the increase of a step is what the step needs.

Cells lie at random in a square, on an image of zeros; embeddings and counts are random.
`deepcell.py` measures the time that the network takes.

    python benchmarks/deepcell_memory.py [--cells 100000] [--features 1024] [--hidden 1024] …
"""

from __future__ import annotations

import argparse
import datetime
import functools
import time

import lightning
import numpy as np
import scipy.sparse as sp
import torch
from spatialdata import SpatialData

import stpredict as stp
from stpredict._runtime import peak_memory
from stpredict.io._shared._assemble import assemble_section

# Target of the roadmap, in GiB.
TARGET_GIB = 4.0
#: Typical distance between the cells of a Xenium slide.
PITCH_UM = 10.0
DENSITY = 0.2


def phantom(options: argparse.Namespace) -> SpatialData:
    """Cells with counts, embeddings and a graph."""
    random = np.random.default_rng(options.seed)
    side = int(np.ceil(options.cells**0.5 * PITCH_UM)) + 1  # pixels of 1 µm
    genes = [f"gene {i}" for i in range(options.genes)]
    counts = sp.random(
        options.cells,
        options.genes,
        density=DENSITY,
        format="csr",
        dtype=np.float32,
        random_state=random,
        data_rvs=lambda n: random.integers(1, 9, n).astype(np.float32),
    )
    sdata = assemble_section(
        "cells",
        image=np.zeros((3, side, side), dtype=np.uint8),
        counts=counts,
        obs_names=[str(i) for i in range(options.cells)],
        var_names=genes,
        positions=random.random((options.cells, 2)) * (side - 1),
        mpp=1.0,
        diameter_um=PITCH_UM,
    )
    stp.pp.normalize(sdata)
    stp.pp.select_genes(sdata, genes)
    stp.pp.neighbors(sdata, n_neighbors=options.neighbors)
    table = sdata.tables["table"]
    table.obsm["X_random"] = random.standard_normal(
        (options.cells, options.features), dtype=np.float32
    )
    stp.pp.register_embedding(sdata, "X_random", encoder="random", tile_um=PITCH_UM)
    return sdata


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    defaults = {
        "cells": 100_000,
        "neighbors": 45,
        "features": 1024,
        "genes": 300,
        "hidden": 1024,
        "steps": 40,
        "threads": 2,
        "seed": 0,
    }
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=value, help=f"default {value}")
    return parser.parse_args()


def main() -> None:
    """Print the table."""
    options = parse_options()
    torch.set_num_threads(options.threads)
    stp.settings.verbosity = 0
    print(
        f"{datetime.date.today()}, stpredict {stp.__version__}, torch {torch.__version__}\n"
        f"{options.cells:,} cells, {options.neighbors} neighbours, {options.features} features, "
        f"{options.genes} genes, 10 + 10 members of {options.hidden}, {options.steps} steps\n\n"
        f"{'':>24} {'cpu s':>8} {'peak GiB so far':>16}"
    )

    def report(step: str, start: float) -> None:
        seconds = time.process_time() - start
        print(f"{step:>24} {seconds:8.0f} {peak_memory() / 2**30:16.2f}", flush=True)

    lightning.Trainer = functools.partial(lightning.Trainer, limit_train_batches=options.steps)
    report("imports", 0.0)
    start = time.process_time()
    sdata = phantom(options)
    report("table", start)
    start = time.process_time()
    model = stp.tl.fit_deepcell(
        sdata,
        embedding="X_random",
        network=stp.tl.DeepCellNetwork(n_hidden=options.hidden),
        schedule=stp.tl.Schedule(max_epochs=1, learning_rate=1e-4, batch_size=256, patch_size=64),
        device="cpu",
    )
    report("tl.fit_deepcell", start)
    start = time.process_time()
    stp.tl.predict(sdata, model, device="cpu")
    report("tl.predict", start)
    print(f"\ntarget at most {TARGET_GIB:.0f} GiB")


if __name__ == "__main__":
    main()
