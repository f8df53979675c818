"""Donor audit: planted replicates are found, none is invented, and errors change nothing."""

from __future__ import annotations

import functools

import numpy as np
import pytest

import stpredict as stp
from helpers import colour, only
from stpredict._sdata._spot_table import copy_of, open_table
from stpredict.datasets._phantom_parts._donors import DONOR_GENES
from stpredict.tl._audit import _halves
from stpredict.tl._audit._donors import compare_sections, donors_of_sections, notes_on_donors

DESIGN = {"size_px": 800, "n_neighborhood": 10, "n_null": 30}


def donors(n_sections=8, *, strength=1.0, **options):
    return stp.datasets.phantom(n_sections, **DESIGN, donor_variation=strength, **options)


@pytest.fixture(scope="module")
def with_replicates():
    """Eight sections of six patients: S7 is of the first, S8 of the second."""
    return donors(n_patients=6)


@pytest.fixture
def sdata(with_replicates):
    return copy_of(with_replicates)


def pairs_with(table, verdict):
    pairs = table[table["verdict"] == verdict]
    return list(zip(pairs["section_1"], pairs["section_2"], strict=True))


def test_planted_replicates_are_found_and_none_is_invented(sdata, capsys):
    stp.settings.verbosity = 1
    table = stp.tl.audit_donors(sdata, groups="region")  # as if of eight patients
    stp.settings.verbosity = 0
    assert pairs_with(table, "one donor") == [("S1", "S7"), ("S2", "S8")]
    assert pairs_with(table, "alike") == []
    printed = capsys.readouterr().out
    assert printed.startswith("8 sections, labelled as 8 donors. Look like one donor: S1 (S1) and ")
    assert len(table) == 28
    assert (table.loc[table["verdict"] == "one donor", "p"] < 0.05).all()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_replicate_is_invented_among_eight_patients(seed):
    table = stp.tl.audit_donors(donors(seed=seed))
    assert set(table["verdict"]) <= {"different", "unclear"}
    # the sex follows from the genes, and is planted in turn
    sex = {
        **dict(table[["section_1", "sex_1"]].values),
        **dict(table[["section_2", "sex_2"]].values),
    }
    assert [sex[f"S{i}"] for i in range(1, 9)] == ["female", "male"] * 4


def test_correct_labels_are_not_contradicted(sdata):
    table = stp.tl.audit_donors(sdata)
    assert table.loc[table["verdict"] == "one donor", "donor_1"].tolist() == ["P1", "P2"]
    assert table.loc[table["donor_1"] == table["donor_2"], "p"].isna().all()


def test_two_donors_under_one_label_are_reported(sdata, capsys):
    labels = sdata["table"].obs["region"].astype(str).replace({"S2": "S1"})
    sdata["table"].obs["label"] = labels
    stp.settings.verbosity = 1
    table = stp.tl.audit_donors(sdata, groups="label").set_index(["section_1", "section_2"])
    stp.settings.verbosity = 0
    assert table.loc[("S1", "S2"), "verdict"] == "different"
    assert "Look like two donors: S1 (S1) and S2 (S1)." in capsys.readouterr().out


def test_sections_without_any_other_donor_are_alike_at_most(capsys):
    sdata = stp.datasets.phantom(4, **DESIGN)  # differ in nothing but their tissue
    stp.settings.verbosity = 1
    table = stp.tl.audit_donors(sdata)
    stp.settings.verbosity = 0
    assert set(table["verdict"]) == {"alike"}
    assert table["profile_difference"].between(0.8, 1.5).all()
    assert table[["immune_difference", "immune_similarity"]].isna().all(axis=None)
    assert (table["sex_1"] == "").all()
    assert "Whether they are of one is open" in capsys.readouterr().out


