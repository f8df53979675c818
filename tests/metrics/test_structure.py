"""Correlations between genes, and clusters, compared with numpy and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from stpredict import metrics
from stpredict.metrics import _blocks, _structure

N_SPOTS, N_GENES = 90, 12


def pair(seed=0):
    """Genes of three programs, predicted with noise."""
    random = np.random.default_rng(seed)
    programs = random.normal(size=(N_SPOTS, 3))
    measured = programs @ random.normal(size=(3, N_GENES)) + random.normal(size=(N_SPOTS, N_GENES))
    return measured + 100, 0.5 * measured + random.normal(size=measured.shape)


def clustered(seed=0):
    """Three distant clusters, and the cluster of each spot."""
    random = np.random.default_rng(seed)
    truth = random.integers(3, size=N_SPOTS)
    centers = 20 * random.normal(size=(3, N_GENES))
    return centers[truth] + random.normal(size=(N_SPOTS, N_GENES)), truth


class TestGeneCorrelation:
    @pytest.mark.parametrize("block", [2**24, 7 * N_GENES])
    def test_it_equals_numpy(self, block, monkeypatch):
        monkeypatch.setattr(_blocks, "_BLOCK", block)
        measured, predicted = pair()
        upper = np.triu_indices(N_GENES, k=1)
        sides = [np.corrcoef(side, rowvar=False)[upper] for side in (measured, predicted)]
        expected = np.corrcoef(*sides)[0, 1]
        assert metrics.gene_correlation(measured, predicted) == pytest.approx(expected, abs=1e-12)

    def test_it_is_invariant_to_scale_and_shift_of_genes(self):
        measured, _ = pair()
        slope = np.linspace(0.1, 9, N_GENES)
        result = metrics.gene_correlation(measured, slope * measured - slope)
        assert result == pytest.approx(1)

    def test_shuffled_genes_lose_the_correlations(self):
        measured, predicted = pair()
        shuffled = np.random.default_rng(3).permutation(N_GENES)
        correlation = metrics.gene_correlation(measured, predicted)
        assert correlation > 0.6
        assert metrics.gene_correlation(measured, predicted[:, shuffled]) < correlation - 0.3

    def test_a_constant_gene_has_correlation_0(self):
        measured, predicted = pair()
        predicted[:, 2] = 0.1
        upper = np.triu_indices(N_GENES, k=1)
        others = np.arange(N_GENES) != 2
        matrix = np.zeros((N_GENES, N_GENES))
        matrix[np.ix_(others, others)] = np.corrcoef(predicted[:, others], rowvar=False)
        expected = np.corrcoef(np.corrcoef(measured, rowvar=False)[upper], matrix[upper])[0, 1]
        assert metrics.gene_correlation(measured, predicted) == pytest.approx(expected, abs=1e-12)

    def test_a_constant_prediction_scores_0(self):
        measured, _ = pair()
        assert metrics.gene_correlation(measured, np.full(measured.shape, 0.1)) == 0

    def test_invalid_input_is_refused(self):
        measured, predicted = pair()
        with pytest.raises(ValueError, match="at least three genes, found 2"):
            metrics.gene_correlation(measured[:, :2], predicted[:, :2])
        with pytest.raises(ValueError, match=r"\(90, 12\) and \(90, 11\)"):
            metrics.gene_correlation(measured, predicted[:, 1:])


class TestClusters:
    def test_they_equal_scikit_learn(self):
        measured, predicted = pair()
        result = [
            KMeans(4, n_init=10, random_state=0).fit_predict(
                PCA(N_GENES, svd_solver="full").fit_transform(side)
            )
            for side in (measured, predicted)
        ]
        agreement = metrics.cluster_agreement(measured, predicted, n_clusters=4)
        assert agreement.ari == pytest.approx(adjusted_rand_score(*result), abs=0.1)
        assert agreement.nmi == pytest.approx(normalized_mutual_info_score(*result), abs=0.1)

    def test_components_equal_scikit_learn(self, monkeypatch):
        monkeypatch.setattr(_structure, "_N_COMPONENTS", 3)
        monkeypatch.setattr(_blocks, "_BLOCK", 7 * N_GENES)
        measured, _ = pair()
        captured = {}

        class Spy(KMeans):
            def fit_predict(self, components):
                captured["components"] = components
                return super().fit_predict(components)

        monkeypatch.setattr(_structure, "KMeans", Spy)
        metrics.cluster_agreement(np.arange(N_SPOTS) % 2, measured)
        expected = PCA(3, svd_solver="full").fit_transform(measured)
        np.testing.assert_allclose(
            np.abs(captured["components"][:, ::-1]), np.abs(expected), atol=1e-8
        )

    def test_planted_clusters_are_recovered(self):
        measured, truth = clustered()
        agreement = metrics.cluster_agreement(measured, 3 * measured + 5, n_clusters=3)
        assert (agreement.ari, agreement.nmi) == pytest.approx((1, 1))
        names = np.array(["invasive", "stroma", "fat"])[truth]
        assert metrics.cluster_agreement(names, measured).ari == pytest.approx(1)
        assert metrics.cluster_agreement(names.tolist(), measured).nmi == pytest.approx(1)

    def test_unrelated_clusters_agree_by_chance_only(self):
        measured, _ = clustered(0)
        other, _ = clustered(1)
        agreement = metrics.cluster_agreement(measured, other, n_clusters=3)
        assert abs(agreement.ari) < 0.1
        assert 0 <= agreement.nmi < 0.1

    def test_a_constant_prediction_is_one_cluster(self):
        measured, _ = clustered()
        flat = np.full(measured.shape, 0.1)
        agreement = metrics.cluster_agreement(measured, flat, n_clusters=3)
        assert (agreement.ari, agreement.nmi) == (0, 0)

    def test_two_constants_do_not_agree(self):
        constant, labels = np.ones((20, 3)), np.repeat("tumour", 20)
        for measured in (constant, labels):
            agreement = metrics.cluster_agreement(measured, constant, n_clusters=2)
            assert (agreement.ari, agreement.nmi) == (0, 0)

    def test_fewer_distinct_spots_than_clusters_give_no_warning(self):
        measured, _ = clustered()
        two = np.repeat([[0.0], [1.0]], N_SPOTS // 2, axis=0) * np.ones(N_GENES)
        assert -0.5 <= metrics.cluster_agreement(measured, two, n_clusters=3).ari <= 1

    def test_the_seed_determines_the_result(self):
        measured, predicted = pair()
        one, again = (
            metrics.cluster_agreement(measured, predicted, n_clusters=8, seed=1) for _ in range(2)
        )
        assert one == again

    @pytest.mark.parametrize(
        ("measured", "options", "message"),
        [
            (np.zeros((N_SPOTS, N_GENES)), {}, "n_clusters must be 2 to 90, .*: None"),
            (np.zeros((N_SPOTS, N_GENES)), {"n_clusters": 1}, "n_clusters must be 2 to 90, .*: 1"),
            (np.zeros((N_SPOTS, N_GENES)), {"n_clusters": 91}, "2 to 90, .*: 91"),
            (["one"] * N_SPOTS, {}, "n_clusters must be 2 to 90, .*: 1"),
            (["one"] * N_SPOTS, {"seed": -1}, "seed must be a whole number of at least 0: -1"),
            (["one", "two"], {}, "measured has 2 labels, predicted 90 spots"),
            (["one"] * 88 + [None, np.nan], {}, "measured has no label for 2 spots: exclude"),
        ],
    )
    def test_invalid_input_is_refused(self, measured, options, message):
        _, predicted = pair()
        with pytest.raises(ValueError, match=message):
            metrics.cluster_agreement(
                measured if isinstance(measured, np.ndarray) else np.array(measured, dtype=object),
                predicted,
                **options,
            )
