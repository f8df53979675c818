"""Genes by expression, by scanpy's dispersion and by Moran's I: oracles and planted truth."""

from __future__ import annotations

import numpy as np
import pytest
import scanpy as sc
import scipy.sparse as sp
from scipy.stats import rankdata

import stpredict as stp
from stpredict._sdata import _provenance

FLAVORS = pytest.mark.parametrize("flavor", ["expression", "hvg", "moran"])


def phantom():
    sdata = stp.datasets.phantom(
        2, size_px=800, mpp=0.5, pitch_um=30.0, n_morphology=10, n_neighborhood=10, n_null=20
    )
    stp.pp.normalize(sdata)
    stp.pp.neighbors(sdata)
    return sdata


@pytest.fixture
def unequal(sdata):
    """S1 whole, of S2 a third."""
    table = sdata.tables["table"]
    whole = (table.obs["region"] == "S1").to_numpy()
    sdata.tables["table"] = table[whole | (np.arange(table.n_obs) % 3 == 0)].copy()
    stp.pp.neighbors(sdata, n_neighbors=6)
    return sdata


def selected(sdata):
    table = sdata.tables["table"]
    return set(table.var_names[table.var["selected"]])


def by_section(table):
    region = table.obs["region"].astype(str).to_numpy()
    return [np.flatnonzero(region == name) for name in dict.fromkeys(region)]


def best(table, scores, n_top_genes):
    """Genes by the mean over sections of their rank within each."""
    ranks = np.mean([rankdata(-score) for score in scores], axis=0)
    return set(table.var_names[np.argsort(ranks, kind="stable")[:n_top_genes]])


def moran(values, weights):
    """Moran's I by its formula, gene by gene."""
    weights = weights / weights.sum(axis=1, keepdims=True)
    scores = []
    for gene in values.T.astype(float):
        centered = gene - gene.mean()
        scores.append(
            len(gene) / weights.sum() * (centered @ weights @ centered) / (centered @ centered)
        )
    return np.array(scores)


@pytest.mark.parametrize("n_top_genes", [1, 9, 40])
def test_expression(unequal, n_top_genes):
    table = unequal.tables["table"]
    scores = [table.X[rows].toarray().mean(axis=0) for rows in by_section(table)]
    stp.pp.select_genes(unequal, n_top_genes=n_top_genes, flavor="expression")
    assert selected(unequal) == best(table, scores, n_top_genes)


@pytest.mark.parametrize("n_top_genes", [1, 9, 40])
def test_moran(unequal, n_top_genes):
    table = unequal.tables["table"]
    graph = table.obsp["spatial_connectivities"].toarray()
    scores = [
        moran(table.layers["log1p"][rows].toarray(), graph[np.ix_(rows, rows)])
        for rows in by_section(table)
    ]
    stp.pp.select_genes(unequal, n_top_genes=n_top_genes, flavor="moran")
    assert selected(unequal) == best(table, scores, n_top_genes)


@pytest.mark.parametrize("n_top_genes", [1, 9, 39])
def test_one_section_gives_scanpys_selection(sdata, n_top_genes):
    one = sdata.subset(["S1", "S1_image"])
    table = one.tables["table"]
    reference = sc.AnnData(table.layers["log1p"].copy())
    sc.pp.highly_variable_genes(reference, flavor="seurat", n_top_genes=n_top_genes)
    stp.pp.select_genes(one, n_top_genes=n_top_genes, flavor="hvg")
    assert selected(one) == set(table.var_names[reference.var["highly_variable"]])


def test_dispersions_of_several_sections_are_combined_by_rank(unequal):
    table = unequal.tables["table"]
    scores = []
    for rows in by_section(table):
        reference = sc.AnnData(table.layers["log1p"][rows].copy())
        sc.pp.highly_variable_genes(reference, flavor="seurat", n_top_genes=5)
        scores.append(reference.var["dispersions_norm"].to_numpy())
    stp.pp.select_genes(unequal, n_top_genes=12, flavor="hvg")
    assert selected(unequal) == best(table, scores, 12)
    record = _provenance.recorded(table, "select_genes")
    assert record["flavor"] == "hvg"
    assert record["sections"] == ["S1", "S2"]


def test_moran_prefers_spatial_genes_to_null_genes(sdata):
    table = sdata.tables["table"]
    stp.pp.select_genes(sdata, n_top_genes=12, flavor="moran")
    planted = table.var["planted"].astype(str).to_numpy()
    assert "null" not in set(planted[table.var["selected"]])
    stp.pp.select_genes(sdata, n_top_genes=12, flavor="hvg")  # which does not look where spots lie
    assert "null" in set(planted[table.var["selected"]])


