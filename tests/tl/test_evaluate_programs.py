"""Programmes scored next to genes, from measured and predicted genes alike."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

import stpredict as stp
from stpredict._sdata._spot_table import copy_of
from stpredict.pp._expression._programs import score_sets, set_weights

SETS = {
    "TUMOUR": ["morphology_001", "morphology_002", "absent"],
    "NULL": ["null_001", "null_002"],
    "ABSENT": ["absent", "missing"],
}


@pytest.fixture(scope="module")
def prepared():
    sdata = stp.datasets.phantom(
        2, size_px=800, mpp=0.5, pitch_um=40.0, n_morphology=3, n_neighborhood=2, n_null=35
    )
    stp.pp.normalize(sdata)
    stp.pp.embed(sdata, lambda tiles: tiles.mean((-2, -1)), key_added="X_colour", tile_um=40)
    stp.pp.neighbors(sdata)
    options = {"embedding": "X_colour", "context": "spot", "alpha": 1.0}
    genes = list(sdata["table"].var_names[:30])
    stp.tl.predict(sdata, stp.tl.fit_ridge(sdata, genes=genes, **options))
    stp.tl.predict(sdata, stp.tl.fit_ridge(sdata, genes=genes[:26], **options), key_added="fewer")
    return sdata


@pytest.fixture
def sdata(prepared):
    return copy_of(prepared)


@pytest.fixture
def gmt(tmp_path):
    path = tmp_path / "sets.gmt"
    path.write_text(
        "".join(f"{name}\tnote\t" + "\t".join(genes) + "\n" for name, genes in SETS.items())
    )
    return path


def test_weights_give_the_scores_of_scanpy(sdata):
    values = sdata["table"].to_df("log1p")
    sets = {"A": ["morphology_001", "null_003"], "B": ["null_001", "null_002"]}
    weights = set_weights(values.to_numpy(), list(values), sets, seed=3)
    expected = score_sets(values.to_numpy(), values.columns, sets, seed=3)
    np.testing.assert_allclose(values.to_numpy() @ weights, expected, atol=1e-5)
    np.testing.assert_allclose(weights.sum(axis=0), 0, atol=1e-6)  # a mean minus a mean


def naive_scores(measured, values):
    """The planted programme: mean of the set minus that of genes with similar measured means."""
    genes = ["morphology_001", "morphology_002"]
    n_bins = min(25, 1 + measured.shape[1] // 5)
    per_bin = round(measured.shape[1] / (n_bins - 1))
    means = measured.mean()
    bin_of = {gene: (1 + sum(means < means[gene])) // per_bin for gene in measured}
    bins = {bin_of[gene] for gene in genes}
    similar = [gene for gene in measured if bin_of[gene] in bins and gene not in genes]
    return values[genes].mean(axis=1) - values[similar].mean(axis=1)


def test_both_sides_are_scored_from_the_genes_that_all_tables_predict(sdata, gmt):
    tables = ["predicted", "fewer"]
    scores = stp.tl.evaluate(sdata, tables, gene_sets=gmt)
    genes = sdata["fewer"].var_names
    measured = sdata["table"].to_df("log1p")[genes]
    values = scores.programs.values()
    assert list(values.columns[:2]) == tables
    assert sorted(set(values.index.get_level_values("gene"))) == ["NULL", "TUMOUR"]
    regions = sdata["table"].obs["region"].astype(str)
    for name in tables:
        predicted = naive_scores(measured, sdata[name].to_df()[genes])
        truth = naive_scores(measured, measured)
        for section in ("S1", "S2"):
            rows = (regions == section).to_numpy()
            expected = stats.pearsonr(truth[rows], predicted[rows]).statistic
            score = values[name].xs((section, "TUMOUR"), level=("section", "gene")).item()
            assert score == pytest.approx(expected, abs=1e-5)
    # genes are scored as without programmes
    plain = stp.tl.evaluate(sdata, tables)
    assert plain.programs is None
    np.testing.assert_array_equal(scores.table["value"], plain.table["value"])


def test_perfect_predictions_of_genes_are_perfect_programmes(sdata, gmt):
    genes = sdata["predicted"].var_names
    sdata["predicted"].X = sdata["table"].to_df("log1p")[genes].to_numpy()
    programs = stp.tl.evaluate(sdata, gene_sets=gmt).programs.genes()
    np.testing.assert_allclose(programs["pcc"], 1, atol=1e-6)
    np.testing.assert_allclose(programs["rmse"], 0, atol=1e-5)


def test_programmes_have_nulls_references_and_a_protocol(sdata, gmt):
    scores = stp.tl.evaluate(sdata, gene_sets=gmt)
    programs = scores.programs
    assert {"training_mean", "neighbor_mean"} <= set(programs.values().columns)
    assert (programs.values()["training_mean"] == 0).all()
    assert abs(programs.genes().loc["TUMOUR", "pcc_shuffled"]) < 0.1
    text = str(programs.protocol)
    assert "2 programmes." in text
    assert "Programmes are scored from 4 of 7 genes. No gene of these is predicted: ABSENT." in text
    assert programs.leaky
    assert "2 programmes." in repr(scores)


def test_programmes_of_predictions_in_unknown_units_are_left_out(sdata, gmt):
    stp.io.read_predictions(sdata, sdata["predicted"].to_df() * 3)
    scores = stp.tl.evaluate(sdata, ["predicted", "external"], gene_sets=gmt)
    assert scores.programs.methods == ("predicted",)
    with pytest.raises(ValueError, match=r"gene_sets= needs predictions .* same units"):
        stp.tl.evaluate(sdata, "external", gene_sets=gmt)


def test_programmes_of_counts_per_10_000(sdata, gmt):
    genes = list(sdata["table"].var_names[:30])
    model = stp.tl.fit_ridge(
        sdata, embedding="X_colour", context="spot", genes=genes, alpha=1.0, layer=None
    )
    stp.tl.predict(sdata, model, key_added="counts")
    assert stp.tl.evaluate(sdata, "counts", gene_sets=gmt).programs.methods == ("counts",)


def test_bad_gene_sets_are_refused(sdata, gmt, tmp_path):
    with pytest.raises(FileNotFoundError, match="gene_sets= is not a file"):
        stp.tl.evaluate(sdata, gene_sets=tmp_path / "absent.gmt")
    gmt.write_text("OTHER\tnote\tERBB2\tCD74\n")
    with pytest.raises(ValueError, match="no gene of a set is both measured and predicted"):
        stp.tl.evaluate(sdata, gene_sets=gmt)
    gmt.write_text("EMPTY\tnote\n")
    with pytest.raises(ValueError, match=r"line 1 of sets\.gmt has no genes"):
        stp.tl.evaluate(sdata, gene_sets=gmt)
