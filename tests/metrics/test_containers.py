"""Metrics do not depend on the container or on the size of blocks."""

from __future__ import annotations

import inspect
import tracemalloc

import dask
import dask.array as da
import numpy as np
import pytest
import scipy.sparse as sp

from stpredict import metrics
from stpredict.metrics import _blocks

N_SPOTS, N_GENES = 40, 9
POSITIONS = np.argwhere(np.ones((5, 8)))
NEAR = np.abs(POSITIONS[:, None] - POSITIONS[None]).sum(axis=-1) == 1


def dask_of(chunks):
    return lambda values: da.from_array(values, chunks=chunks)


def dask_of_sparse(kind):
    def convert(values):
        return dask_of((11, 4))(values).map_blocks(kind, dtype=values.dtype, meta=kind((0, 0)))

    return convert


CONTAINERS = {
    "list": lambda values: values.tolist(),
    "Fortran order": np.asfortranarray,
    "csr_array": sp.csr_array,
    "csc_array": sp.csc_array,
    "coo_array": sp.coo_array,
    "csr_matrix": sp.csr_matrix,
    "dask, chunks of spots": dask_of((7, -1)),
    "dask, chunks of genes": dask_of((-1, 2)),
    "dask, tiles": dask_of((11, 4)),
    "dask of csr_matrix": dask_of_sparse(sp.csr_matrix),
    "dask of csc_array": dask_of_sparse(sp.csc_array),
}


def of_values(score):
    return lambda measured, predicted: score(predicted, NEAR.astype(float))


def one_metric(name):
    return lambda *pair: metrics.per_gene(*pair, names=[name])[name]


SCORES = {
    **{name: one_metric(name) for name, record in metrics.METRICS.items() if record.function},
    "pcc_per_spot": metrics.pcc_per_spot,
    "spearman_per_spot": metrics.spearman_per_spot,
    "ssim": lambda measured, predicted: metrics.ssim(measured, predicted, POSITIONS),
    "morans_i": of_values(metrics.morans_i),
    "neighbor_mean": of_values(metrics.neighbor_mean),
    "gene_correlation": metrics.gene_correlation,
    "cluster_agreement": lambda measured, predicted: np.array(
        list(vars(metrics.cluster_agreement(measured, predicted, n_clusters=3)).values())
    ),
    "noise_ceiling": lambda measured, predicted: metrics.noise_ceiling(measured).pcc,
}


def pair(dtype=np.float64):
    random = np.random.default_rng(1)
    measured = random.poisson(0.8, (N_SPOTS, N_GENES)).astype(dtype)
    predicted = (measured + random.normal(size=measured.shape)).astype(dtype)
    measured[:, 3] = 0
    predicted[:, 5] = 0.25
    predicted[predicted < 0] = 0
    return measured, predicted


@pytest.fixture(params=[False, True], ids=["one block", "small blocks"])
def _sizes(request, monkeypatch):
    if request.param:
        monkeypatch.setattr(_blocks, "_BLOCK", 2 * N_SPOTS)
        monkeypatch.setattr(_blocks, "_SLAB", 5 * N_SPOTS * 8)