def test_a_difference_between_sections_alone_does_not_count(sdata):
    table = sdata.tables["table"]
    stp.pp.select_genes(sdata, n_top_genes=10, flavor="moran")
    expected = selected(sdata)
    values = table.layers["log1p"].toarray()
    values += 5 * (table.obs["region"] == "S1").to_numpy()[:, None] * (np.arange(40) % 2)
    table.layers["log1p"] = values
    stp.pp.select_genes(sdata, n_top_genes=10, flavor="moran")
    assert selected(sdata) == expected


@FLAVORS
def test_a_gene_without_counts_is_selected_last(sdata, flavor):
    table = sdata.tables["table"]
    for matrix in (table.X, table.layers["log1p"]):
        values = matrix.toarray()
        values[:, 5] = 0
        if matrix is table.X:
            table.X = sp.csr_matrix(values)
        else:
            table.layers["log1p"] = sp.csr_matrix(values)
    stp.pp.select_genes(sdata, n_top_genes=39, flavor=flavor)
    assert selected(sdata) == set(table.var_names) - {table.var_names[5]}
    stp.pp.select_genes(sdata, n_top_genes=40, flavor=flavor)
    assert len(selected(sdata)) == 40


@FLAVORS
@pytest.mark.parametrize("make", [sp.csc_matrix, sp.csr_array, lambda x: x.toarray()])
def test_formats(sdata, flavor, make):
    table = sdata.tables["table"]
    stp.pp.select_genes(sdata, n_top_genes=11, flavor=flavor)
    expected = selected(sdata)
    table.X, table.layers["log1p"] = make(table.X), make(table.layers["log1p"])
    stp.pp.select_genes(sdata, n_top_genes=11, flavor=flavor)
    assert selected(sdata) == expected


@FLAVORS
def test_unsorted_indices_stay_with_their_values(sdata, flavor):
    table = sdata.tables["table"]
    stp.pp.select_genes(sdata, n_top_genes=11, flavor=flavor)
    expected = selected(sdata)
    for values in (table.X, table.layers["log1p"]):
        for start, stop in zip(values.indptr[:-1], values.indptr[1:], strict=True):
            values.indices[start:stop] = values.indices[start:stop][::-1].copy()
            values.data[start:stop] = values.data[start:stop][::-1].copy()
        values.has_sorted_indices = False
    before = table.X.indices.copy(), table.layers["log1p"].indices.copy()
    stp.pp.select_genes(sdata, n_top_genes=11, flavor=flavor)
    assert selected(sdata) == expected
    np.testing.assert_array_equal(table.X.indices, before[0])
    np.testing.assert_array_equal(table.layers["log1p"].indices, before[1])


@pytest.mark.parametrize(
    ("flavor", "lost", "message"),
    [
        ("hvg", "log1p", r"layers has no 'log1p'.*run stp\.pp\.normalize first"),
        ("moran", "log1p", r"layers has no 'log1p'.*run stp\.pp\.normalize first"),
        (
            "moran",
            "graph",
            r"no neighbourhood graph obsp\['spatial_conn.*run stp\.pp\.neighbors",
        ),
    ],
)
def test_missing_inputs_are_reported(sdata, flavor, lost, message):
    table = sdata.tables["table"]
    if lost == "graph":
        del table.obsp["spatial_connectivities"]
    else:
        del table.layers["log1p"]
    with pytest.raises(KeyError, match=message):
        stp.pp.select_genes(sdata, n_top_genes=3, flavor=flavor)
    assert "selected" not in table.var
    assert "select_genes" not in table.uns["stpredict"]


@FLAVORS
def test_nan(sdata, flavor):
    table = sdata.tables["table"]
    matrix = table.X if flavor == "expression" else table.layers["log1p"]
    matrix.data[7] = np.nan
    with pytest.raises(ValueError, match="NaN or infinite"):
        stp.pp.select_genes(sdata, n_top_genes=3, flavor=flavor)
    assert "selected" not in table.var


def test_a_section_without_links_has_no_moran(sdata):
    table = sdata.tables["table"]
    table.obsp["spatial_connectivities"] = sp.csr_matrix((table.n_obs, table.n_obs))
    with pytest.raises(ValueError, match=r"links no spots of section 'S1'.*stp\.pp\.neighbors"):
        stp.pp.select_genes(sdata, n_top_genes=3, flavor="moran")
    assert "selected" not in table.var
