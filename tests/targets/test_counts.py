"""Counts: raw in training, expected counts per 10,000 in predictions."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from stpredict import targets

COLUMNS = np.array([5, 0, 2])


def planted(n_rows=400, seed=0):
    """Counts of 6 genes with planted shares of varying totals; gene 2 is never detected."""
    rng = np.random.default_rng(seed)
    library = rng.integers(2_000, 20_000, n_rows)
    shares = np.array([0.01, 0.002, 0, 0.03, 0.1, 0.005])
    return rng.poisson(library[:, None] * shares).astype(np.float32), library, shares


@pytest.mark.parametrize("make", [np.array, sp.csr_matrix, lambda v: v.astype(np.int32)])
def test_targets_are_the_raw_counts(make):
    values, library, _ = planted()
    fitted = targets.fit("counts", make(values), columns=COLUMNS, library=library)
    counts = fitted.transform(make(values))
    assert counts.dtype == np.float32
    np.testing.assert_array_equal(counts, values[:, COLUMNS])
    assert fitted.n_outputs == 3
    assert fitted.outputs is None


def test_log_ratios_to_the_training_shares_become_counts_per_10000():
    values, library, shares = planted()
    fitted = targets.fit("counts", values, columns=COLUMNS, library=library)
    with np.errstate(divide="ignore"):
        genes = fitted.inverse((np.log(shares[COLUMNS]) - fitted.log_share)[None])
    assert genes.dtype == np.float32
    np.testing.assert_allclose(genes[0], shares[COLUMNS] * 1e4, rtol=1e-5)
    # the training mean has the same units
    expected = (values[:, COLUMNS] / library[:, None]).mean(axis=0) * 1e4
    np.testing.assert_allclose(fitted.mean, expected, rtol=1e-5)
    np.testing.assert_allclose(fitted.mean, genes[0], rtol=0.05)


def test_predictions_are_always_finite_and_not_negative():
    values, library, _ = planted()
    fitted = targets.fit("counts", values, columns=COLUMNS, library=library)
    assert fitted.constant.tolist() == [False, False, True]
    extreme = np.array([[1e30, -1e30, 88.0], [np.inf, -np.inf, -5.0], [79.0, 80.0, 81.0]])
    genes = fitted.inverse(extreme.astype(np.float32))
    assert np.isfinite(genes).all()
    assert (genes >= 0).all()
    assert (genes[:, 2] == 0).all()  # never detected in training


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v, n: (np.log1p(v), n), r"need whole numbers, but \d+ values are not"),
        (lambda v, n: (-v, n), "not negative"),
        (lambda v, n: (v, None), "targets='counts' need library="),
        (
            lambda v, n: (v, n[:5]),
            r"shape \(5,\), but one total for each of the 400",
        ),
        (lambda v, n: (v, n * 0), r"above 0, but 400 are not: remove empty spots"),
        (lambda v, n: (v, n * np.nan), "above 0, but 400 are not"),
        (lambda v, n: (v, n / n), "less than the counts of the row's fit genes"),
    ],
)
def test_invalid_counts_and_totals_are_refused(change, message):
    values, library, _ = planted()
    values, library = change(values, library)
    with pytest.raises(ValueError, match=message):
        targets.fit("counts", values, columns=COLUMNS, library=library)


def test_new_values_that_are_not_counts_are_refused():
    values, library, _ = planted()
    fitted = targets.fit("counts", values, columns=COLUMNS, library=library)
    with pytest.raises(ValueError, match="need whole numbers"):
        fitted.transform(values / 3)


def test_other_kinds_refuse_totals():
    values, library, _ = planted()
    with pytest.raises(ValueError, match="targets='genes' take no library="):
        targets.fit("genes", values, columns=COLUMNS, library=library)
