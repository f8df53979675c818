"""Invalid values, columns and options are refused."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from stpredict import targets

KINDS = ("genes", "svd", "nmf", "autoencoder")


def values(n_rows=20, n_genes=6, seed=0):
    return np.random.default_rng(seed).gamma(1, 2, (n_rows, n_genes)).astype(np.float32)


def fit(kind="genes", data=None, **changes):
    arguments = {"columns": [0, 2]} | changes
    return targets.fit(kind, values() if data is None else data, **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"kind": "pca"},
            r"targets='pca' is not one of 'genes', 'svd', 'nmf', 'auto",
        ),
        ({"scaling": "z"}, r"scaling='z' is not one of 'standard', 'robust', 'none'"),
        ({"data": values()[0]}, r"matrix of rows by genes, not of shape \(6,\)"),
        ({"data": values()[:0]}, "no training rows"),
        ({"columns": []}, "a non-empty vector"),
        ({"columns": [[0]]}, r"int64 of shape \(1, 1\)"),
        ({"columns": [0.5]}, "whole numbers.* not float64"),
        ({"columns": [True, False]}, "whole numbers.* not bool"),
        ({"columns": [0, 6]}, "from 0 to 6, fit genes from 0 to 5"),
        ({"columns": [-1]}, "from -1 to -1"),
        ({"columns": [1, 1]}, "more than once"),
        ({"n_factors": 3}, "n_factors=3 is only for targets='svd', 'nmf', 'autoencoder'"),
        ({"kind": "svd"}, "n_factors for targets='svd' must be a whole number of at least 1: None"),
        ({"kind": "svd", "n_factors": 0}, "at least 1: 0"),
        ({"kind": "svd", "n_factors": 2.0}, r"at least 1: 2\.0"),
        ({"kind": "nmf", "n_factors": True}, "at least 1: True"),
        ({"kind": "svd", "n_factors": 6}, r"n_factors=6 .*rows \(20\) .*genes .*\(6\)"),
        ({"kind": "svd", "n_factors": 4, "data": values(4)}, r"n_factors=4 .*rows \(4\)"),
        ({"kind": "nmf", "n_factors": 7}, r"n_factors=7 .*rows \(20\) .*genes .*\(6\)"),
        ({"kind": "autoencoder", "n_factors": 7}, r"n_factors=7 .*rows \(20\) .*genes .*\(6\)"),
        ({"kind": "autoencoder", "n_factors": 1, "data": values(1)}, r"genes .*\(0\)"),
        ({"kind": "nmf", "n_factors": 5, "data": values(4)}, r"n_factors=5 .*rows \(4\)"),
        ({"kind": "nmf", "n_factors": 1, "data": values() * 0}, r"n_factors=1 .*genes .*\(0\)"),
        ({"kind": "svd", "n_factors": 2, "data": values() * 0 + 1}, "no factors in these .*genes"),
        ({"kind": "nmf", "n_factors": 2, "data": values() - 9}, r'"nmf" must be .*not negative'),
    ],
)
def test_invalid_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        fit(**arguments)


@pytest.mark.parametrize("make", [np.array, sp.csr_matrix])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("kind", KINDS)
def test_values_that_are_not_finite_are_refused(kind, bad, make):
    n_factors = None if kind == "genes" else 2
    fitted, data = fit(kind, n_factors=n_factors), values()
    data[3, 5] = bad  # in a fit gene that is not a gene of the model
    for call in (lambda x: fit(kind, x, n_factors=n_factors), fitted.transform):
        with pytest.raises(ValueError, match=r"has 1 values that are NaN or infinite"):
            call(make(data))


@pytest.mark.parametrize("kind", KINDS)
def test_other_numbers_of_genes_and_outputs_are_refused(kind):
    fitted = fit(kind, n_factors=None if kind == "genes" else 2)
    with pytest.raises(ValueError, match=r"have 5 genes, the targets were fitted on 6"):
        fitted.transform(values()[:, :5])
    for outputs in (np.zeros((3, 3)), np.zeros(2)):
        with pytest.raises(ValueError, match=r"outputs has shape .* but \(any, 2\) is needed"):
            fitted.inverse(outputs)


def test_extreme_values_are_refused_by_the_autoencoder():
    with pytest.raises(ValueError, match=r'never finite.*scaling="standard"'):
        fit("autoencoder", values() * np.float32(1e30), n_factors=2, scaling="none")


def test_new_negative_values_are_refused_by_nmf():
    fitted, new = fit("nmf", n_factors=2), values()
    new[0, 0] = -1
    with pytest.raises(ValueError, match="1 are negative"):
        fitted.transform(new)
