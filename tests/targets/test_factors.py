"""Factors: planted programs, comparison with scikit-learn, dense and sparse values."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.decomposition import NMF, PCA
from sklearn.preprocessing import RobustScaler

import stpredict as stp
from stpredict import targets
from stpredict.targets import _autoencoder

ALL = np.arange(40)
MODEL = np.array([7, 0, 31])


@pytest.fixture(autouse=True, scope="module")
def short_training():
    """Shorten the training of autoencoders, which need not be good in these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_autoencoder, "_MAX_EPOCHS", 40)
        patch.setattr(stp.settings, "verbosity", 0)
        yield


def planted(*, n_rows=120, n_genes=40, n_factors=3, noise=0.0, seed=0):
    """Non-negative values of a few programs, one constant gene among them."""
    rng = np.random.default_rng(seed)
    scores = rng.gamma(0.5, 1, (n_rows, n_factors))
    values = scores @ rng.gamma(0.5, 1, (n_factors, n_genes))
    values += noise * rng.random(values.shape)
    values[:, 11] = 2.5
    return values.astype(np.float32)


def sparse_counts(seed=0, n_rows=150, n_genes=40):
    """Mostly zeros; gene 3 is never detected."""
    rng = np.random.default_rng(seed)
    means = rng.gamma(0.5, 1, (n_rows, 3)) @ rng.gamma(0.5, 0.6, (3, n_genes))
    values = np.log1p(rng.poisson(means)).astype(np.float32)
    values[:, 3] = 0
    return values


SCALED = ("genes", "svd", "nmf", "autoencoder")
FACTORS = SCALED[1:]
FITS = [(kind, scaling) for kind in SCALED for scaling in targets.SCALINGS]
#: Bound on the unexplained fraction of planted values of low rank.
LEFT = {"genes": 1e-5, "svd": 1e-5, "nmf": 0.02, "autoencoder": 0.8}


def fit_targets(kind, values, *, columns=ALL, scaling="standard", n_factors=3, seed=0):
    return targets.fit(
        kind,
        values,
        columns=columns,
        scaling=scaling,
        n_factors=None if kind == "genes" else n_factors,
        seed=seed,
    )


@pytest.mark.parametrize(("kind", "scaling"), FITS)
def test_values_of_low_rank_are_reconstructed(kind, scaling):
    values = planted()
    fitted = fit_targets(kind, values, scaling=scaling)
    reconstruction = fitted.inverse(fitted.transform(values))
    assert reconstruction.dtype == np.float32
    assert reconstruction.shape == values.shape
    error = np.linalg.norm(reconstruction - values) / np.linalg.norm(values - values.mean(axis=0))
    assert error < LEFT[kind]


