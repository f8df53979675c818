"""Time and memory of the scores per gene on a section of a million spots.

Measured values are a sparse matrix in memory with one value in ten above 0; predicted values are a
lazy dask array that is generated when it is read, in chunks of genes or of spots. Every case runs
in a process of its own; memory is its peak resident size, including Python, packages and the
measured matrix. On fewer spots, the same scores are computed from whole dense matrices with numpy
and scipy, and compared.

    python benchmarks/metrics.py
    python benchmarks/metrics.py --n-spots 50000 --n-genes 1000
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

import dask
import dask.array as da
import numpy as np
import scipy.sparse as sp
from scipy.stats import rankdata

# Target of the roadmap.
TARGET_GB = 8
#: In a spot, one of this many genes is not 0.
EVERY = 10


def draw_measured(n_spots: int, n_genes: int) -> sp.csr_array:
    """Draw counts of one gene in ten in every spot, some spots at a time."""
    random = np.random.default_rng(0)
    n_groups = n_genes // EVERY
    indices = np.empty((n_spots, n_groups), dtype=np.int32)
    data = np.empty((n_spots, n_groups), dtype=np.float32)
    for start in range(0, n_spots, 10_000):
        rows = slice(start, min(start + 10_000, n_spots))
        shape = (rows.stop - start, n_groups)
        indices[rows] = EVERY * np.arange(n_groups) + random.integers(EVERY, size=shape)
        data[rows] = np.log1p(random.poisson(2, size=shape) + 1)
    indptr = np.arange(n_spots + 1) * n_groups
    matrix = sp.csr_array((n_spots, n_genes), dtype=np.float32)
    matrix.data, matrix.indices, matrix.indptr = data.ravel(), indices.ravel(), indptr
    if matrix.nnz < 2**31:
        matrix.indptr = indptr.astype(np.int32)
    return matrix


def draw_predicted(n_spots: int, n_genes: int, chunks: str) -> da.Array:
    """Predictions that are smooth in spots, differ between genes and are cheap to compute."""
    shape = {"genes": (-1, 50), "spots": (10_000, -1)}[chunks]

    def compute(block_info: dict) -> np.ndarray:
        spots, genes = (np.arange(*span) for span in block_info[None]["array-location"])
        phase = np.float32(1e-4) * spots.astype(np.float32)[:, None]
        values = phase * (1 + genes.astype(np.float32) % 97) + genes.astype(np.float32)
        return np.sin(values, out=values)

    pieces = da.core.normalize_chunks(shape, (n_spots, n_genes), dtype=np.float32)
    return da.map_blocks(
        compute, chunks=pieces, dtype=np.float32, meta=np.empty((0, 0), np.float32)
    )


def naive(measured: sp.csr_array, predicted: da.Array, scores: list[str]) -> dict[str, np.ndarray]:
    """Compute scores from whole dense matrices, one by one."""

    def pcc(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        x, y = x - x.mean(axis=0), y - y.mean(axis=0)
        return (x * y).sum(axis=0) / np.sqrt((x**2).sum(axis=0) * (y**2).sum(axis=0))

    def auc(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        n = (x != 0).sum(axis=0)
        ranks = np.where(x != 0, rankdata(y, axis=0), 0).sum(axis=0)
        return (ranks - n * (n + 1) / 2) / (n * (len(x) - n))

    functions = {
        "pcc": pcc,
        "spearman": lambda x, y: pcc(rankdata(x, axis=0), rankdata(y, axis=0)),
        "rmse": lambda x, y: np.sqrt(((x - y) ** 2).mean(axis=0)),
        "mae": lambda x, y: np.abs(x - y).mean(axis=0),
        "explained_variance": lambda x, y: 1 - (x - y).var(axis=0) / x.var(axis=0),
        "variance_ratio": lambda x, y: y.var(axis=0) / x.var(axis=0),
        "auc": auc,
    }
    dense = measured.toarray().astype(np.float64), predicted.compute().astype(np.float64)
    return {name: functions[name](*dense) for name in scores}


def measure(case: str, n_spots: int, n_genes: int, chunks: str, scores: list[str]) -> None:
    from stpredict import metrics
    from stpredict._runtime import peak_memory

    measured = draw_measured(n_spots, n_genes)
    predicted = draw_predicted(n_spots, n_genes, chunks)
    metrics.per_gene(measured[:100], predicted[:100], names=scores)  # warm-up
    before = peak_memory()
    start = time.perf_counter(), time.process_time()
    if case == "naive":
        values = naive(measured, predicted, scores)
    else:
        values = metrics.per_gene(measured, predicted, names=scores)
    seconds, cpu = time.perf_counter() - start[0], time.process_time() - start[1]
    peak = peak_memory()
    print(
        f"{case:>8} {n_spots:9,} × {n_genes:,}: {seconds:7.1f} s ({cpu:.0f} s of CPU), peak "
        f"{peak / 2**30:5.2f} GiB in total, {before / 2**30:5.2f} of it before",
        flush=True,
    )
    if case == "compare":
        for name, expected in naive(measured, predicted, scores).items():
            np.testing.assert_allclose(values[name], expected, rtol=1e-6, atol=1e-9, err_msg=name)
        print(f"         equal to scores of whole matrices: {', '.join(scores)}", flush=True)
    elif case == "blocks":
        below = "below" if peak * 1024 < TARGET_GB * 1e9 else "NOT below"
        print(f"         {below} the target of {TARGET_GB} GB", flush=True)


def main() -> None:
    everything = "pcc,spearman,rmse,mae,explained_variance,variance_ratio,auc"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n-spots", type=int, default=1_000_000)
    parser.add_argument("--n-genes", type=int, default=5000)
    parser.add_argument("--n-spots-naive", type=int, default=20_000)
    parser.add_argument("--chunks", choices=["genes", "spots"], default="genes")
    parser.add_argument("--scores", default=everything, help="names, separated by commas")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    scores = options.scores.split(",")
    dask.config.set(scheduler="threads", num_workers=2)
    if options.case:
        measure(options.case, options.n_spots, options.n_genes, options.chunks, scores)
        return
    print(f"{', '.join(scores)}; predicted in chunks of {options.chunks}")
    small = min(options.n_spots, options.n_spots_naive)
    for case, n_spots in (("compare", small), ("naive", small), ("blocks", options.n_spots)):
        sizes = ["--n-spots", str(n_spots), "--n-genes", str(options.n_genes)]
        arguments = ["--chunks", options.chunks, "--scores", options.scores, "--case", case]
        subprocess.run([sys.executable, __file__, *sizes, *arguments], check=True)


if __name__ == "__main__":
    main()
