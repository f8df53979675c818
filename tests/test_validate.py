"""Checks say what was found and what there is; what is right passes in silence."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from stpredict import _validate


def test_listing_is_cut():
    assert _validate.listing([]) == "none"
    assert _validate.listing(["a", 2]) == "a, 2"
    assert _validate.listing("abcdefgh") == "a, b, c, d, e, f, g, h"
    assert _validate.listing(range(12), most=3) == "0, 1, 2, … (9 more)"


@pytest.mark.parametrize("value", [1, 0.5, np.float32(2), np.int64(3)])
def test_positive(value):
    _validate.positive("mpp", value)


@pytest.mark.parametrize("value", [0, -1.0, np.nan, np.inf, [1.0], np.array([1.0])])
def test_not_positive(value):
    with pytest.raises(ValueError, match=r"mpp must be a number above 0 \(µm per pixel\): .*"):
        _validate.positive("mpp", value, unit="µm per pixel")


@pytest.mark.parametrize("value", ["1", None])
def test_no_number_at_all(value):
    with pytest.raises(ValueError, match="mpp must be a number above 0"):
        _validate.positive("mpp", value)


def test_one_of():
    _validate.one_of("grid", "square", {"square": 8, "hexagonal": 6})
    with pytest.raises(ValueError, match="grid='cubic' is not one of 'square', 'hexagonal'"):
        _validate.one_of("grid", "cubic", ["square", "hexagonal"])


@pytest.mark.parametrize("value", [True, False, 10**400])
def test_truth_values_and_endless_numbers_are_no_numbers(value):
    for check in (_validate.positive, _validate.not_negative, _validate.share):
        with pytest.raises(ValueError, match="x must "):
            check("x", value)


@pytest.mark.parametrize("value", ["0.5", None, np.nan, np.inf, -0.1, [0.5]])
def test_shares_and_thresholds_are_numbers(value):
    with pytest.raises(ValueError, match="x must lie between 0 and 1"):
        _validate.share("x", value)
    with pytest.raises(ValueError, match="x must be a number of at least 0"):
        _validate.not_negative("x", -1 if value == "0.5" else value)


@pytest.mark.parametrize("value", ["a", "a-b.c_1", "X_é"])
def test_names_of_slots(value):
    assert _validate.slot_name("key_added", value) == value


def test_not_empty():
    _validate.not_empty("S1", 1)
    with pytest.raises(ValueError, match="section 'S1' has no spots"):
        _validate.not_empty("S1", 0)


def test_unique_names():
    _validate.unique_names([], what="spot ids")
    _validate.unique_names(["a", "b"], what="spot ids")
    with pytest.raises(ValueError, match=r"spot ids are not unique, repeated: a, c$"):
        _validate.unique_names(["c", "a", "b", "a", "c"], what="spot ids")
    with pytest.raises(ValueError, match="repeated: 1"):  # compared as they are written
        _validate.unique_names([1, "1"], what="spot ids")


FORMATS = [np.asarray, sp.csr_matrix, sp.csc_matrix, sp.csr_array]


@pytest.mark.parametrize("make", FORMATS)
def test_counts(make):
    good = np.array([[0.0, 1, 2], [3, 0, 0]])
    _validate.counts(make(good), what="X")
    _validate.counts(make(good.astype(int)), what="X")
    _validate.counts(make(np.zeros((0, 3))), what="X")
    bad = good.copy()
    bad[0, 0], bad[0, 1], bad[1, 1], bad[1, 2] = np.nan, -1, np.inf, -2
    with pytest.raises(ValueError, match=r"X must be .*2 values are NaN or infinite and 2 are neg"):
        _validate.counts(make(bad), what="X")


@pytest.mark.parametrize("check", [_validate.counts, _validate.finite])
def test_malformed_sparse_matrices_raise(check):
    matrix = sp.csr_matrix(np.array([[0.0, 1, 2], [3, 0, 0]]))
    matrix.indices[0] = 7  # there are three columns
    with pytest.raises(
        ValueError, match=r"sparse matrix of X is malformed \(indices .* Write it again"
    ):
        check(matrix, what="X")


@pytest.mark.parametrize("values", [np.array([["a", "b"]]), None, np.array([[1, "b"]], object)])
def test_counts_that_are_not_numbers_raise(values):
    with pytest.raises(TypeError, match="X must be numbers, but are "):
        _validate.counts(values, what="X")


@pytest.mark.parametrize("make", FORMATS)
def test_finite(make):
    good = np.array([[0.0, -1], [2, 0]])
    _validate.finite(make(good), what="layers['log1p']")
    bad = good.copy()
    bad[0] = np.nan, -np.inf
    with pytest.raises(ValueError, match=r"layers\['log1p'\] has 2 values that are NaN or inf"):
        _validate.finite(make(bad), what="layers['log1p']")


def test_present():
    available = np.array(["ERBB2", "CD74", "KRT5", "ACTB"])
    _validate.present(["CD74"], available)
    message = r"2 of 3 genes are not in the table: A, B; it has 4 genes, such as ERBB2, CD74, KRT5"
    with pytest.raises(KeyError, match=message):
        _validate.present(["A", "CD74", "B"], available)


IDS = [f"ENSG{i:011d}" for i in range(8)]
MOUSE_IDS = [f"ENSMUSG{i:011d}" for i in range(8)]
SYMBOLS = ["ERBB2", "CD74", "KRT5", "ACTB"]


@pytest.mark.parametrize(
    ("genes", "available", "why"),
    [
        (IDS[:3], SYMBOLS, r"3 of the 3 absent are Ensembl ids, .* symbols: .*gene_names=\"ids\""),
        (MOUSE_IDS[:2], SYMBOLS, "2 of the 2 absent are Ensembl ids"),
        ([*IDS[:3], "CD4"], SYMBOLS, "3 of the 4 absent are Ensembl ids"),
        (
            SYMBOLS,
            IDS,
            r"named by Ensembl ids, 4 of the 4 absent are not: .*gene_names=\"symbols\"",
        ),
        (
            ["Erbb2", "Cd74", "X"],
            SYMBOLS,
            "2 of the 3 absent genes exist in another case.*Erbb2: ERB",
        ),
        (
            [f"{IDS[0]}.4", f"{IDS[1]}.2"],
            IDS,
            r"2 of the 2 absent genes exist with another version .*0\.4: ENSG00000000000",
        ),
        (IDS[:1], [f"{name}.7" for name in IDS], "1 of the 1 absent .* another version"),
    ],
)
def test_present_says_why_genes_are_absent(genes, available, why):
    message = rf"{len(genes)} of {len(genes)} genes are not in the table: .*\. .*{why}"
    with pytest.raises(KeyError, match=message):
        _validate.present(genes, np.array(available))


def test_nothing_tells_why():
    assert _validate.why_absent(["FOXP3"], SYMBOLS) == ""
    assert _validate.why_absent(IDS[:2], IDS[2:]) == ""
    assert _validate.why_absent(["FOXP3"], []) == ""


def test_inside_image():
    _validate.inside_image(np.array([[0, 0], [30, 20], [3.5, 7]]), (20, 30), section="S1")
    _validate.inside_image(np.zeros((0, 2)), (20, 30), section="S1")


@pytest.mark.parametrize("x_y", [(31, 5), (5, 21), (-0.1, 5), (5, -3), (np.nan, 5), (np.inf, 5)])
def test_outside_image(x_y):
    x, y = x_y
    positions = np.array([[1.0, 1.0], x_y, [2.0, 2.0]])
    with pytest.raises(ValueError, match="1 of 3 spots of section 'S1'") as raised:
        _validate.inside_image(positions, (20, 30), section="S1")
    message = str(raised.value)
    assert "30 × 20 px (x × y)" in message
    assert f"x={x:g}, y={y:g}" in message
    assert "stp.pp.filter_spots" in message
