"""Genes by list, by variance and by Pearson residuals, each against an oracle."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import spatialdata as sd

import stpredict as stp
from stpredict._sdata import _provenance

SMALL = {"size_px": 600, "mpp": 0.5, "pitch_um": 40.0}


@pytest.fixture
def sdata():
    return stp.datasets.phantom(2, **SMALL, n_morphology=5, n_neighborhood=5, n_null=20)


def selected(sdata):
    table = sdata.tables["table"]
    assert table.var["selected"].dtype == bool
    return set(table.var_names[table.var["selected"]])


def plant(sdata, counts):
    """Replace the phantom's counts."""
    table = sdata.tables["table"]
    full = np.zeros(table.shape, dtype=np.float32)
    full[:, : counts.shape[1]] = counts
    table.X = sp.csr_matrix(full)


def test_list(sdata):
    names = list(sdata.tables["table"].var_names[[7, 2, 11]])
    stp.pp.select_genes(sdata, names)
    assert selected(sdata) == set(names)
    record = _provenance.recorded(sdata.tables["table"], "select_genes")
    assert record["n_selected"] == 3
    assert record["sections"] == ["S1", "S2"]
    assert "flavor" not in record
    stp.pp.select_genes(sdata, tuple(names[:1]))  # the choice before is forgotten
    assert selected(sdata) == {names[0]}


@pytest.mark.parametrize("make", [sp.csr_matrix, sp.csc_matrix, lambda x: x])
@pytest.mark.parametrize("n_top_genes", [1, 6, 30])
def test_variance(sdata, make, n_top_genes):
    table = sdata.tables["table"]
    stp.pp.normalize(sdata)
    values = table.layers["log1p"].toarray()
    table.layers["log1p"] = make(values)
    stp.pp.select_genes(sdata, n_top_genes=n_top_genes, flavor="variance")
    order = sorted(range(30), key=lambda g: -values[:, g].astype(float).var())
    assert selected(sdata) == set(table.var_names[order[:n_top_genes]])
    assert _provenance.recorded(table, "select_genes")["flavor"] == "variance"


def test_ties_go_to_the_first(sdata):
    table = sdata.tables["table"]
    values = np.zeros(table.shape, dtype=np.float32)
    values[::2, 3:] = 1  # 27 genes alike
    table.layers["log1p"] = values
    stp.pp.select_genes(sdata, n_top_genes=4, flavor="variance")
    assert selected(sdata) == set(table.var_names[3:7])


def residual_variance(counts):
    """Variance of clipped analytic Pearson residuals (Lause et al. 2021), theta 100."""
    mean = counts.sum(0) * counts.sum(1, keepdims=True) / counts.sum()
    residuals = (counts - mean) / np.sqrt(mean + mean**2 / 100)
    return np.clip(residuals, -np.sqrt(len(counts)), np.sqrt(len(counts))).var(axis=0)


def test_pearson_residuals(sdata):
    table = sdata.tables["table"]
    region = table.obs["region"].to_numpy()
    ranks = []
    for section in ("S1", "S2"):
        variance = residual_variance(table.X.toarray()[region == section].astype(float))
        ranks.append(np.argsort(np.argsort(-variance)).astype(float))
    n_top_genes = 8
    ranks = np.stack(ranks)
    in_top = (ranks < n_top_genes).sum(axis=0)
    ranks[ranks >= n_top_genes] = np.nan
    middle = np.array([np.nanmedian(r) if np.isfinite(r).any() else np.inf for r in ranks.T])
    # in the top of most sections first, then by the middle rank
    order = np.lexsort((middle, -in_top))
    stp.pp.select_genes(sdata, n_top_genes=n_top_genes)
    assert selected(sdata) == set(table.var_names[order[:n_top_genes]])


def test_planted_genes_come_before_noise():
    sdata = stp.datasets.phantom(
        size_px=900, mpp=0.5, pitch_um=40.0, n_morphology=0, n_neighborhood=0
    )
    table = sdata.tables["table"]
    rng = np.random.default_rng(0)
    counts = rng.poisson(rng.uniform(1, 200, 40), table.shape)
    strong = [4, 17, 31]
    wave = np.sin(np.arange(table.n_obs) / 5)
    counts[:, strong] = rng.poisson(150 * np.exp(0.7 * wave[:, None] * [1, -1, 1]))
    plant(sdata, counts)
    stp.pp.select_genes(sdata, n_top_genes=3)
    assert selected(sdata) == set(table.var_names[strong])


def test_a_gene_without_counts_is_selected_last(sdata):
    table = sdata.tables["table"]
    counts = table.X.toarray()
    counts[:, 5] = 0
    table.X = sp.csr_matrix(counts)
    stp.pp.select_genes(sdata, n_top_genes=29)
    assert selected(sdata) == set(table.var_names) - {table.var_names[5]}
    stp.pp.select_genes(sdata, n_top_genes=30)
    assert len(selected(sdata)) == 30