def test_two_sections_are_compared_without_others(sdata):
    two = sdata.subset(["S1", "S1_image", "S7", "S7_image"], filter_tables=True)
    (row,) = stp.tl.audit_donors(two, groups="region").to_dict("records")
    assert row["verdict"] == "alike"
    assert np.isnan([row["p"], row["profile_similarity"], row["immune_similarity"]]).all()


def test_a_sex_conflict_overrules_similar_profiles(sdata):
    table = sdata["table"]
    rows = (table.obs["region"] == "S7").to_numpy()  # of the female P1
    xist, y_gene = table.var_names.get_indexer(["XIST", "DDX3Y"])
    values = table.X.toarray() if hasattr(table.X, "toarray") else np.array(table.X)
    values[np.ix_(rows, [xist, y_gene])] = values[np.ix_(rows, [y_gene, xist])]
    table.X = values
    pairs = stp.tl.audit_donors(sdata, groups="region")
    assert pairs_with(pairs, "one donor") == [("S2", "S8")]
    assert ("S1", "S7") in pairs_with(pairs, "different")


def test_genes_are_recognised_by_their_symbols(sdata):
    expected = stp.tl.audit_donors(sdata)
    table = sdata["table"]
    table.var["gene_symbols"] = table.var_names
    table.var_names = [f"ENSG{i:011d}" for i in range(table.n_vars)]
    assert stp.tl.audit_donors(sdata).equals(expected)


def test_the_stain_is_reported_and_decides_nothing():
    design = {"n_patients": 3, "stain_variation": 1.0}
    plain, stained = donors(4, n_patients=3), donors(4, **design)
    before, after = (stp.tl.audit_donors(each, groups="region") for each in (plain, stained))
    assert after["stain_difference"].median() > 10 * before["stain_difference"].median()
    assert after["verdict"].equals(before["verdict"])


def test_nothing_is_written(sdata):
    names = [name for _, name, _ in sdata.gen_elements()]
    table = sdata["table"].copy()
    stp.tl.audit_donors(sdata)
    assert [name for _, name, _ in sdata.gen_elements()] == names
    assert sdata["table"].obs.equals(table.obs)
    assert set(sdata["table"].uns["stpredict"]) == set(table.uns["stpredict"])


def test_differences_and_similarities_are_those_of_naive_loops():
    halves = np.random.default_rng(0).normal(size=(4, 2, 50))
    labels = ["a", "b", "a", "c"]
    within = np.mean([np.mean((first - second) ** 2) for first, second in halves])
    center = (halves[[0, 2]].mean((0, 1)) + halves[1].mean(0) + halves[3].mean(0)) / 3
    residual = halves - center
    for i in range(4):
        for j in range(4):
            squares = [np.mean((x - y) ** 2) for x in halves[i] for y in halves[j]]
            expected = np.mean(squares) / within
            assert np.isclose(_halves.differences(halves)[i, j], expected)
            size = [max(residual[k, 0] @ residual[k, 1], 1e-12) for k in (i, j)]
            expected = residual[i].mean(0) @ residual[j].mean(0) / np.sqrt(size[0] * size[1])
            similarity = _halves.similarities(halves, labels)[i, j]
            assert np.isclose(similarity, np.clip(expected, -1, 1))


def test_z_scores_of_unrelated_sections_are_standard_normal():
    halves = np.random.default_rng(1).normal(size=(40, 2, 200))
    z = _halves.z_scores(halves, [str(i) for i in range(40)], np.random.default_rng(0))
    values = z[np.triu_indices(40, 1)]
    assert abs(values.mean()) < 0.5
    assert 0.9 < values.std() < 1.1
    np.testing.assert_allclose(_halves.holm(np.array([5.0, 0.0])), [5.7e-7, 0.5], rtol=0.02)


