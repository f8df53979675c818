"""Nulls: measured neighbours, and maps moved within the section."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.spatial.distance import cdist

from stpredict import metrics


def square():
    return np.argwhere(np.ones((20, 20))).astype(float)


def disc():
    rows, columns = np.argwhere(np.ones((26, 26))).T
    positions = np.stack([columns + rows % 2 / 2, rows * 3**0.5 / 2], axis=1)
    return positions[np.linalg.norm(positions - positions.mean(axis=0), axis=1) < 11]


def corner():
    """A section that fills little of its bounding box."""
    positions = 2 * square() + [300, -80]
    return positions[(positions < [316, -64]).any(axis=1)]


SECTIONS = [square, disc, corner]


def smooth_maps(positions, n_maps, seed, reach=3.0):
    """Independent Gaussian fields with a correlation length of a few spots."""
    pitch = np.median(np.sort(cdist(positions, positions))[:, 1])
    covariance = np.exp(-((cdist(positions, positions) / pitch / reach) ** 2) / 2)
    root = np.linalg.cholesky(covariance + 1e-6 * np.eye(len(positions)))
    return root @ np.random.default_rng(seed).normal(size=(len(positions), n_maps))


class TestSpatialNull:
    @pytest.mark.parametrize("section", SECTIONS)
    @pytest.mark.parametrize("reach", [1.5, 3.0])
    def test_the_null_distribution_of_smooth_maps_is_calibrated(self, section, reach):
        positions = section()
        measured, predicted = (smooth_maps(positions, 400, seed, reach) for seed in (0, 1))
        truth = metrics.pcc(measured, predicted).std()
        generator = np.random.default_rng(0)
        moved, shuffled = [], []
        for genes in np.split(np.arange(400), 80):
            index = metrics.spatial_null(positions, generator=generator)
            moved.append(metrics.pcc(measured[:, genes], predicted[index][:, genes]))
            order = generator.permutation(len(positions))
            shuffled.append(metrics.pcc(measured[:, genes], predicted[order][:, genes]))
        assert 0.85 < np.std(moved) / truth < 1.2
        assert abs(np.mean(moved)) < 0.1 * truth + 0.02
        assert np.std(shuffled) < 0.7 * truth

    @pytest.mark.parametrize("section", SECTIONS)
    def test_moved_maps_keep_their_autocorrelation(self, section):
        positions = section()
        maps = smooth_maps(positions, 20, 0)
        distances = cdist(positions, positions)
        graph = sp.csr_array((distances > 0) & (distances < 1.2 * np.sort(distances)[:, 1].max()))
        before = metrics.morans_i(maps, graph).mean()
        generator = np.random.default_rng(0)
        after = [
            metrics.morans_i(maps[metrics.spatial_null(positions, generator=generator)], graph)
            for _ in range(20)
        ]
        assert np.mean(after) == pytest.approx(before, abs=0.07)

    @pytest.mark.parametrize("section", SECTIONS)
    def test_every_motion_displaces_the_section(self, section):
        positions = section()
        maps = smooth_maps(positions, 20, 0)
        spread = np.sqrt(positions.var(axis=0).sum())
        generator = np.random.default_rng(0)
        similarity = []
        for _ in range(100):
            index = metrics.spatial_null(positions, generator=generator)
            assert np.median(np.linalg.norm(positions - positions[index], axis=1)) >= spread / 2
            similarity.append(metrics.pcc(maps, maps[index]).mean())
        assert abs(np.mean(similarity)) < 0.05
        assert np.max(similarity) < 0.6

    def test_the_null_is_an_index_determined_by_the_generator(self):
        positions = disc()
        first, again, other = (
            metrics.spatial_null(positions, generator=np.random.default_rng(seed))
            for seed in (0, 0, 1)
        )
        assert first.shape == (len(positions),)
        assert np.issubdtype(first.dtype, np.integer)
        assert first.min() >= 0
        assert first.max() < len(positions)
        np.testing.assert_array_equal(first, again)
        assert (first != other).any()

    def test_the_null_does_not_depend_on_the_unit(self):
        indices = [
            metrics.spatial_null(positions, generator=np.random.default_rng(0))
            for positions in (disc(), 1000 * disc())
        ]
        assert np.mean(indices[0] == indices[1]) > 0.99

    @pytest.mark.parametrize(
        "positions", [[[0, 0], [0, 1]], np.stack([np.arange(30), np.zeros(30)], axis=1)]
    )
    def test_two_spots_and_spots_on_a_line_are_accepted(self, positions):
        index = metrics.spatial_null(positions, generator=np.random.default_rng(0))
        assert index.shape == (len(positions),)

    def test_invalid_positions_are_refused(self):
        generator = np.random.default_rng(0)
        with pytest.raises(ValueError, match=r"must be \(n_spots, 2\): \(3, 3\)"):
            metrics.spatial_null(np.zeros((3, 3)), generator=generator)
        with pytest.raises(ValueError, match="positions of 1 spots are NaN"):
            metrics.spatial_null([[0, 0], [np.nan, 1]], generator=generator)


class TestNeighborMean:
    def graph(self, n_spots=30, seed=0):
        random = np.random.default_rng(seed)
        weights = random.random((n_spots, n_spots)) * (random.random((n_spots, n_spots)) < 0.2)
        np.fill_diagonal(weights, 0)
        weights[4] = 0
        return weights

    def test_it_equals_the_weighted_mean_of_a_naive_loop(self):
        graph = self.graph()
        values = np.random.default_rng(1).poisson(1, (30, 5)).astype(float)
        expected = [
            np.average(values, axis=0, weights=row) if row.any() else values.mean(axis=0)
            for row in graph
        ]
        means = metrics.neighbor_mean(values, sp.csr_array(graph))
        np.testing.assert_allclose(means, expected, atol=1e-12)

    def test_a_spot_is_not_its_own_neighbour(self):
        graph = self.graph()
        values = np.random.default_rng(1).normal(size=(30, 5))
        expected = metrics.neighbor_mean(values, graph)
        np.testing.assert_array_equal(metrics.neighbor_mean(values, graph + np.eye(30)), expected)
        other = values.copy()
        other[7] = 1e6
        np.testing.assert_allclose(metrics.neighbor_mean(other, graph)[7], expected[7])

    def test_an_explicit_zero_is_not_an_edge(self):
        graph = sp.csr_array(([0.0, 1.0, 1.0], ([0, 1, 2], [1, 0, 0])), shape=(3, 3))
        means = metrics.neighbor_mean(np.array([[1.0], [2.0], [6.0]]), graph)
        np.testing.assert_array_equal(means, [[3], [1], [1]])

    @pytest.mark.parametrize(
        ("dtype", "expected"),
        [(np.float32, np.float32), (np.float64, np.float64), (int, np.float64)],
    )
    def test_float32_is_kept_and_other_dtypes_become_float64(self, dtype, expected):
        values = np.ones((30, 2), dtype=dtype)
        assert metrics.neighbor_mean(values, self.graph()).dtype == expected
