"""One training epoch of DeepSpot: `stpredict.nn.DeepSets` compared with a naive implementation.

The naive network loops over the members of both ensembles, stacks their outputs, and runs phi once
for every occurrence of a tile. Both get the same spots on a square grid, their k nearest
neighbours, the same random batches, loss and optimizer. Every repetition runs each network in a
process of its own; memory is the peak resident size of the process minus its size before the
network was built. Wall time well above processor time means that the machine was shared.

    python benchmarks/deepsets_epoch.py
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor, nn

from stpredict._runtime import peak_memory
from stpredict.nn import DeepSets

# Targets of the roadmap.
TARGET_SPEEDUP = 1.4
TARGET_MEMORY = 0.7


class NaiveDeepSets(nn.Module):
    """The published layout: one module per member, with stacked outputs."""

    def __init__(self, n_features: int, n_targets: int, n_hidden: int, n_members: int) -> None:
        super().__init__()
        self.phi = nn.ModuleList(
            nn.Sequential(nn.Linear(n_features, n_hidden), nn.Dropout(0.3), nn.ReLU(inplace=True))
            for _ in range(n_members)
        )
        self.rho = nn.ModuleList(
            nn.Sequential(
                nn.Dropout(0.3),
                nn.ReLU(inplace=True),
                nn.Linear(3 * n_hidden, n_targets),
                nn.Dropout(0.1),
            )
            for _ in range(n_members)
        )

    def encode(self, x: Tensor) -> Tensor:
        """Map ``(n, s, d)`` to ``(n, s, h)``, each row separately."""
        rows = x.flatten(0, 1)
        median = torch.stack([phi(rows) for phi in self.phi], dim=1).median(dim=1).values
        return median.unflatten(0, x.shape[:2])

    def forward(self, center: Tensor, subtiles: Tensor, neighbors: Tensor) -> Tensor:
        """Predict ``(n, n_targets)``."""
        parts = [
            self.encode(center.unsqueeze(1)).squeeze(1),
            self.encode(subtiles).sum(1),
            self.encode(neighbors).max(1).values,
        ]
        x = torch.cat(parts, dim=1)
        return torch.stack([rho(x) for rho in self.rho], dim=1).mean(dim=1)


def make_network(name: str, options: argparse.Namespace, *, n_hidden: int) -> nn.Module:
    """Build one of the two networks."""
    sizes = {"n_features": options.features, "n_targets": options.genes, "n_hidden": n_hidden}
    if name == "naive":
        return NaiveDeepSets(**sizes, n_members=options.members)
    return DeepSets(**sizes, n_phi=options.members, n_rho=options.members)


def grid_neighbors(n_spots: int, k: int) -> Tensor:
    """Find the k nearest spots of each on a square grid, ``(n_spots, k)``."""
    side = int(np.ceil(np.sqrt(n_spots)))
    positions = np.stack(np.divmod(np.arange(n_spots), side), axis=1)
    return torch.from_numpy(cKDTree(positions).query(positions, k + 1)[1][:, 1:])


def predict(
    network: nn.Module, tiles: Tensor, subtiles: Tensor, *, spots: Tensor, neighbors: Tensor
) -> Tensor:
    """Predict one batch of spots."""
    if isinstance(network, NaiveDeepSets):
        return network(tiles[spots], subtiles[spots], tiles[neighbors])
    rows = torch.cat([spots.unsqueeze(1), neighbors], dim=1)
    distinct, inverse = rows.unique(return_inverse=True)
    return network.forward_gathered(
        tiles[distinct],
        center=inverse[:, 0],
        neighbors=inverse[:, 1:],
        subtiles=subtiles[spots],
    )


def measure(name: str, options: argparse.Namespace) -> dict[str, float]:
    """Time one epoch after a warm-up batch, and measure its memory."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    tiles = torch.randn(options.spots, options.features)
    subtiles = torch.randn(options.spots, options.subtiles, options.features)
    targets = torch.randn(options.spots, options.genes)
    neighbors = grid_neighbors(options.spots, options.neighbors)
    # the first optimizer of a process imports modules, which are not the network's memory
    torch.optim.AdamW(make_network(name, options, n_hidden=1).parameters())
    before = peak_memory()
    network = make_network(name, options, n_hidden=options.hidden)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, weight_decay=1e-6)

    def step(spots: Tensor) -> None:
        y = predict(network, tiles, subtiles, spots=spots, neighbors=neighbors[spots])
        loss = nn.functional.mse_loss(y, targets[spots])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    step(torch.randperm(options.spots)[: options.batch])
    start, start_cpu = time.perf_counter(), time.process_time()
    for spots in torch.randperm(options.spots).split(options.batch):
        step(spots)
    return {
        "seconds": time.perf_counter() - start,
        "cpu": time.process_time() - start_cpu,
        "mib": (peak_memory() - before) / 2**20,
    }


def measure_in_process(name: str) -> dict[str, float]:
    """Run `measure` with the same options in a fresh process."""
    command = [sys.executable, __file__, *sys.argv[1:], "--only", name]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(output)


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    defaults = {
        "spots": 4000,
        "features": 1024,
        "subtiles": 9,
        "neighbors": 6,
        "genes": 1000,
        "hidden": 512,
        "members": 10,
        "batch": 1024,
        "repeats": 3,
        "threads": 2,
        "seed": 0,
    }
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=value, help=f"default {value}")
    parser.add_argument("--only", choices=["naive", "batched"], help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Print the table."""
    options = parse_options()
    if options.only:
        print(json.dumps(measure(options.only, options)))
        return
    print(
        f"{options.spots} spots, {options.features} features, {options.subtiles} sub-tiles, "
        f"{options.neighbors} neighbours, {options.genes} genes, {options.members} + "
        f"{options.members} members of {options.hidden}, batch {options.batch}, "
        f"{options.threads} threads"
    )
    print(f"{'repeat':>6} {'network':>8} {'wall s':>7} {'cpu s':>7} {'peak MiB':>9}")
    ratios: dict[str, list[float]] = {"seconds": [], "cpu": [], "mib": []}
    for repeat in range(1, options.repeats + 1):
        runs = {name: measure_in_process(name) for name in ("naive", "batched")}
        for name, run in runs.items():
            cells = f"{run['seconds']:7.2f} {run['cpu']:7.2f} {run['mib']:9.0f}"
            print(f"{repeat:>6} {name:>8} {cells}", flush=True)
        for unit, values in ratios.items():
            values.append(runs["naive"][unit] / runs["batched"][unit])
    wall, cpu, memory = (statistics.median(values) for values in ratios.values())
    print(
        f"median speed-up {wall:.2f} (target {TARGET_SPEEDUP}), in processor time {cpu:.2f}; "
        f"median memory {1 / memory:.2f} of the naive (target at most {TARGET_MEMORY})"
    )


if __name__ == "__main__":
    main()