@pytest.mark.parametrize(("kind", "scaling"), FITS)
def test_targets_for_some_genes_equal_those_for_all_genes(kind, scaling):
    values, new = planted(noise=0.3), planted(noise=0.3, n_rows=20, seed=1)
    whole, some = (fit_targets(kind, values, columns=c, scaling=scaling) for c in (ALL, MODEL))
    if kind == "genes":
        assert some.n_outputs == 3
        np.testing.assert_array_equal(some.transform(new), whole.transform(new)[:, MODEL])
    else:
        np.testing.assert_array_equal(some.transform(new), whole.transform(new))
    inverse = whole.inverse(whole.transform(new))[:, MODEL]
    np.testing.assert_allclose(some.inverse(some.transform(new)), inverse, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(some.mean, values[:, MODEL].mean(axis=0), rtol=1e-6)
    assert some.mean.dtype == np.float32


@pytest.mark.parametrize("kind", FACTORS)
def test_outputs_are_scaled_and_factors_are_in_their_own_units(kind):
    values = planted(noise=0.2)
    fitted = fit_targets(kind, values)
    assert fitted.n_outputs == 3
    assert fitted.outputs == (f"{kind}_1", f"{kind}_2", f"{kind}_3")
    outputs = fitted.transform(values)
    assert outputs.dtype == np.float32
    np.testing.assert_allclose(outputs.mean(axis=0), 0, atol=1e-5)
    assert (outputs**2).mean() == pytest.approx(1, abs=1e-4)
    scores = fitted.factors(outputs)
    assert scores.dtype == np.float32
    assert np.ptp(scores.std(axis=0)) > 0.1  # of different sizes


def test_errors_of_principal_components_are_proportional_to_errors_of_genes():
    values = planted(noise=0.2)
    fitted = fit_targets("svd", values, scaling="none")
    outputs = fitted.transform(values)
    assert np.ptp(outputs.std(axis=0)) > 0.1
    wrong = outputs + np.random.default_rng(0).normal(size=outputs.shape).astype(np.float32)
    in_outputs = ((wrong - outputs) ** 2).sum(axis=1)
    in_genes = ((fitted.inverse(wrong) - fitted.inverse(outputs)) ** 2).sum(axis=1)
    np.testing.assert_allclose(in_genes / in_outputs, (in_genes / in_outputs)[0], rtol=1e-4)


def test_nmf_factors_are_scaled_by_their_effect_on_the_genes():
    values = planted(noise=0.2)
    fitted = fit_targets("nmf", values, scaling="none")
    outputs = fitted.transform(values)
    moved = fitted.factors(outputs).std(axis=0) * np.linalg.norm(fitted.components, axis=1)
    np.testing.assert_allclose(
        outputs.std(axis=0) / outputs.std(axis=0)[0], moved / moved[0], rtol=1e-4
    )


def test_genes_have_no_factors():
    fitted = fit_targets("genes", planted())
    assert fitted.outputs is None
    with pytest.raises(ValueError, match=r'targets=\'genes\' have no factors.*targets="svd"'):
        fitted.factors(np.zeros((2, 40)))


def test_svd_equals_the_pca_of_scikit_learn():
    values = planted(noise=2).astype(np.float64)
    new = planted(noise=2, n_rows=30, seed=5).astype(np.float64)
    fitted = fit_targets("svd", values, n_factors=5)
    deviation = values.std(axis=0)
    deviation[11] = np.inf
    oracle = PCA(5, svd_solver="full").fit(values / deviation)
    scores = fitted.factors(fitted.transform(new))
    np.testing.assert_allclose(scores, oracle.transform(new / deviation), atol=1e-4)
    expected = oracle.inverse_transform(oracle.transform(new / deviation)) * np.where(
        np.isinf(deviation), 0, deviation
    )
    expected[:, 11] = 2.5
    np.testing.assert_allclose(fitted.inverse(fitted.transform(new)), expected, atol=1e-3)


def test_nmf_equals_that_of_scikit_learn():
    values, new = planted(noise=0.2), planted(noise=0.2, n_rows=30, seed=5)
    fitted = fit_targets("nmf", values)
    deviation = values.std(axis=0, dtype=np.float64)
    deviation[11] = np.inf
    oracle = NMF(3, random_state=0).fit(values / deviation)
    # scikit-learn has one tolerance for all new rows together
    oracle.set_params(tol=1e-12, max_iter=10_000)
    scores = fitted.factors(fitted.transform(new))
    np.testing.assert_allclose(scores, oracle.transform(new / deviation), rtol=1e-3, atol=1e-3)


def test_robust_scaling_equals_that_of_scikit_learn():
    values = planted(noise=0.5)
    oracle = RobustScaler(unit_variance=True).fit(values)
    fitted, varying = fit_targets("genes", values, scaling="robust"), np.arange(40) != 11
    expected = oracle.transform(values)[:, varying]
    np.testing.assert_allclose(fitted.transform(values)[:, varying], expected, rtol=1e-4, atol=1e-5)
    assert (fitted.transform(values)[:, 11] == 0).all()


def test_a_gene_of_few_spots_is_scaled_by_its_standard_deviation():
    values = np.zeros((100, 1), dtype=np.float32)
    values[:20] = 3
    fitted = targets.fit("genes", values, columns=[0], scaling="robust")
    np.testing.assert_allclose(fitted.transform(values), values / values.std(), rtol=1e-6)
    assert not fitted.constant.any()


def test_genes_do_not_change_without_scaling():
    values = planted(noise=0.5)
    np.testing.assert_array_equal(
        fit_targets("genes", values, scaling="none").transform(values), values
    )


@pytest.mark.parametrize(("kind", "scaling"), FITS)
def test_a_constant_gene_is_predicted_as_its_constant(kind, scaling):
    fitted = fit_targets(kind, planted(noise=0.5), scaling=scaling)
    assert np.flatnonzero(fitted.constant).tolist() == [11]
    extreme = np.random.default_rng(0).normal(0, 50, (9, fitted.n_outputs))
    np.testing.assert_array_equal(fitted.inverse(extreme)[:, 11], np.float32(2.5))


@pytest.mark.parametrize("sparse", [sp.csr_matrix, sp.csr_array, sp.csc_matrix, sp.coo_matrix])
@pytest.mark.parametrize(("kind", "scaling"), FITS)
def test_sparse_values_give_the_same_results_as_dense_ones(kind, scaling, sparse):
    values, new = sparse_counts(), sparse_counts(1, n_rows=20)
    of_dense = fit_targets(kind, values, columns=MODEL, scaling=scaling)
    of_sparse = fit_targets(kind, sparse(values), columns=MODEL, scaling=scaling)
    expected = of_dense.transform(new)
    for outputs in (of_sparse.transform(sparse(new)), of_sparse.transform(new)):
        assert outputs.dtype == np.float32
        np.testing.assert_allclose(outputs, expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(of_sparse.mean, of_dense.mean)
    np.testing.assert_array_equal(of_sparse.constant, of_dense.constant)


@pytest.mark.parametrize("kind", SCALED)
@pytest.mark.parametrize("make", [np.array, sp.csr_matrix, lambda v: v.astype(np.float64)])
def test_fit_and_transform_do_not_change_the_values(kind, make):
    values = make(sparse_counts())
    before = values.copy()
    fitted = fit_targets(kind, values)
    fitted.transform(values)
    if sp.issparse(values):
        for part in ("data", "indices", "indptr"):
            np.testing.assert_array_equal(getattr(values, part), getattr(before, part))
    else:
        np.testing.assert_array_equal(values, before)


@pytest.mark.parametrize("kind", SCALED)
def test_the_transform_of_a_row_is_independent_of_other_rows(kind):
    fitted = fit_targets(kind, planted(noise=0.5))
    new = planted(noise=0.5, n_rows=20, seed=3)
    alone = fitted.transform(new[4:5])
    new[7] = 1e4  # a planted outlier among the test rows
    np.testing.assert_allclose(fitted.transform(new)[4:5], alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", FACTORS)
def test_the_same_seed_gives_the_same_factors(kind):
    values = planted(noise=0.5)
    first, second = fit_targets(kind, values, seed=4), fit_targets(kind, values, seed=4)
    for name, tensor in first.state()[1].items():
        np.testing.assert_array_equal(tensor, second.state()[1][name])
    np.testing.assert_array_equal(first.transform(values), second.transform(values))


def test_the_largest_weight_of_each_component_is_positive():
    values = planted(noise=1)
    for seed in range(3):
        fitted = fit_targets("svd", values, seed=seed)
        largest = np.abs(fitted.components).argmax(axis=1)
        assert (fitted.components[np.arange(3), largest] > 0).all()


def test_negative_predictions_of_nmf_scores_are_clipped():
    fitted = fit_targets("nmf", planted(noise=0.5))
    low = np.full((4, 3), -100.0)
    assert (fitted.factors(low) == 0).all()
    genes = fitted.inverse(np.random.default_rng(0).normal(0, 5, (50, 3)))
    assert (genes >= 0).all()


def test_factors_beyond_the_rank_of_the_data_are_ignored():
    values = planted()  # of rank 3
    fitted = fit_targets("svd", values, n_factors=5)
    outputs = fitted.transform(values)
    assert (outputs[:, 3:] == 0).all()
    extreme = outputs.copy()
    extreme[:, 3:] = 100
    np.testing.assert_array_equal(fitted.inverse(extreme), fitted.inverse(outputs))


VALUES = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 25), st.integers(1, 6)),
    elements=st.floats(-1e4, 1e4, width=32),
)


@settings(deadline=None)
@given(VALUES, st.sampled_from(["standard", "robust", "none"]))
def test_inverse_undoes_the_scaling_of_genes(values, scaling):
    fitted = targets.fit("genes", values, columns=np.arange(values.shape[1]), scaling=scaling)
    outputs = fitted.transform(values)
    assert np.isfinite(outputs).all()
    largest = np.abs(values).max(axis=0)
    assert (np.abs(fitted.inverse(outputs) - values) <= 1e-5 * np.maximum(largest, 1e-6)).all()


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 10_000),
    st.integers(3, 30),
    st.integers(3, 12),
    st.sampled_from(["standard", "robust", "none"]),
)
def test_projection_on_components_is_idempotent(seed, n_rows, n_genes, scaling):
    rng = np.random.default_rng(seed)
    values = rng.normal(3, rng.gamma(1, 2, n_genes) + 0.1, (n_rows, n_genes))
    columns = np.arange(n_genes)
    fitted = targets.fit("svd", values, columns=columns, n_factors=2, scaling=scaling, seed=seed)
    once = fitted.inverse(fitted.transform(values))
    twice = fitted.inverse(fitted.transform(once))
    np.testing.assert_allclose(twice, once, rtol=1e-3, atol=1e-3)