def test_the_protocol_of_a_split_between_sections_of_one_donor_says_so(sdata):
    stp.pp.normalize(sdata)
    stp.pp.neighbors(sdata)
    stp.pp.smooth(sdata)
    stp.pp.select_genes(sdata, n_top_genes=4)
    stp.pp.embed(sdata, colour, key_added="X_colour", tile_um=40)
    ridge = functools.partial(
        stp.tl.fit_ridge, embedding="X_colour", context="spot", layer="smoothed"
    )
    smoothed, donors = stp.tl.cross_validate(
        sdata, {"ridge": ridge}, groups="region", n_folds=2, allow_leak=True
    ).protocol.notes[::-1]
    assert "layers['smoothed'] is SMOOTHED in sections S1, S2" in smoothed
    assert donors.startswith("S1 (S1) and S7 (S7), S2 (S2) and S8 (S8) look like ONE DONOR")


def test_correct_labels_cause_no_note(sdata):
    assert notes_on_donors(open_table(sdata), "patient", seed=0) == ()


@pytest.mark.parametrize("damage", ["counts", "groups"])
def test_sections_that_cannot_be_audited_cause_no_note(sdata, damage):
    table = sdata["table"]
    if damage == "counts":
        table.X = -table.X
    else:
        table.obs["region"] = "one"
    assert notes_on_donors(open_table(sdata), "region", seed=0) == ()


def one_section(sdata):
    return sdata.subset(["S1", "S1_image"], filter_tables=True)


def mixed_section(sdata):
    column = sdata["table"].obs["patient"].astype(str).to_numpy()
    column[0] = "P5"
    sdata["table"].obs["patient"] = column
    return sdata


def few_spots(sdata):
    spots = open_table(sdata)
    rows = np.append(spots.section_rows["S1"][:9], spots.section_rows["S2"])
    return spots.subset(rows).sdata


def negative(sdata):
    sdata["table"].X = -sdata["table"].X
    return sdata


def few_genes(sdata):
    names = sdata["table"].var_names[:4]
    spots = open_table(sdata)
    sdata.tables["table"] = spots.table[:, names].copy()
    return sdata


@pytest.mark.parametrize(
    ("change", "options", "error", "message"),
    [
        (one_section, {}, ValueError, "compares sections, but there is only one"),
        (mixed_section, {}, ValueError, r"section 'S1' has several donors .*'patient'.*: P1, P5"),
        (few_spots, {}, ValueError, "section 'S1' has 9 spots with counts, at least 20"),
        (negative, {}, ValueError, "counts in X"),
        (few_genes, {}, ValueError, "4 genes .* at least 5"),
        (copy_of, {"groups": "nobody"}, KeyError, "groups='nobody'"),
        (copy_of, {"table_name": "nothing"}, KeyError, "nothing"),
        (copy_of, {"seed": -1}, ValueError, "seed"),
    ],
)
def test_bad_input_is_refused(sdata, change, options, error, message):
    with pytest.raises(error, match=message):
        stp.tl.audit_donors(change(sdata), **options)


def test_donor_genes_differ_between_patients_only(sdata):
    table = sdata["table"]
    assert list(table.var_names[-len(DONOR_GENES) :]) == list(DONOR_GENES)
    assert (table.var.loc[list(DONOR_GENES), "planted"] == "donor").all()
    mean = {
        name: np.asarray(table.X[rows].mean(axis=0)).ravel()[-len(DONOR_GENES) :] + 1
        for name, rows in open_table(sdata).section_rows.items()
    }
    same = np.abs(np.log(mean["S1"] / mean["S7"])).mean()
    other = np.abs(np.log(mean["S1"] / mean["S3"])).mean()
    assert same < 0.25 < 0.5 < other


def test_sections_of_one_patient_labelled_as_two_are_alike(her2st_sections):
    # without another patient, they cannot stand out: the verdict says so
    spots = open_table(only(her2st_sections, ["C4", "C5"]))
    labels = donors_of_sections(spots, "region")
    table = compare_sections(spots, labels, seed=0, stain=False)  # large images are not decoded
    assert set(table["verdict"]) == {"alike"}
    assert table["profile_difference"].max() < 3
