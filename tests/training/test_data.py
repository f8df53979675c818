"""Batches hold each tile once and gather the requested rows."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stpredict.nn.deepsets import CONTEXTS, DeepSets
from stpredict.targets import Standard
from stpredict.training import Inputs, Measured, pad_neighbors, row_batches
from stpredict.training._batches import training_loader, validation_loader

N, D, S, G = 30, 5, 4, 3


def random_graph(seed=0, n=N, density=0.1):
    random = np.random.default_rng(seed)
    graph = sp.random_array((n, n), density=density, rng=random, format="csr")
    graph.setdiag(random.integers(0, 2, n))
    return sp.csr_matrix(graph)


def inputs_of(context="spot_subspot_neighbors", seed=0):
    random = np.random.default_rng(seed)
    uses_subtiles, uses_neighbors = CONTEXTS[context]
    center = random.normal(3, 2, (N, D)).astype(np.float32)
    subtiles = random.normal(size=(N, S, D)).astype(np.float32)
    return Inputs(
        center=center,
        scaler=Standard.fit(center),
        subtiles=subtiles if uses_subtiles else None,
        subtile_scaler=Standard.fit(subtiles.reshape(-1, D)) if uses_subtiles else None,
        neighbors=pad_neighbors(random_graph(seed)) if uses_neighbors else None,
    )


def targets_of(seed=0):
    return np.random.default_rng(seed).normal(size=(N, G)).astype(np.float32)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6), st.integers(1, 25), st.floats(0, 0.6))
def test_neighbors_are_padded_like_in_a_loop(seed, n, density):
    graph = random_graph(seed, n, density)
    padded = pad_neighbors(graph)
    dense = graph.toarray()
    naive = [[j for j in range(n) if j != i and dense[i, j] != 0] for i in range(n)]
    assert padded.dtype == np.int64
    assert padded.shape == (n, max(1, max(map(len, naive))))
    for row, expected in zip(padded, naive, strict=True):
        assert row[: len(expected)].tolist() == expected
        assert (row[len(expected) :] == -1).all()


def test_a_stored_zero_is_not_a_link():
    graph = sp.csr_matrix((np.array([0.0, 1.0]), ([0, 1], [1, 2])), shape=(3, 3))
    assert pad_neighbors(graph).tolist() == [[-1], [2], [-1]]


def test_a_graph_without_links_gives_no_neighbors():
    assert pad_neighbors(sp.csr_matrix((4, 4))).tolist() == [[-1]] * 4


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("n_rows", [1, 7, N])
def test_a_batch_holds_each_tile_once_and_gathers_the_requested_rows(context, n_rows):
    inputs, targets = inputs_of(context), targets_of()
    rows = np.random.default_rng(1).permutation(N)[:n_rows]
    batch = inputs.batch(rows, Measured(targets))

    scaled = inputs.scaler.transform(inputs.center)
    expected = set(rows.tolist())
    if inputs.neighbors is not None:
        expected |= set(inputs.neighbors[rows].ravel().tolist()) - {-1}
    assert len(batch.tiles) == len(expected)
    assert len(torch.unique(batch.tiles, dim=0)) == len(expected)
    np.testing.assert_array_equal(batch.tiles[batch.center], scaled[rows])
    np.testing.assert_array_equal(batch.targets, targets[rows])
    if inputs.subtiles is None:
        assert batch.subtiles is None
    else:
        naive = inputs.subtile_scaler.transform(inputs.subtiles[rows])
        np.testing.assert_array_equal(batch.subtiles, naive)
    if inputs.neighbors is None:
        assert batch.neighbors is None
        assert batch.neighbor_mask is None
    else:
        np.testing.assert_array_equal(batch.neighbor_mask, inputs.neighbors[rows] >= 0)
        for i, row in enumerate(rows):
            mask = batch.neighbor_mask[i]
            gathered = batch.tiles[batch.neighbors[i][mask]]
            neighbors = inputs.neighbors[row]
            np.testing.assert_array_equal(gathered, scaled[neighbors[neighbors >= 0]])


@pytest.mark.parametrize("context", CONTEXTS)
def test_a_network_predicts_the_same_from_a_batch_as_from_its_parts(context):
    inputs, rows = inputs_of(context), np.array([4, 0, 17, 29])
    torch.manual_seed(0)
    network = DeepSets(D, G, context=context, n_hidden=6, n_phi=3, n_rho=2).eval()
    parts = {"center": inputs.tiles(rows), "subtiles": inputs.subtiles_of(rows)}
    if inputs.neighbors is not None:
        neighbors = inputs.neighbors[rows]
        scaled = inputs.scaler.transform(inputs.center)
        parts["neighbors"] = torch.from_numpy(scaled[neighbors])  # -1: padded with the last tile
        parts["neighbor_mask"] = torch.from_numpy(neighbors >= 0)
    with torch.inference_mode():
        whole = inputs.batch(rows, Measured(targets_of())).predict(network)
        np.testing.assert_allclose(whole, network(**parts), atol=1e-6)


def test_validation_batches_cover_each_row_once():
    inputs, targets = inputs_of("spot"), targets_of()
    rows = np.arange(3, 26)
    batches = list(validation_loader(inputs, Measured(targets), rows, batch_size=8))
    assert [len(batch.center) for batch in batches] == [8, 8, 7]
    np.testing.assert_array_equal(torch.cat([batch.targets for batch in batches]), targets[rows])


def test_the_seed_of_the_generator_determines_the_shuffling():
    inputs, targets = inputs_of("spot"), targets_of()
    rows = np.arange(N)

    def order(seed):
        shuffled = training_loader(
            inputs,
            Measured(targets),
            rows,
            batch_size=8,
            generator=torch.Generator().manual_seed(seed),
        )
        return torch.cat([batch.targets for batch in shuffled]).numpy()

    assert not np.array_equal(order(0), targets)
    np.testing.assert_array_equal(np.sort(order(0), axis=0), np.sort(targets, axis=0))
    np.testing.assert_array_equal(order(0), order(0))
    assert not np.array_equal(order(0), order(1))


def test_rows_are_drawn_in_proportion_to_their_weights():
    inputs = inputs_of("spot_neighbors")
    rows = np.arange(4, 24)
    targets = np.arange(N, dtype=np.float32)[:, None]  # the target of a row is its number
    weights = np.where(rows < 14, 0.0, 1.0)
    weights[-1] = 11.0  # as much as the nine others plus two

    def drawn(seed):
        batches = training_loader(
            inputs,
            Measured(targets),
            rows,
            batch_size=8,
            generator=torch.Generator().manual_seed(seed),
            weights=weights,
        )
        return np.concatenate([batch.targets.numpy().ravel() for batch in batches]).astype(int)

    assert len(drawn(0)) == len(rows)  # an epoch is as long as without weights
    np.testing.assert_array_equal(drawn(0), drawn(0))
    assert not np.array_equal(drawn(0), drawn(1))
    times = np.bincount(np.concatenate([drawn(seed) for seed in range(100)]), minlength=N)
    assert times[:14].sum() == times[24:].sum() == 0
    np.testing.assert_allclose(times[14:24] / times.sum(), weights[10:] / weights.sum(), atol=0.03)


@pytest.mark.parametrize(("n", "size"), [(0, 4), (3, 4), (4, 4), (9, 4)])
def test_row_batches_cover_all_rows_in_order(n, size):
    parts = list(row_batches(n, size))
    assert np.concatenate([np.empty(0, int), *parts]).tolist() == list(range(n))
    assert all(0 < len(part) <= size for part in parts)


def test_patches_keep_neighbors_together_and_cover_each_row_once():
    inputs = dataclasses.replace(inputs_of("spot"), order=np.random.default_rng(0).permutation(N))
    numbers = np.arange(N, dtype=np.float32)[:, None]
    rows = np.arange(4, 28)

    def drawn(seed):
        batches = training_loader(
            inputs,
            Measured(numbers),
            rows,
            batch_size=6,
            patch_size=4,
            generator=torch.Generator().manual_seed(seed),
        )
        return np.concatenate([batch.targets.numpy().ravel() for batch in batches]).astype(int)

    place = np.argsort(inputs.order)
    rank = {row: i for i, row in enumerate(sorted(rows, key=lambda row: place[row]))}
    steps = np.diff([rank[row] for row in drawn(0)])
    assert sorted(drawn(0)) == rows.tolist()
    assert (steps == 1).sum() >= len(rows) - 1 - len(rows) / 4 - 1  # one jump between patches
    np.testing.assert_array_equal(drawn(0), drawn(0))
    assert not np.array_equal(drawn(0), drawn(1))


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.integers(2, 70), min_size=1, max_size=6),
    st.integers(1, 100),
    st.booleans(),
    st.integers(0, 10**6),
)
def test_spots_of_a_section_stay_together_and_each_row_is_drawn_once(
    sizes, batch_size, is_weighted, seed
):
    section = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    n, rows = len(section), np.arange(1, len(section))
    center = np.zeros((n, 2), dtype=np.float32)
    measured = Measured(np.arange(n, dtype=np.float32)[:, None], section=section)

    def drawn():
        batches = training_loader(
            Inputs(center=center, scaler=Standard.fit(center)),
            measured,
            rows,
            batch_size=batch_size,
            generator=torch.Generator().manual_seed(seed),
            weights=np.ones(len(rows)) if is_weighted else None,
            within_sections=True,
        )
        return list(batches)

    order = torch.cat([batch.targets.ravel() for batch in drawn()]).numpy().astype(int)
    np.testing.assert_array_equal(torch.cat([batch.section for batch in drawn()]), section[order])
    assert len(order) == len(rows)
    if not is_weighted:
        assert sorted(order) == rows.tolist()
    changes = np.count_nonzero(np.diff(section[order]))
    n_runs = sum(-(-size // 32) for size in np.unique(section[order], return_counts=True)[1])
    assert changes < max(1, n_runs)


def test_runs_of_a_section_differ_between_epochs_and_seeds():
    inputs, rows = inputs_of("spot"), np.arange(N)
    measured = Measured(np.arange(N, dtype=np.float32)[:, None], section=np.arange(N) % 2)

    def drawn(seed):
        loader = training_loader(
            inputs,
            measured,
            rows,
            batch_size=8,
            generator=torch.Generator().manual_seed(seed),
            within_sections=True,
        )
        return [torch.cat([batch.targets.ravel() for batch in loader]).tolist() for _ in range(2)]

    assert drawn(0) == drawn(0)
    assert drawn(0) != drawn(1)
    assert drawn(0)[0] != drawn(0)[1]


def test_validation_follows_the_spatial_order():
    order = np.random.default_rng(0).permutation(N)
    inputs = dataclasses.replace(inputs_of("spot"), order=order)
    numbers, rows = np.arange(N, dtype=np.float32)[:, None], np.arange(4, 28)
    batches = validation_loader(inputs, Measured(numbers), rows, batch_size=6)
    rows_in_batches = np.concatenate([b.targets.numpy().ravel() for b in batches]).astype(int)
    np.testing.assert_array_equal(rows_in_batches, [row for row in order if row in set(rows)])