@pytest.mark.usefixtures("_sizes")
@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("container", CONTAINERS)
def test_every_container_gives_the_same_scores(score, container):
    measured, predicted = pair()
    expected = SCORES[score](measured, predicted)
    for sides in (
        (CONTAINERS[container](measured), CONTAINERS[container](predicted)),
        (CONTAINERS[container](measured), predicted),
        (measured, CONTAINERS[container](predicted)),
    ):
        np.testing.assert_allclose(SCORES[score](*sides), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("score", SCORES)
def test_the_input_is_unchanged(score):
    measured, predicted = pair()
    sides = sp.csr_array(measured), predicted.copy()
    SCORES[score](*sides)
    np.testing.assert_array_equal(sides[0].toarray(), measured)
    np.testing.assert_array_equal(sides[1], predicted)


def test_a_memory_mapped_file_is_read_as_an_array(tmp_path):
    measured, predicted = pair()
    file = np.memmap(tmp_path / "predicted", dtype=np.float64, mode="w+", shape=predicted.shape)
    file[:] = predicted
    np.testing.assert_array_equal(metrics.pcc(measured, file), metrics.pcc(measured, predicted))


def test_integers_and_booleans_are_accepted():
    measured, _ = pair()
    expressed = measured > 0
    np.testing.assert_array_equal(
        metrics.rmse(measured.astype(np.uint8), expressed), metrics.rmse(measured, expressed + 0.0)
    )


def test_a_lazy_array_is_computed_by_worker_processes():
    measured, predicted = pair()
    lazy = dask_of((11, 4))(predicted)
    with dask.config.set(scheduler="processes", num_workers=1):
        scores = metrics.pcc(measured, lazy)
    np.testing.assert_array_equal(scores, metrics.pcc(measured, predicted))


def counting_array(n_genes, chunks):
    """A lazy array of random numbers, and the list of chunks computed so far."""
    computed = []

    def convert(block, block_info):
        place = block_info[None]["array-location"]
        computed.append(place)
        random = np.random.default_rng([place[0][0], place[1][0]])
        return random.random(block.shape).astype(np.float32)

    empty = da.zeros((N_SPOTS, n_genes), chunks=chunks, dtype=np.float32)
    return empty.map_blocks(convert, dtype=np.float32, meta=np.empty((0, 0), np.float32)), computed


def test_a_lazy_array_in_chunks_of_genes_is_computed_once(monkeypatch):
    monkeypatch.setattr(_blocks, "_BLOCK", 2 * N_SPOTS)
    monkeypatch.setattr(_blocks, "_SLAB", 7 * N_SPOTS * 4)
    lazy, computed = counting_array(24, (-1, 3))
    metrics.per_gene(np.random.default_rng(0).random(lazy.shape), lazy)
    assert len(computed) == len({tuple(place) for place in computed}) == 8


def test_a_lazy_array_in_chunks_of_spots_is_computed_once_per_slab(monkeypatch):
    monkeypatch.setattr(_blocks, "_BLOCK", 2 * N_SPOTS)
    monkeypatch.setattr(_blocks, "_SLAB", 12 * N_SPOTS * 4)
    lazy, computed = counting_array(24, (10, -1))
    metrics.per_gene(np.random.default_rng(0).random(lazy.shape), lazy)
    assert len(computed) == 2 * 4


def test_memory_is_bounded_by_a_few_genes(monkeypatch):
    n_spots, n_genes = 2000, 2000
    monkeypatch.setattr(_blocks, "_BLOCK", 10 * n_spots)
    monkeypatch.setattr(_blocks, "_SLAB", 100 * n_spots * 8)
    measured = sp.random_array(
        (n_spots, n_genes), density=0.01, format="csr", rng=np.random.default_rng(0)
    )
    predicted = da.random.default_rng(0).random((n_spots, n_genes), chunks=(-1, 50))
    metrics.per_gene(measured[:, :50], predicted[:, :50])
    tracemalloc.start()
    metrics.per_gene(measured, predicted)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < n_spots * n_genes * 8 / 4


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("score", ["pcc", "ssim", "gene_correlation", "pcc_per_spot"])
def test_nan_is_reported_for_every_container(container, side, score):
    sides = list(pair())
    sides[side][[3, 8], 7] = np.nan
    sides[side] = CONTAINERS[container](sides[side])
    name = ("measured", "predicted")[side]
    with pytest.raises(ValueError, match=rf"2 {name} values are NaN or infinite, among "):
        SCORES[score](*sides)


#: Array arguments of metrics, with values that are accepted.
ARRAYS = {
    "measured": lambda: pair()[0],
    "predicted": lambda: pair()[1],
    "values": lambda: pair()[0],
    "counts": lambda: np.ones((N_SPOTS, N_GENES)),
    "positions": lambda: POSITIONS.astype(float),
    "graph": lambda: NEAR.astype(float),
    "pcc": lambda: np.linspace(0, 1, N_GENES),
    "ranking": lambda: np.arange(N_GENES, dtype=float),
}
OPTIONS = {
    "cluster_agreement": {"n_clusters": 3},
    "spatial_null": {"generator": np.random.default_rng(0)},
}
TAKES = {
    name: [key for key in inspect.signature(function).parameters if key in ARRAYS]
    for name in metrics.__all__
    if inspect.isfunction(function := getattr(metrics, name))
}


@pytest.mark.parametrize("places", [3, slice(None)], ids=["one", "all"])
@pytest.mark.parametrize(
    ("name", "argument"), [(name, key) for name, keys in TAKES.items() for key in keys]
)
def test_an_error_for_nan_names_the_argument(name, argument, places):
    arrays = {key: ARRAYS[key]() for key in TAKES[name]}
    arrays[argument].flat[places] = np.nan
    with pytest.raises(ValueError, match=rf"\b{argument}\b"):
        getattr(metrics, name)(**arrays, **OPTIONS.get(name, {}))


def test_the_genes_with_nan_are_reported(monkeypatch):
    monkeypatch.setattr(_blocks, "_BLOCK", 4 * N_SPOTS)
    measured, predicted = pair()
    predicted[0, 5] = np.nan
    with pytest.raises(ValueError, match=r"1 predicted values .* among genes 4 to 7"):
        metrics.pcc(measured, predicted)
