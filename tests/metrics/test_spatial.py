"""Maps against scikit-image and squidpy."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import squidpy as sq
from scipy.ndimage import gaussian_filter
from skimage.metrics import structural_similarity

from stpredict import metrics
from stpredict.metrics._grid import check_positions, rasterize

SHAPE = (14, 19)


def square():
    rows, columns = np.indices(SHAPE)
    return np.stack([columns.ravel(), rows.ravel()], axis=1).astype(float)


def hexagonal():
    positions = square()
    return np.stack([positions[:, 0] + positions[:, 1] % 2 / 2, positions[:, 1] * 3**0.5 / 2], 1)


def turned(positions, degrees, pitch=137.0):
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return pitch * positions @ turn.T + [5000, -300]


def maps(n_genes=4, seed=0):
    """Smooth maps, and noisy copies on another scale."""
    random = np.random.default_rng(seed)
    noise = random.normal(size=(n_genes, *SHAPE))
    measured = np.stack([gaussian_filter(gene, 2) for gene in noise]).reshape(n_genes, -1).T
    predicted = measured + 0.05 * random.normal(size=measured.shape)
    return 40 * measured + 7, predicted


def scaled(values):
    return (values - values.min()) / (values.max() - values.min())


class TestRaster:
    @pytest.mark.parametrize("lattice", [square, hexagonal])
    @pytest.mark.parametrize("degrees", [0, 3, 45, 90, 127])
    @pytest.mark.parametrize("jitter", [0, 0.04])
    def test_every_spot_of_a_lattice_has_one_pixel(self, lattice, degrees, jitter):
        positions = lattice()
        positions += jitter * np.random.default_rng(0).normal(size=positions.shape)
        raster = rasterize(turned(positions, degrees))
        shown, times = np.unique(raster.spot[raster.inside], return_counts=True)
        assert len(shown) >= 0.995 * len(positions)
        assert np.mean(times > 1) < 0.04

    @pytest.mark.parametrize("lattice", [square, hexagonal])
    def test_neighbouring_pixels_show_neighbouring_spots(self, lattice):
        positions = turned(lattice(), 20)
        raster = rasterize(positions)
        for axis in (0, 1):
            distances = np.linalg.norm(np.diff(positions[raster.spot], axis=axis), axis=2)
            both = np.minimum(*(np.delete(raster.inside, end, axis=axis) for end in (0, -1)))
            np.testing.assert_allclose(distances[both], 137, rtol=1e-6)

    def test_holes_and_outlines_are_preserved(self):
        positions = square()
        hole = np.linalg.norm(positions - [9, 6], axis=1) < 3
        raster = rasterize(turned(positions[~hole], 0))
        assert raster.spot.shape == SHAPE
        np.testing.assert_array_equal(raster.inside.ravel(), ~hole)

    def test_most_cells_are_shown(self):
        positions = np.random.default_rng(0).uniform(size=(500, 2))
        raster = rasterize(positions)
        assert len(np.unique(raster.spot)) > 0.85 * len(positions)

    @pytest.mark.parametrize(
        ("positions", "message"),
        [
            (np.zeros((4, 3)), r"positions must be \(n_spots, 2\): \(4, 3\)"),
            (np.zeros((1, 2)), "at least two spots are needed, found 1"),
            ([[0, 0], [1, np.nan]], "positions of 1 spots are NaN or infinite"),
            (np.ones((4, 2)), "all 4 spots lie at one position"),
            ([[0, 0], [0, 1], [0, 1], [5, 5]], "2 spots share their position"),
            ([[0, 0], [0, 1], [1, 0], [9000, 9000]], "4 spots, 1 apart, spread over 9,001 × 9,001"),
        ],
    )
    def test_invalid_positions_are_refused(self, positions, message):
        with pytest.raises(ValueError, match=message):
            rasterize(check_positions(positions))


class TestSSIM:
    def test_on_a_full_square_it_equals_scikit_image(self):
        measured, predicted = maps()
        expected = []
        for gene in range(measured.shape[1]):
            pictures = [scaled(side[:, gene]).reshape(SHAPE) for side in (measured, predicted)]
            full = structural_similarity(*pictures, data_range=1, full=True)[1]
            expected.append(full.mean())
        scores = metrics.ssim(measured, predicted, square())
        np.testing.assert_allclose(scores, expected, rtol=1e-12)
        assert (scores < 0.98).all()

    @pytest.mark.parametrize("lattice", [square, hexagonal])
    def test_it_is_invariant_to_spot_order_rotation_and_position(self, lattice):
        measured, predicted = maps()
        expected = metrics.ssim(measured, predicted, lattice())
        order = np.random.default_rng(0).permutation(len(measured))
        positions = turned(lattice(), 90)[order]
        scores = metrics.ssim(measured[order], predicted[order], positions)
        np.testing.assert_allclose(scores, expected, atol=0.02 * (lattice is hexagonal) + 1e-9)

    def test_it_is_invariant_to_scale_and_decreases_with_noise(self):
        measured, predicted = maps()
        np.testing.assert_allclose(metrics.ssim(measured, 3 * measured - 2, square()), 1)
        noisy = predicted + 0.5 * np.random.default_rng(1).normal(size=predicted.shape)
        close, far = (metrics.ssim(measured, side, square()) for side in (predicted, noisy))
        assert (close > far + 0.1).all()

    def test_background_does_not_count_as_agreement(self):
        positions = square()
        disc = np.linalg.norm(positions - [9, 6.5], axis=1) < 5
        random = np.random.default_rng(0)
        measured, predicted = random.normal(size=(2, disc.sum(), 20))
        scores = metrics.ssim(measured, predicted, positions[disc])
        assert abs(scores.mean()) < 0.1

    @pytest.mark.parametrize("side", [0, 1])
    def test_a_constant_gene_scores_0(self, side):
        sides = [part.copy() for part in maps()]
        whole = metrics.ssim(*sides, square())
        sides[side][:, 2] = 0.1
        scores = metrics.ssim(*sides, square())
        assert scores[2] == 0
        np.testing.assert_array_equal(np.delete(scores, 2), np.delete(whole, 2))

    def test_small_sections_use_smaller_windows(self):
        positions = square()
        small = (positions < 4).all(axis=1)
        measured, predicted = (side[small] for side in maps())
        assert (metrics.ssim(measured, predicted, positions[small]) > 0).all()
        line = positions[:, 1] < 2
        assert np.isnan(metrics.ssim(*(side[line] for side in maps()), positions[line])).all()

    def test_positions_of_another_length_are_refused(self):
        with pytest.raises(ValueError, match=r"positions must be \(266, 2\): \(265, 2\)"):
            metrics.ssim(*maps(), square()[1:])


class TestMoransI:
    @pytest.mark.parametrize("tied", [False, True])
    def test_it_equals_squidpy(self, tied):
        values = np.round(maps(6)[0], 0 if tied else 9)
        table = ad.AnnData(values, obs=pd.DataFrame(index=[f"s{i}" for i in range(len(values))]))
        table.obsm["spatial"] = hexagonal()
        sq.gr.spatial_neighbors_knn(table, n_neighs=6)
        sq.gr.spatial_autocorr(
            table, mode="moran", genes=list(table.var_names), show_progress_bar=False
        )
        expected = table.uns["moranI"].loc[table.var_names, "I"]
        scores = metrics.morans_i(values, table.obsp["spatial_connectivities"])
        np.testing.assert_allclose(scores, expected, rtol=1e-6)

    def test_smooth_random_and_alternating_maps(self):
        positions = square()
        graph = sp.csr_array(np.abs(positions[:, None] - positions[None]).sum(axis=2) == 1)
        random = np.random.default_rng(0).normal(size=(len(positions), 200))
        chess = positions.sum(axis=1, keepdims=True) % 2
        smooth = positions[:, :1]
        assert metrics.morans_i(smooth, graph)[0] > 0.9
        assert metrics.morans_i(chess, graph)[0] == pytest.approx(-1)
        expected = -1 / (len(positions) - 1)
        assert metrics.morans_i(random, graph).mean() == pytest.approx(expected, abs=0.01)

    def test_constant_genes_isolated_spots_and_the_diagonal(self):
        values = np.array([[1.0, 5.0], [2.0, 5.0], [4.0, 5.0], [9.0, 5.0]])
        graph = np.zeros((4, 4))
        graph[[0, 1], [1, 0]] = 3
        scores = metrics.morans_i(values, graph)
        centered = values[:, 0] - 4
        expected = 2 * centered[0] * centered[1] / 2 / np.mean(centered**2)
        np.testing.assert_allclose(scores, [expected, 0])
        np.testing.assert_array_equal(metrics.morans_i(values, graph + 7 * np.eye(4)), scores)
        assert (metrics.morans_i(values, np.zeros((4, 4))) == 0).all()

    @pytest.mark.parametrize(
        ("graph", "message"),
        [
            (np.ones((3, 3)), r"graph must be \(4, 4\), as values: \(3, 3\)"),
            (sp.csr_array((4, 5)), r"\(4, 4\), as values: \(4, 5\)"),
            (-np.eye(4), "4 weights of the graph are negative, NaN or infinite"),
            (np.full((4, 4), np.nan), "16 weights"),
        ],
    )
    @pytest.mark.parametrize("function", [metrics.morans_i, metrics.neighbor_mean])
    def test_invalid_graphs_are_refused(self, graph, message, function):
        with pytest.raises(ValueError, match=message):
            function(np.ones((4, 2)), graph)

    @pytest.mark.parametrize("function", [metrics.morans_i, metrics.neighbor_mean])
    def test_invalid_values_are_refused(self, function):
        with pytest.raises(ValueError, match=r"values must be \(n_spots, n_genes\): \(4,\)"):
            function(np.ones(4), np.ones((4, 4)))
        with pytest.raises(ValueError, match=r"^2 values are NaN or infinite, among genes 0"):
            function(np.full((2, 1), np.nan), np.ones((2, 2)))