def test_a_gene_may_be_absent_from_one_section(sdata):
    table = sdata.tables["table"]
    counts = table.X.toarray()
    counts[(table.obs["region"] == "S1").to_numpy(), 3] = 0  # one section never lists it
    table.X = sp.csr_matrix(counts)
    stp.pp.select_genes(sdata, n_top_genes=10)
    assert len(selected(sdata)) == 10


def test_copy(sdata):
    changed = stp.pp.select_genes(sdata, n_top_genes=3, copy=True)
    assert isinstance(changed, sd.SpatialData)
    assert len(selected(changed)) == 3
    assert "selected" not in sdata.tables["table"].var
    assert "select_genes" not in sdata.tables["table"].uns["stpredict"]
    assert stp.pp.select_genes(sdata, n_top_genes=3) is None


def test_survives_zarr(sdata, tmp_path):
    stp.pp.select_genes(sdata, n_top_genes=3)
    sdata.write(tmp_path / "a.zarr")
    back = sd.read_zarr(tmp_path / "a.zarr")
    assert selected(back) == selected(sdata)
    assert _provenance.recorded(back.tables["table"], "select_genes") == _provenance.recorded(
        sdata.tables["table"], "select_genes"
    )


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, ValueError, r"give either genes= or n_top_genes=: genes=None, n_top_genes=None"),
        ({"genes": ["a"], "n_top_genes": 3}, ValueError, "give either genes= or n_top_genes="),
        ({"genes": ["ERBB2"]}, KeyError, "1 of 1 genes are not in the table: ERBB2; it has 30"),
        ({"genes": []}, ValueError, "genes= is empty"),
        ({"genes": "ERBB2"}, TypeError, r"genes='ERBB2' .*\['ERBB2'\]"),
        ({"n_top_genes": 0}, ValueError, "n_top_genes must be a whole number of at least 1: 0"),
        ({"n_top_genes": True}, ValueError, "n_top_genes must be a whole number"),
        ({"n_top_genes": "5"}, TypeError, "n_top_genes must be a whole number"),
        ({"n_top_genes": 31}, ValueError, "n_top_genes=31 must lie between 1 and 30"),
        ({"n_top_genes": 2.5}, ValueError, "n_top_genes must be a whole number or None: 2.5"),
        (
            {"n_top_genes": 3, "flavor": "seurat"},
            ValueError,
            "flavor='seurat' is not one of 'pearson",
        ),
        (
            {"n_top_genes": 3, "flavor": "variance"},
            KeyError,
            r"layers has no 'log1p'.*stp\.pp\.normalize",
        ),
    ],
)
def test_bad_input(sdata, options, error, message):
    with pytest.raises(error, match=message):
        stp.pp.select_genes(sdata, **options)
    assert "selected" not in sdata.tables["table"].var
    assert "select_genes" not in sdata.tables["table"].uns["stpredict"]


@pytest.mark.parametrize("dense", [True, False])
def test_spots_without_counts_do_not_change_the_selection(sdata, dense):
    stp.pp.select_genes(sdata, n_top_genes=10)
    expected = set(selected(sdata))
    table = sdata.tables["table"]
    counts = table.X.toarray()
    counts[[3, 7]] = 0
    table.X = counts if dense else sp.csr_matrix(counts)
    stp.pp.select_genes(sdata, n_top_genes=10)
    assert len(expected & set(selected(sdata))) >= 9
    table.X = np.zeros_like(counts)
    with pytest.raises(ValueError, match="no spot has counts"):
        stp.pp.select_genes(sdata, n_top_genes=10)


def test_repeated_genes(sdata):
    first = sdata.tables["table"].var_names[0]
    with pytest.raises(ValueError, match=f"genes are not unique, repeated: {first}"):
        stp.pp.select_genes(sdata, [first, first])
    assert "selected" not in sdata.tables["table"].var


@pytest.mark.parametrize("flavor", ["variance", "pearson_residuals"])
def test_unsorted_indices_stay_with_their_values(flavor):
    # as tables are after an outer join; scipy sorts in place, and may share indices between copies
    sdata = stp.datasets.phantom(**SMALL)
    stp.pp.normalize(sdata)
    table = sdata.tables["table"]
    for values in (table.X, table.layers["log1p"]):
        for start, stop in zip(values.indptr[:-1], values.indptr[1:], strict=True):
            values.indices[start:stop] = values.indices[start:stop][::-1].copy()
            values.data[start:stop] = values.data[start:stop][::-1].copy()
        values.has_sorted_indices = False
    before = table.X.copy().toarray(), table.layers["log1p"].copy().toarray()
    dense = stp.datasets.phantom(**SMALL)
    stp.pp.normalize(dense)
    for each in (sdata, dense):
        stp.pp.select_genes(each, n_top_genes=7, flavor=flavor)
    np.testing.assert_array_equal(table.X.toarray(), before[0])
    np.testing.assert_array_equal(table.layers["log1p"].toarray(), before[1])
    np.testing.assert_array_equal(table.var["selected"], dense.tables["table"].var["selected"])
