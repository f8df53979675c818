"""Time and memory of `pp.rank_expression` on a large sparse section.

Counts of a section are drawn at a given density and saved. Every case reads them in a process of
its own; memory is the peak resident size of the process minus its size before the call. The result
for all genes is dense float32; "beyond it" is the memory of the work itself.

    python benchmarks/ranks.py
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from scipy.stats import rankdata

# Target of the roadmap.
TARGET_SECONDS = 30


def draw(n_spots: int, n_genes: int, density: float) -> sp.csr_matrix:
    random = np.random.default_rng(0)
    rows = []
    for _ in range(n_spots):
        columns = np.flatnonzero(random.random(n_genes) < density)
        values = (random.poisson(2, len(columns)) + 1).astype(np.float32)
        rows.append(sp.csr_matrix((values, columns, [0, len(columns)]), shape=(1, n_genes)))
    return sp.vstack(rows, format="csr")


def measure(path: str, method: str, n_ranked: int) -> None:
    from stpredict._runtime import peak_memory
    from stpredict.pp._rank_expression import rank_rows

    counts = sp.load_npz(path)
    n_spots, n_genes = counts.shape
    columns = np.arange(n_ranked)
    rank_rows(counts[:2], columns, method=method, normalize=False)  # warm-up
    before = peak_memory()
    start = time.perf_counter()
    ranked = rank_rows(counts, columns, method=method, normalize=False)
    seconds = time.perf_counter() - start
    extra = (peak_memory() - before) / 2**20
    for row in np.random.default_rng(0).choice(n_spots, 20, replace=False):
        expected = rankdata(counts[row, :n_ranked].toarray().ravel(), method=method)
        np.testing.assert_array_equal(ranked[row], expected)
    result = ranked.nbytes / 2**20
    print(
        f"{method:>8} {n_ranked:7,} of {n_genes:,} genes: {seconds:6.1f} s, peak "
        f"{extra:6.0f} MiB: result {result:4.0f}, beyond it {extra - result:5.0f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spots", type=int, default=5000)
    parser.add_argument("--genes", type=int, default=18000)
    parser.add_argument("--density", type=float, default=0.2)
    parser.add_argument("--case", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        path, method, n_ranked = options.case
        measure(path, method, int(n_ranked))
        return
    print(f"{options.spots:,} spots, density {options.density:g}, target {TARGET_SECONDS} s")
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "counts.npz")
        sp.save_npz(path, draw(options.spots, options.genes, options.density), compressed=False)
        for method in ("average", "ordinal"):
            for n_ranked in (options.genes, 250):
                case = ["--case", path, method, str(n_ranked)]
                subprocess.run([sys.executable, __file__, *case], check=True)


if __name__ == "__main__":
    main()
