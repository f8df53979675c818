"""Intervals, coverage, reliable genes and familiar tiles: oracles, planted truth, bad input."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stpredict.uncertainty import (
    Calibration,
    Familiarity,
    Intervals,
    Reliability,
    conformal,
    coverage,
    coverage_by_group,
    reliable,
    rows_needed,
)


def held_out(seed=0, *, n_groups=4, n_spots=150, n_genes=3, noise=1.0):
    """Predictions of several groups, and what was measured: noise grows with the prediction."""
    random = np.random.default_rng(seed)
    predicted = random.uniform(0, 3, (n_groups * n_spots, n_genes))
    measured = predicted + noise * (0.3 + predicted) * random.gamma(2, 1, predicted.shape)
    return measured, predicted, np.repeat([f"P{i}" for i in range(n_groups)], n_spots)


class TestIntervals:
    @pytest.mark.parametrize("level", [0.5, 0.8, 0.9, 0.95])
    def test_the_bounds_are_the_order_statistics_of_split_conformal(self, level):
        """Constant predictions are one part; groups of one size weigh as their rows do."""
        random = np.random.default_rng(0)
        measured = random.normal(size=(120, 2))
        found = conformal(measured, np.zeros((120, 2)), np.repeat([1, 2, 3], 40), level=level)
        k = math.ceil(121 * (1 + level) / 2 - 1e-9)
        for gene in range(2):
            ascending = np.sort(measured[:, gene])
            lower, upper = found.around(np.zeros((1, 2)))
            assert upper[0, gene] == np.float32(ascending[k - 1])
            assert lower[0, gene] == np.float32(ascending[120 - k])

    def test_low_middle_and_high_predictions_have_errors_of_their_own(self):
        measured, predicted, groups = held_out(n_genes=1)
        found = conformal(measured, predicted, groups, level=0.9)
        order = np.argsort(predicted[:, 0], kind="stable")
        for third, rows in enumerate(np.split(order, 3)):
            errors = np.sort((measured - predicted)[rows, 0])
            k = math.ceil(201 * 0.95)
            assert found.upper[0, third] == pytest.approx(errors[k - 1], rel=1e-6)
            assert found.lower[0, third] == pytest.approx(errors[200 - k], rel=1e-6)
        assert found.upper[0, 0] < found.upper[0, 1] < found.upper[0, 2]

    @pytest.mark.parametrize("level", [0.5, 0.8, 0.9])
    def test_spots_of_a_new_group_are_covered(self, level):
        shares = []
        for seed in range(30):
            measured, predicted, groups = held_out(seed, n_groups=6, n_genes=8)
            new = groups == "P5"
            found = conformal(measured[~new], predicted[~new], groups[~new], level=level)
            shares.append(coverage(measured[new], *found.around(predicted[new])).mean())
        # of 36,000 values: four standard errors, and what the correction for finite samples adds
        assert abs(np.mean(shares) - level) < 0.015

    @given(st.floats(-50, 50), st.floats(0.1, 20))
    @settings(max_examples=25, deadline=None)
    def test_units_do_not_matter(self, shift, factor):
        measured, predicted, groups = held_out()
        one = conformal(measured, predicted, groups, level=0.9)
        other = conformal(measured * factor + shift, predicted * factor + shift, groups, level=0.9)
        for name in ("lower", "upper"):
            np.testing.assert_allclose(
                getattr(other, name), getattr(one, name) * factor, rtol=1e-3, atol=1e-3
            )

    def test_groups_weigh_alike_whatever_their_size(self):
        errors = np.concatenate([np.full(1000, 0.1), np.linspace(1, 2, 100)])
        groups = np.repeat(["large", "small"], [1000, 100])
        found = conformal(errors[:, None], np.zeros((1100, 1)), groups, level=0.8)
        # of the pooled rows, nine in ten would have the small error
        assert found.around(np.zeros((1, 1)))[1].item() == pytest.approx(1.8, abs=0.05)

    def test_a_third_of_few_rows_takes_the_errors_of_all(self):
        measured, predicted, groups = held_out(n_groups=2, n_spots=20, n_genes=1)
        found = conformal(measured, predicted, groups, level=0.9)
        assert len(set(found.upper[0])) == 1

    def test_rows_in_which_a_gene_was_not_predicted_do_not_count(self):
        measured, predicted, groups = held_out()
        whole = conformal(measured[150:], predicted[150:], groups[150:], level=0.9)
        predicted[:150, 0] = np.nan
        predicted[:, 2] = np.nan
        found = conformal(measured, predicted, groups, level=0.9)
        np.testing.assert_array_equal(found.upper[0], whole.upper[0])
        np.testing.assert_array_equal(found.known, [True, True, False])
        assert np.isnan(found.around(np.ones((2, 3)))[0][:, 2]).all()

    def test_intervals_are_taken_in_float32(self):
        measured, predicted, groups = held_out()
        lower, upper = conformal(measured, predicted, groups, level=0.9).around(predicted)
        assert lower.dtype == upper.dtype == np.float32
        assert (lower <= upper).all()

    @pytest.mark.parametrize(("level", "n"), [(0.5, 3), (0.8, 9), (0.9, 19), (0.95, 39)])
    def test_rows_needed_are_those_of_which_the_bound_is_the_last(self, level, n):
        assert rows_needed(level) == n
        few = {"measured": np.arange(n, dtype=float)[:, None], "predicted": np.zeros((n, 1))}
        found = conformal(**few, groups=np.arange(n), level=level)
        assert found.upper[0, 0] == n - 1
        one_less = {name: values[1:] for name, values in few.items()}
        with pytest.raises(
            ValueError, match=f"at least {n} held-out rows of a gene, found {n - 1}"
        ):
            conformal(**one_less, groups=np.arange(n - 1), level=level)

    @pytest.mark.parametrize("level", [0, 1, -0.1, 90, "0.9", None, True, np.nan])
    def test_a_level_that_is_none(self, level):
        with pytest.raises(ValueError, match="between 0 and 1"):
            conformal(*held_out(), level=level)
        with pytest.raises(ValueError, match="between 0 and 1"):
            rows_needed(level)

    def test_arrays_that_do_not_fit(self):
        measured, predicted, groups = held_out()
        with pytest.raises(ValueError, match=r"\(600, 3\) and \(600, 2\)"):
            conformal(measured, predicted[:, :2], groups, level=0.9)
        with pytest.raises(ValueError, match=r"groups must be \(600,\), not \(599,\)"):
            conformal(measured, predicted, groups[1:], level=0.9)
        with pytest.raises(ValueError, match="1 measured values are NaN"):
            conformal(with_one(measured, np.nan), predicted, groups, level=0.9)
        with pytest.raises(ValueError, match="1 predicted values are infinite"):
            conformal(measured, with_one(predicted, np.inf), groups, level=0.9)
        found = conformal(measured, predicted, groups, level=0.9)
        with pytest.raises(ValueError, match=r"predicted must be \(n, 3\), not \(600, 2\)"):
            found.around(predicted[:, :2])

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"level": 2.0}, "between 0 and 1"),
            ({"lower": np.zeros((3, 2), np.float32)}, r"lower must be \(3, 3\)"),
            ({"upper": np.full((3, 3), np.inf, np.float32)}, "infinite"),
            ({"upper": np.full((3, 3), -9, np.float32)}, "lies above"),
            ({"edges": np.full((3, 2), np.nan, np.float32)}, "3 genes have only some"),
        ],
    )
    def test_intervals_that_are_none(self, change, message):
        found = conformal(*held_out(), level=0.9)
        with pytest.raises(ValueError, match=message):
            replace(found, **change)


def with_one(values, value):
    changed = values.copy()
    changed[5, 1] = value
    return changed


class TestCoverage:
    def test_it_is_the_share_inside(self):
        random = np.random.default_rng(0)
        measured, center = random.normal(size=(2, 40, 5))
        lower, upper = center - 0.7, center + 0.9
        naive = [
            sum(lo <= x <= up for lo, x, up in zip(*columns, strict=True)) / 40
            for columns in zip(lower.T, measured.T, upper.T, strict=True)
        ]
        np.testing.assert_allclose(coverage(measured, lower, upper), naive)

    def test_bounds_count_as_inside(self):
        ones = np.ones((4, 1))
        assert coverage(ones, ones, ones) == 1

    def test_genes_without_intervals_have_none(self):
        ones = np.ones((4, 2))
        lower = np.array([[0.0, np.nan]] * 4)
        np.testing.assert_array_equal(coverage(ones, lower, lower + 2), [1, np.nan])

    def test_each_group_is_covered_by_intervals_of_the_others(self):
        measured, predicted, groups = held_out()
        names, found = coverage_by_group(measured, predicted, groups, level=0.8)
        assert names == ("P0", "P1", "P2", "P3")
        for name, shares in zip(names, found, strict=True):
            others = groups != name
            made = conformal(measured[others], predicted[others], groups[others], level=0.8)
            by_hand = coverage(measured[~others], *made.around(predicted[~others]))
            np.testing.assert_array_equal(shares, by_hand.astype(np.float32))

    def test_a_group_unlike_the_others_is_seen(self):
        measured, predicted, groups = held_out()
        measured[groups == "P2"] += 9
        found = coverage_by_group(measured, predicted, groups, level=0.9)[1]
        assert found[2].mean() < 0.5

    def test_genes_that_a_group_lacks(self):
        measured, predicted, groups = held_out()
        predicted[groups == "P1", 0] = np.nan
        found = coverage_by_group(measured, predicted, groups, level=0.9)[1]
        np.testing.assert_array_equal(np.isnan(found), [[0, 0, 0], [1, 0, 0], [0, 0, 0], [0, 0, 0]])

    def test_bad_input(self):
        measured, predicted, groups = held_out(n_spots=10)
        with pytest.raises(ValueError, match=r"must all be \(n, n_genes\): \(40, 3\), \(40, 3\)"):
            coverage(measured, measured, measured[:, :2])
        with pytest.raises(ValueError, match="1 measured values are NaN"):
            coverage(with_one(measured, np.nan), predicted, predicted)
        with pytest.raises(ValueError, match="1 genes have intervals in some rows only"):
            coverage(measured, with_one(predicted, np.nan), predicted)
        with pytest.raises(ValueError, match="one group only, P0"):
            coverage_by_group(measured[:10], predicted[:10], groups[:10], level=0.5)
        with pytest.raises(ValueError, match=r"without group 'P0' there are 30.*at least 39"):
            coverage_by_group(measured, predicted, groups, level=0.95)


def smooth_fields(seed, positions, n_genes):
    """Maps with autocorrelation, independent of each other."""
    random = np.random.default_rng(seed)
    distance = np.linalg.norm(positions[:, None] - positions[None], axis=2)
    factor = np.linalg.cholesky(np.exp(-((distance / 4) ** 2)) + 1e-6 * np.eye(len(positions)))
    return factor @ random.normal(size=(len(positions), n_genes))


class TestReliable:
    @pytest.fixture
    def maps(self):
        """Smooth predictions in three sections; every other gene is what was predicted, noisy."""
        grid = np.argwhere(np.ones((14, 14))).astype(float)
        random = np.random.default_rng(0)
        predicted = np.vstack([smooth_fields(10 + i, grid, 60) for i in range(3)])
        others = np.vstack([smooth_fields(20 + i, grid, 60) for i in range(3)])
        planted = np.arange(60) % 2 == 0
        measured = np.where(planted, predicted, others)
        measured = measured + random.normal(size=measured.shape)
        return measured, 0.5 * predicted, np.tile(grid, (3, 1)), np.repeat(["a", "b", "c"], 196)

    def run(self, maps, **change):
        measured, predicted, positions, sections = maps
        options = {"sections": sections, "groups": sections, **change}
        return reliable(measured, predicted, positions, **options)

    def test_planted_genes_are_and_smooth_maps_are_not(self, maps):
        found = self.run(maps).reliable
        assert found[::2].mean() > 0.95
        assert found[1::2].mean() < 0.1

    def test_of_smooth_maps_alone_hardly_any_is(self, maps):
        measured, predicted, positions, sections = maps
        wrong = np.arange(60) % 2 == 1
        found = self.run((measured[:, wrong], predicted[:, wrong], positions, sections))
        assert found.reliable.sum() <= 1

    def test_correlated_but_off_the_level_is_not(self, maps):
        measured, predicted, positions, sections = maps
        found = self.run((measured, predicted + 5, positions, sections))
        assert not found.reliable.any()
        assert (found.rmse_ratio > 1).all()
        assert (found.p_adjusted[::2] < 0.05).all()

    def test_scores_are_those_of_their_definition(self, maps):
        measured, predicted, _, sections = maps
        found = self.run(maps)
        pcc, errors = [], []
        for name in "abc":
            here = sections == name
            pcc.append(np.corrcoef(measured[here, 4], predicted[here, 4])[0, 1])
            mean = measured[~here, 4].mean()
            errors.append(
                [((measured[here, 4] - x) ** 2).mean() for x in (predicted[here, 4], mean)]
            )
        assert found.pcc[4] == pytest.approx(np.mean(pcc), rel=1e-5)
        ratio = np.sqrt(np.divide(*np.mean(errors, axis=0)))
        assert found.rmse_ratio[4] == pytest.approx(ratio, rel=1e-5)

    def test_the_same_seed_decides_the_same(self, maps):
        one, other = self.run(maps), self.run(maps)
        np.testing.assert_array_equal(one.p_adjusted, other.p_adjusted)
        assert (self.run(maps, seed=1).pcc_null != one.pcc_null).any()

    def test_genes_that_were_not_predicted_are_not(self, maps):
        measured, predicted, positions, sections = maps
        predicted[:, 0] = np.nan
        predicted[sections == "b", 2] = np.nan
        found = self.run((measured, predicted, positions, sections))
        assert np.isnan(found.pcc[0])
        assert not found.reliable[0]
        assert found.reliable[2]

    def test_constants_are_not(self, maps):
        measured, predicted, positions, sections = maps
        predicted[:, 0], measured[:, 2] = 1.0, 1.0
        found = self.run((measured, predicted, positions, sections))
        assert not found.reliable[[0, 2]].any()
        np.testing.assert_array_equal(found.pcc[[0, 2]], 0)

    def test_bad_input(self, maps):
        measured, predicted, positions, sections = maps
        with pytest.raises(ValueError, match="one group only"):
            self.run(maps, groups=np.full(len(sections), "a"))
        with pytest.raises(ValueError, match="positions and sections must be"):
            self.run((measured, predicted, positions[1:], sections))
        with pytest.raises(ValueError, match="1 measured values are NaN"):
            self.run((with_one(measured, np.nan), predicted, positions, sections))


class TestFamiliarity:
    def tiles(self, seed, n=400, d=30):
        """Tiles that lie near a plane of three dimensions."""
        random = np.random.default_rng(seed)
        axes = np.random.default_rng(99).normal(size=(3, d))
        return random.normal(size=(n, 3)) @ axes + 0.1 * random.normal(size=(n, d))

    @pytest.fixture
    def known(self):
        groups = np.repeat(["P1", "P2", "P3", "P4"], 100)
        return Familiarity.fit(self.tiles(0), groups)

    def test_tiles_like_those_of_training_are_about_evenly_spread(self, known):
        scores = known.score(self.tiles(1, n=2000))
        assert scores.dtype == np.float32
        assert abs(scores.mean() - 0.5) < 0.1
        for share in (0.1, 0.25, 0.75, 0.9):
            assert abs((scores < share).mean() - share) < 0.12

    def test_foreign_tiles_have_none(self, known):
        tiles = self.tiles(1)
        off_the_plane = tiles + np.random.default_rng(5).normal(size=30)
        for foreign in (tiles + 20, tiles * 30, off_the_plane):
            assert known.score(foreign).max() < 0.02

    def test_distances_are_between_groups(self):
        tiles = self.tiles(0)
        apart = tiles + np.repeat([0, 100], 200)[:, None]  # two slides that have nothing in common
        known = Familiarity.fit(apart, np.repeat(["P1", "P2"], 200))
        assert known.score(apart).min() > 0.9

    def test_the_naive_loop_finds_the_same(self, known):
        new = self.tiles(2, n=20)
        scores = (new - known.mean) @ known.components.T
        for row, found in zip(scores, known.score(new), strict=True):
            near = np.sort(np.linalg.norm(known.tiles - row, axis=1))[:5].mean()
            assert found == pytest.approx((known.distances > near).mean(), abs=0.006)

    def test_large_cohorts_are_thinned_evenly(self):
        groups = np.repeat(["P1", "P2", "P3"], [6000, 500, 3000])
        known = Familiarity.fit(self.tiles(0, n=9500, d=5), groups)
        assert len(known.tiles) == 1333 + 500 + 1333

    def test_a_feature_that_is_constant_is_no_component(self):
        tiles = self.tiles(0)
        tiles[:, 3:] = 1.0
        known = Familiarity.fit(tiles, np.repeat(["P1", "P2"], 200))
        assert len(known.components) == 3
        assert np.isfinite(known.score(self.tiles(1))).all()

    def test_bad_input(self, known):
        tiles = self.tiles(0, n=20)
        with pytest.raises(ValueError, match="one group only, P1"):
            Familiarity.fit(tiles, np.full(20, "P1"))
        with pytest.raises(ValueError, match="beside the largest group of 17 tiles there are 3"):
            Familiarity.fit(tiles, np.repeat(["P1", "P2"], [17, 3]))
        with pytest.raises(ValueError, match=r"groups must be \(20,\), not \(19,\)"):
            Familiarity.fit(tiles, np.repeat("P1", 19))
        with pytest.raises(ValueError, match="NaN"):
            Familiarity.fit(with_one(tiles, np.nan), np.repeat(["P1", "P2"], 10))
        with pytest.raises(ValueError, match=r"embeddings must be \(n, 30\), not \(20, 4\)"):
            known.score(tiles[:, :4])
        with pytest.raises(ValueError, match="ascend"):
            replace(known, distances=known.distances[::-1].copy())
        with pytest.raises(ValueError, match=r"tiles of the familiarity must be \(399, "):
            replace(known, tiles=known.tiles[1:, :1])
        with pytest.raises(ValueError, match="must be finite"):
            replace(known, mean=known.mean * np.nan)


class TestCalibration:
    @pytest.fixture
    def calibration(self):
        measured, predicted, groups = held_out()
        names, shares = coverage_by_group(measured, predicted, groups, level=0.9)
        positions = np.random.default_rng(0).random((600, 2))
        return Calibration(
            method="ridge",
            groups=names,
            intervals=conformal(measured, predicted, groups, level=0.9),
            coverage=shares,
            reliability=reliable(measured, predicted, positions, sections=groups, groups=groups),
            familiarity=Familiarity.fit(predicted, groups),
        )

    def test_it_comes_back_from_its_state(self, calibration):
        config, tensors = calibration.state()
        again = Calibration.from_state(config, tensors)
        assert again.state()[0] == config
        for name, array in again.state()[1].items():
            np.testing.assert_array_equal(array, tensors[name], strict=True)

    def test_coverage_is_averaged_over_genes_then_groups(self, calibration):
        shares = calibration.coverage.copy()
        shares[0] = np.nan
        shares[1, 0] = np.nan
        found = replace(calibration, coverage=shares)
        of_groups = found.coverage_of_groups
        assert np.isnan(of_groups["P0"])
        assert of_groups["P1"] == pytest.approx(shares[1, 1:].mean())
        means = [of_groups[name] for name in ("P1", "P2", "P3")]
        assert found.mean_coverage == pytest.approx(np.mean(means))

    def test_a_gene_without_interval_is_not_reliable(self, calibration):
        sure = Reliability(
            *(np.array(x, np.float32) for x in ([1] * 3, [0] * 3, [0] * 3, [0.5] * 3))
        )
        numbers = {
            name: getattr(calibration.intervals, name).copy()
            for name in ("edges", "lower", "upper")
        }
        for array in numbers.values():
            array[1] = np.nan
        found = replace(calibration, reliability=sure, intervals=Intervals(0.9, **numbers))
        np.testing.assert_array_equal(found.reliable, [True, False, True])

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"groups": ("P0",)}, "at least two groups"),
            ({"groups": ("P0", "P0", "P1", "P2")}, "at least two groups"),
            ({"coverage": np.ones((4, 2), np.float32)}, r"coverage must be \(4, 3\)"),
            ({"coverage": np.full((4, 3), 1.5, np.float32)}, "between 0 and 1"),
            ({"reliability": Reliability(*[np.zeros(2, np.float32)] * 4)}, "of 2 genes"),
        ],
    )
    def test_parts_that_do_not_fit(self, calibration, change, message):
        with pytest.raises(ValueError, match=message):
            replace(calibration, **change)

    def test_scores_of_different_lengths(self):
        with pytest.raises(ValueError, match=r"rmse_ratio must be \(3,\), not \(2,\)"):
            Reliability(*[np.zeros(3, np.float32)] * 3, np.zeros(2, np.float32))
