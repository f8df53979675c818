"""Reliability of genes and programmes in spots and larger regions, against planted truth."""

from __future__ import annotations

import numpy as np
import pytest

import stpredict as stp
from stpredict import uncertainty
from stpredict._sdata._spot_table import copy_of, open_table

NAMES = ["morphology_001", "morphology_002", "morphology_003", "null_001", "null_002", "null_003"]


@pytest.fixture(scope="module")
def cross_validated():
    """Sections of few counts; planted morphology, with noise, takes the place of an embedding."""
    sdata = stp.datasets.phantom(
        3, size_px=800, mpp=0.5, pitch_um=40.0, n_neighborhood=0, n_null=30, counts_per_spot=200
    )
    stp.pp.normalize(sdata)
    table = sdata["table"]
    morphology = table.obsm["truth_morphology"]
    noise = np.random.default_rng(0).normal(size=morphology.shape)
    table.obsm["X_planted"] = (morphology + 0.5 * noise).astype(np.float32)
    stp.pp.register_embedding(sdata, "X_planted", encoder="planted", tile_um=40.0)
    stp.pp.select_genes(sdata, genes=table.var_names.tolist())

    def ridge(training):
        return stp.tl.fit_ridge(training, embedding="X_planted", context="spot")

    stp.tl.cross_validate(sdata, {"ridge": ridge})
    return sdata


@pytest.fixture
def sdata(cross_validated):
    return copy_of(cross_validated)


@pytest.fixture
def gene_sets(tmp_path):
    path = tmp_path / "sets.gmt"
    path.write_text(f"LINKED\tplanted\t{chr(9).join(NAMES[:3])}\tabsent\n", encoding="utf-8")
    return path


def test_genes_and_programmes_are_tested_at_every_scale(sdata, gene_sets):
    tables = list(sdata.tables)
    result = stp.tl.reliability_by_scale(sdata, scales=[1, 7], gene_sets=gene_sets)
    assert list(sdata.tables) == tables
    assert result.groupby(["kind", "scale"]).size().to_dict() == {
        ("gene", 1): 50,
        ("gene", 7): 50,
        ("programme", 1): 1,
        ("programme", 7): 1,
    }
    assert result["reliable"].dtype == bool
    planted = result["name"].str.startswith("morphology") | (result["name"] == "LINKED")
    reliable = result[result["reliable"]]
    assert planted[reliable.index].mean() >= 0.9
    # the noise of counts is averaged out
    pcc = result[planted].groupby("scale")["pcc"].mean()
    assert pcc[7] > pcc[1] + 0.1
    assert result.loc[planted & (result["scale"] == 7), "reliable"].mean() > 0.8


def test_scores_equal_their_definition(sdata):
    result = stp.tl.reliability_by_scale(sdata, scales=[7])
    row = result[result["name"] == NAMES[0]].iloc[0]
    spots, out_of_fold = open_table(sdata), sdata["out_of_fold"][:, NAMES[0]]
    pcc = []
    for rows in spots.section_rows.values():
        points = spots.positions_um[rows]
        distances = np.linalg.norm(points[:, None] - points, axis=-1)
        nearest = np.argsort(distances, axis=1, kind="stable")[:, :7]
        measured, predicted = (
            np.asarray(x)[rows, 0][nearest].mean(axis=1)
            for x in (out_of_fold.X, out_of_fold.layers["ridge"])
        )
        pcc.append(np.corrcoef(measured, predicted)[0, 1])
    assert row["pcc"] == pytest.approx(np.mean(pcc), abs=0.02)  # ties at the border


def test_single_spots_are_as_calibrated(sdata):
    result = stp.tl.reliability_by_scale(sdata, scales=[1])
    out_of_fold, spots = sdata["out_of_fold"], open_table(sdata)
    arrays = np.asarray(out_of_fold.X), np.asarray(out_of_fold.layers["ridge"])
    groups = spots.section_of_row
    of_spots = uncertainty.reliable(*arrays, spots.positions_um, sections=groups, groups=groups)
    np.testing.assert_allclose(result["p_adjusted"], of_spots.p_adjusted, rtol=1e-5)
    np.testing.assert_array_equal(result["reliable"], of_spots.reliable)
    coverage = uncertainty.coverage_by_group(*arrays, groups, level=0.9)[1].mean(axis=0)
    np.testing.assert_allclose(result["coverage"], coverage, rtol=1e-5)


