"""Gene programmes: planted scores, tables that models learn from, and bad files of sets."""

from __future__ import annotations

import numpy as np
import pytest
import spatialdata as sd

import stpredict as stp
from stpredict._sdata._spot_table import copy_of

N_NULL = 120
SETS = {
    "TUMOUR": ["morphology_001", "morphology_002", "absent"],  # planted on the same tissue
    "NULL": ["null_001", "null_002", "null_003"],
}


def write(path, sets, *, end="\n"):
    text = "".join("\t".join([name, "https://example.org", *genes]) + end for name, genes in sets)
    path.write_text(text)
    return path


@pytest.fixture
def gmt(tmp_path):
    return write(tmp_path / "sets.gmt", SETS.items())


@pytest.fixture(scope="module")
def prepared():
    sdata = stp.datasets.phantom(
        3, size_px=1000, mpp=0.5, pitch_um=40.0, n_morphology=3, n_neighborhood=2, n_null=N_NULL
    )
    stp.pp.normalize(sdata)
    stp.pp.embed(sdata, "texture", tile_um=40)
    stp.pp.neighbors(sdata)
    return sdata


@pytest.fixture
def sdata(prepared):
    return copy_of(prepared)


def test_the_score_is_the_mean_of_the_set_minus_that_of_genes_of_similar_expression(sdata, gmt):
    stp.pp.score_programs(sdata, gmt)
    programs = sdata["programs"]
    assert programs.var_names.tolist() == list(SETS)
    assert programs.var["n_genes"].tolist() == [2, 3]
    values = sdata["table"].to_df("log1p")
    n_bins = min(25, 1 + values.shape[1] // 5)
    per_bin = round(values.shape[1] / (n_bins - 1))
    means = values.mean()
    bin_of = {gene: (1 + sum(means < means[gene])) // per_bin for gene in values}
    for name, genes in SETS.items():
        present = [gene for gene in genes if gene in values]
        bins = {bin_of[gene] for gene in present}
        similar = [gene for gene in values if bin_of[gene] in bins and gene not in present]
        expected = values[present].mean(axis=1) - values[similar].mean(axis=1)
        np.testing.assert_allclose(programs[:, name].X[:, 0], expected, atol=1e-5)


def test_models_learn_and_predict_programmes_like_genes(sdata, gmt):
    stp.pp.score_programs(sdata, gmt)

    def part(*names):
        elements = [element for name in names for element in (name, f"{name}_image")]
        return copy_of(sdata.subset(elements, include_orphan_tables=False))

    train, test = part("S1", "S2"), part("S3")
    model = stp.tl.fit_ridge(train, layer=None, table_name="programs", context="spot")
    assert model.genes == tuple(SETS)
    stp.tl.predict(test, model)
    scores = stp.tl.evaluate(test, table_name="programs").values()["predicted"]
    pcc = scores.groupby("gene").mean()
    assert pcc["TUMOUR"] > 0.6
    assert abs(pcc["NULL"]) < 0.25


def test_the_same_seed_gives_the_same_scores_and_leaves_the_global_state(sdata, gmt):
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first, second = (
        stp.pp.score_programs(sdata, gmt, seed=1, copy=True)["programs"].X for _ in range(2)
    )
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    np.testing.assert_array_equal(first, second)


def test_programmes_survive_zarr_and_are_written_again(sdata, gmt, tmp_path):
    stp.pp.score_programs(sdata, gmt)
    before = sdata["programs"].X.copy()
    sdata.write(tmp_path / "written.zarr")
    loaded = sd.read_zarr(tmp_path / "written.zarr")
    np.testing.assert_array_equal(loaded["programs"].X, before)
    stp.pp.score_programs(loaded, gmt)
    np.testing.assert_array_equal(loaded["programs"].X, before)


def test_windows_lines_and_repeated_genes_are_read(sdata, tmp_path):
    path = write(tmp_path / "sets.gmt", [("A", ["null_001", "null_001", ""])], end="\r\n\r\n")
    stp.pp.score_programs(sdata, path)
    assert sdata["programs"].var["n_genes"].to_dict() == {"A": 1}


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ([("A", ["x", "y"])], "the table has none of the 2 genes of 'A'"),
        (
            [("A", ["NULL_001"])],
            "genes of 'A'. 1 of the 1 absent genes exist in anot",
        ),
        ([("A", ["null_001"]), ("B", ["x"])], "none of the 1 genes of 'B'"),
        ([], "sets.gmt has no sets"),
        ([("A", [])], "line 1 of sets.gmt has no genes"),
        ([("", ["null_001"])], "line 1 of sets.gmt has no genes"),
        ([("A", ["null_001"]), ("A", ["null_002"])], "has the set 'A' twice"),
    ],
)
def test_bad_sets_are_refused_and_nothing_changes(sdata, tmp_path, sets, message):
    path = write(tmp_path / "sets.gmt", sets)
    with pytest.raises(ValueError, match=message):
        stp.pp.score_programs(sdata, path)
    assert list(sdata.tables) == ["table"]


def test_a_set_of_all_genes_has_nothing_to_be_compared_with(sdata, tmp_path):
    path = write(tmp_path / "sets.gmt", [("ALL", sdata["table"].var_names)])
    with pytest.raises(ValueError, match="no genes outside 'ALL' whose expression is similar"):
        stp.pp.score_programs(sdata, path)
    assert list(sdata.tables) == ["table"]


def test_missing_files_and_layers_and_other_tables_are_refused(sdata, gmt, tmp_path):
    for absent in (tmp_path / "none.gmt", tmp_path):
        with pytest.raises(FileNotFoundError, match="gene_sets= is not a file"):
            stp.pp.score_programs(sdata, absent)
    (tmp_path / "bytes.gmt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"gene_sets: bytes\.gmt is no text"):
        stp.pp.score_programs(sdata, tmp_path / "bytes.gmt")
    with pytest.raises(KeyError, match="'counts'"):
        stp.pp.score_programs(sdata, gmt, layer="counts")
    with pytest.raises(ValueError, match="exists, and holds no predictions"):
        stp.pp.score_programs(sdata, gmt, key_added="table")
