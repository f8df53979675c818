"""The noise ceiling against planted rates, and on real sections."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from stpredict import metrics

HER2ST = Path(__file__).parents[3] / "shared" / "data" / "her2st"
N_SPOTS, N_GENES = 250, 400


def rates(depth, seed=0):
    """Expected counts: genes and spots that differ in expression, variance and depth."""
    random = np.random.default_rng(seed)
    share = random.gamma(0.3, size=N_GENES) + 1e-4
    share = share * np.exp(random.normal(size=(N_SPOTS, N_GENES)) * random.uniform(0, 1, N_GENES))
    share /= share.sum(axis=1, keepdims=True)
    return depth * random.lognormal(0, 0.4, size=(N_SPOTS, 1)) * share


def log_normalized(counts, target_sum=1e4):
    return np.log1p(counts / counts.sum(axis=1, keepdims=True).clip(min=1) * target_sum)


def measured(depth, n):
    random = np.random.default_rng(1)
    return [random.poisson(rates(depth)) for _ in range(n)]


@pytest.fixture(scope="module")
def repeated():
    """One section measured 25 times."""
    return measured(3000, 25)


def test_reliability_is_the_correlation_of_a_second_measurement(repeated):
    ceiling = metrics.noise_ceiling(repeated[0])
    repeat = metrics.pcc(log_normalized(repeated[0]), log_normalized(repeated[1]))
    assert ceiling.reliability.mean() == pytest.approx(repeat.mean(), abs=0.06)
    assert np.corrcoef(ceiling.reliability, repeat)[0, 1] > 0.9


def test_pcc_is_the_correlation_of_the_expected_values(repeated):
    values = [log_normalized(counts) for counts in repeated]
    perfect = metrics.pcc(values[0], np.mean(values[1:], axis=0))
    ceiling = metrics.noise_ceiling(repeated[0])
    assert 0 <= ceiling.pcc.mean() - perfect.mean() < 0.06
    accurate = perfect > 0.9
    np.testing.assert_allclose(ceiling.pcc[accurate], perfect[accurate], atol=0.06)


def test_the_ceiling_of_deep_sections_is_close_to_1():
    shallow, deep = (metrics.noise_ceiling(measured(depth, 1)[0]) for depth in (3000, 300000))
    assert np.median(deep.pcc) > 0.97
    assert np.median(shallow.pcc) < np.median(deep.pcc) - 0.1


def test_the_ceiling_of_pure_noise_is_close_to_0():
    counts = np.random.default_rng(0).poisson(0.5, (2000, 300))
    ceiling = metrics.noise_ceiling(counts, target_sum=100)
    assert abs(ceiling.split_half.mean()) < 0.01
    assert ceiling.reliability.mean() < 0.05


def test_reliability_and_pcc_follow_from_the_split_half_correlation(repeated):
    ceiling = metrics.noise_ceiling(repeated[0])
    half = ceiling.split_half
    np.testing.assert_allclose(ceiling.reliability, np.clip(2 * half / (1 + half), 0, 1))
    np.testing.assert_allclose(ceiling.pcc, np.sqrt(ceiling.reliability))
    assert (half < 0).any()


def test_a_split_equals_naive_thinning(repeated):
    counts = repeated[0]
    ceiling = metrics.noise_ceiling(sp.csr_array(counts), n_splits=1, seed=3, target_sum=500)
    stored = sp.csr_array(counts)
    drawn = np.random.default_rng(3).binomial(stored.data, 0.5)
    first = sp.csr_array((drawn, stored.indices, stored.indptr), shape=counts.shape).toarray()
    halves = [log_normalized(half, 500) for half in (first, counts - first)]
    np.testing.assert_allclose(ceiling.split_half, metrics.pcc(*halves), atol=1e-12)


def test_library_sizes_are_sums_over_all_genes(repeated):
    whole = metrics.noise_ceiling(repeated[0])
    some = metrics.noise_ceiling(repeated[0], genes=[7, 3, 250])
    np.testing.assert_array_equal(some.pcc, whole.pcc[[7, 3, 250]])
    mask = np.arange(N_GENES) < 5
    np.testing.assert_array_equal(metrics.noise_ceiling(repeated[0], genes=mask).pcc, whole.pcc[:5])


def test_constant_genes_and_empty_spots_give_finite_ceilings():
    counts = measured(3000, 1)[0]
    counts[:, 5] = 0
    counts[9] = 0
    ceiling = metrics.noise_ceiling(counts)
    for part in (ceiling.pcc, ceiling.reliability, ceiling.split_half):
        assert part[5] == 0
        assert np.isfinite(part).all()


def test_the_seed_determines_the_result_and_the_input_is_unchanged(repeated):
    counts = sp.csr_array(repeated[0])
    original = counts.copy()
    one, repeat, other = (metrics.noise_ceiling(counts, seed=seed).pcc for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, repeat)
    assert (one != other).any()
    assert abs(one.mean() - other.mean()) < 0.01
    assert (counts != original).nnz == 0


@pytest.mark.parametrize("dtype", [np.float32, np.uint16, np.int64])
def test_counts_of_any_dtype_give_the_same_ceiling(repeated, dtype):
    expected = metrics.noise_ceiling(repeated[0], n_splits=1).pcc
    counts = sp.csc_array(repeated[0].astype(dtype))
    np.testing.assert_array_equal(metrics.noise_ceiling(counts, n_splits=1).pcc, expected)


@pytest.mark.parametrize("container", [np.asarray, sp.csr_array, sp.csc_array])
class TestBadInput:
    def test_fractional_counts_are_refused(self, container, repeated):
        values = log_normalized(repeated[0])
        n_bad = np.count_nonzero(values)
        with pytest.raises(
            ValueError, match=rf"^{n_bad} counts are not whole numbers .* raw counts"
        ):
            metrics.noise_ceiling(container(values))

    def test_negative_and_missing_counts_are_refused(self, container):
        with pytest.raises(ValueError, match=r"1 counts are not whole .* such as -2"):
            metrics.noise_ceiling(container([[1, 0], [-2, 3]]))
        with pytest.raises(ValueError, match=r"NaN|such as nan"):
            metrics.noise_ceiling(container([[1, 0], [np.nan, 3]]))
        with pytest.raises(ValueError, match=r"1 counts (values are|.*such as inf)"):
            metrics.noise_ceiling(container([[1, 0], [np.inf, 3]]))

    def test_one_spot_is_refused(self, container):
        with pytest.raises(ValueError, match="at least two spots, found 1"):
            metrics.noise_ceiling(container([[1, 2]]))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"target_sum": 0}, "target_sum must be a number above 0: 0"),
            ({"target_sum": np.inf}, "target_sum must be a finite number: inf"),
            ({"n_splits": 0}, "n_splits must be a whole number of at least 1: 0"),
            ({"n_splits": 10**6}, "n_splits must be at most 1000: 1000000"),
            ({"seed": -1}, "seed must be a whole number of at least 0: -1"),
        ],
    )
    def test_options_out_of_range_are_refused(self, container, options, message):
        with pytest.raises(ValueError, match=message):
            metrics.noise_ceiling(container([[1, 2], [3, 4]]), **options)

    def test_genes_out_of_range_are_refused(self, container):
        with pytest.raises(IndexError, match="5"):
            metrics.noise_ceiling(container([[1, 2], [3, 4]]), genes=[0, 5])


def test_arrays_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match=r"must all be \(n_genes,\)"):
        metrics.NoiseCeiling(np.zeros(3), np.zeros(3), np.zeros(4))


@pytest.fixture(scope="module")
def her2st():
    if not HER2ST.is_dir():
        pytest.skip("real data is missing: ../shared/data/her2st")
    names = ("C2", "C5")
    files = [HER2ST / "ST-cnts" / f"{name}.tsv.gz" for name in names]
    tables = [pd.read_csv(file, sep="\t", index_col=0) for file in files]
    counts = pd.concat(tables, keys=names).fillna(0)
    return counts[counts.sum(axis=1) >= 100]


def test_ceiling_of_real_sections(her2st):
    """Mean over the 250 genes of highest variance; an independent estimate for C2 is 0.69."""
    variance = np.log1p(her2st.div(her2st.sum(axis=1), axis=0) * 1e4).var().to_numpy()
    genes = np.argsort(-variance)[:250]
    for section in ("C2", "C5"):
        counts = sp.csr_array(her2st.loc[section].to_numpy())
        ceiling = metrics.noise_ceiling(counts, genes=genes)
        assert 0.64 < ceiling.pcc.mean() < 0.74, section
        if section == "C2":
            assert ceiling.pcc.mean() == pytest.approx(0.69, abs=0.02)