def test_intervals_of_regions_are_narrower_and_cover(sdata):
    result = stp.tl.reliability_by_scale(sdata, scales=[1, 7], level=0.8)
    means = result.groupby("scale")[["coverage", "width"]].mean()
    assert means.loc[7, "width"] < 0.6 * means.loc[1, "width"]
    assert means["coverage"].between(0.7, 0.88).all()


def test_genes_without_predictions_are_not_reliable(sdata):
    sdata["out_of_fold"].layers["ridge"][:, 0] = np.nan
    result = stp.tl.reliability_by_scale(sdata, scales=[1, 7])
    absent = result[result["name"] == sdata["out_of_fold"].var_names[0]]
    assert absent[["pcc", "p_adjusted", "coverage", "width"]].isna().all(axis=None)
    assert not absent["reliable"].any()


def test_default_scales_fit_into_the_smallest_section(sdata, capsys, monkeypatch):
    monkeypatch.setattr(stp.settings, "verbosity", 1)
    smallest = open_table(sdata).table.obs["region"].value_counts().min()
    scales = stp.tl.reliability_by_scale(sdata)["scale"].unique().tolist()
    assert scales == [scale for scale in (1, 7, 19, 37) if 4 * scale <= smallest]
    assert "of 50 genes in regions of 7 spots" in capsys.readouterr().out


def test_genes_without_a_link_are_rarely_found(sdata):
    """Measured values of other places, at several seeds: all discoveries are false."""
    out_of_fold, spots = sdata["out_of_fold"], open_table(sdata)
    random = np.random.default_rng(0)
    n_false = []
    for seed in range(3):
        for rows in spots.section_rows.values():
            order = random.permutation(rows)
            out_of_fold.X[rows] = out_of_fold.X[order]
        result = stp.tl.reliability_by_scale(sdata, scales=[1, 7], seed=seed)
        n_false.append(result["reliable"].sum())
    assert np.count_nonzero(n_false) <= 1


def test_region_means_stay_within_sections():
    positions = np.tile(np.argwhere(np.ones((4, 4))), (2, 1)).astype(float)
    sections = np.repeat(["a", "b"], 16)
    values = (sections == "b").astype(float)[:, None]
    means = uncertainty.region_means(values, positions, sections=sections, n_spots=5)
    np.testing.assert_array_equal(means, values)
    same = uncertainty.region_means(values, positions, sections=sections, n_spots=1)
    np.testing.assert_array_equal(same, values)
    with pytest.raises(ValueError, match="section 'a' has 16 spots, fewer than n_spots=17"):
        uncertainty.region_means(values, positions, sections=sections, n_spots=17)


class TestBadInput:
    @pytest.mark.parametrize(
        ("scales", "message"),
        [
            ([], "distinct numbers"),
            ([7, 7], "distinct numbers"),
            ([0], "scales"),
            ([1, 1000], "regions of 1000 spots, but section 'S.' has .* a quarter"),
        ],
    )
    def test_scales_that_do_not_fit(self, sdata, scales, message):
        with pytest.raises(ValueError, match=message):
            stp.tl.reliability_by_scale(sdata, scales=scales)

    def test_no_cross_validation(self, sdata):
        with pytest.raises(ValueError, match=r"not written by stp\.tl\.cross_validate"):
            stp.tl.reliability_by_scale(sdata, key="table")
        with pytest.raises(KeyError, match="no 'other'"):
            stp.tl.reliability_by_scale(sdata, key="other")

    def test_a_method_that_was_not_validated(self, sdata):
        with pytest.raises(KeyError, match=r"'trees' was not.*methods: .*ridge"):
            stp.tl.reliability_by_scale(sdata, method="trees")

    def test_several_methods(self, sdata):
        layers = sdata["out_of_fold"].layers
        layers["other"] = layers["ridge"].copy()
        with pytest.raises(ValueError, match="method= must name one of ridge, other"):
            stp.tl.reliability_by_scale(sdata)

    def test_a_leak(self, sdata):
        sdata["out_of_fold"].uns["stpredict"]["cross_validate"]["leaky"] = True
        with pytest.raises(ValueError, match="leaks a group"):
            stp.tl.reliability_by_scale(sdata)

    def test_sets_without_predicted_genes(self, sdata, tmp_path):
        path = tmp_path / "sets.gmt"
        path.write_text("OTHER\t\tERBB2\tCD3E\n", encoding="utf-8")
        with pytest.raises(ValueError, match="no gene of 'OTHER' was predicted"):
            stp.tl.reliability_by_scale(sdata, gene_sets=path)

    def test_a_level_out_of_range(self, sdata):
        with pytest.raises(ValueError, match="between 0 and 1"):
            stp.tl.reliability_by_scale(sdata, level=90.0)
