"""Intervals, coverage, reliable genes and familiarity against oracles and planted truth."""

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
    SectionRule,
    conformal,
    coverage,
    coverage_by_group,
    reliable,
    rows_needed,
)
from stpredict.uncertainty._familiarity import LeftOut
from stpredict.uncertainty._section_rule import needed_width


def held_out(seed=0, *, n_groups=4, n_spots=150, n_genes=3, noise=1.0):
    """Measured values and predictions of several groups; noise grows with the prediction."""
    random = np.random.default_rng(seed)
    predicted = random.uniform(0, 3, (n_groups * n_spots, n_genes))
    measured = predicted + noise * (0.3 + predicted) * random.gamma(2, 1, predicted.shape)
    return measured, predicted, np.repeat([f"P{i}" for i in range(n_groups)], n_spots)


class TestIntervals:
    @pytest.mark.parametrize("level", [0.5, 0.8, 0.9, 0.95])
    def test_the_bounds_are_the_order_statistics_of_split_conformal(self, level):
        """Constant predictions are one part, and rows of equal groups have equal weights."""
        random = np.random.default_rng(0)
        measured = random.normal(size=(120, 2))
        intervals = conformal(measured, np.zeros((120, 2)), np.repeat([1, 2, 3], 40), level=level)
        k = math.ceil(121 * (1 + level) / 2 - 1e-9)
        for gene in range(2):
            ascending = np.sort(measured[:, gene])
            lower, upper = intervals.around(np.zeros((1, 2)))
            assert upper[0, gene] == np.float32(ascending[k - 1])
            assert lower[0, gene] == np.float32(ascending[120 - k])

    def test_low_middle_and_high_predictions_have_separate_bounds(self):
        measured, predicted, groups = held_out(n_genes=1)
        intervals = conformal(measured, predicted, groups, level=0.9)
        order = np.argsort(predicted[:, 0], kind="stable")
        for third, rows in enumerate(np.split(order, 3)):
            errors = np.sort((measured - predicted)[rows, 0])
            k = math.ceil(201 * 0.95)
            assert intervals.upper[0, third] == pytest.approx(errors[k - 1], rel=1e-6)
            assert intervals.lower[0, third] == pytest.approx(errors[200 - k], rel=1e-6)
        assert intervals.upper[0, 0] < intervals.upper[0, 1] < intervals.upper[0, 2]

    @pytest.mark.parametrize("level", [0.5, 0.8, 0.9])
    def test_spots_of_a_new_group_are_covered(self, level):
        shares = []
        for seed in range(30):
            measured, predicted, groups = held_out(seed, n_groups=6, n_genes=8)
            new = groups == "P5"
            intervals = conformal(measured[~new], predicted[~new], groups[~new], level=level)
            shares.append(coverage(measured[new], *intervals.around(predicted[new])).mean())
        # four standard errors of 36,000 values, and the finite-sample correction
        assert abs(np.mean(shares) - level) < 0.015

    @given(st.floats(-50, 50), st.floats(0.1, 20))
    @settings(max_examples=25, deadline=None)
    def test_intervals_follow_scale_and_shift(self, shift, factor):
        measured, predicted, groups = held_out()
        one = conformal(measured, predicted, groups, level=0.9)
        other = conformal(measured * factor + shift, predicted * factor + shift, groups, level=0.9)
        for name in ("lower", "upper"):
            np.testing.assert_allclose(
                getattr(other, name), getattr(one, name) * factor, rtol=1e-3, atol=1e-3
            )

    def test_groups_have_equal_weights(self):
        errors = np.concatenate([np.full(1000, 0.1), np.linspace(1, 2, 100)])
        groups = np.repeat(["large", "small"], [1000, 100])
        intervals = conformal(errors[:, None], np.zeros((1100, 1)), groups, level=0.8)
        # with equal weights of rows, the bound would be the small error
        assert intervals.around(np.zeros((1, 1)))[1].item() == pytest.approx(1.8, abs=0.05)

    def test_a_third_with_few_rows_uses_all_errors(self):
        measured, predicted, groups = held_out(n_groups=2, n_spots=20, n_genes=1)
        intervals = conformal(measured, predicted, groups, level=0.9)
        assert len(set(intervals.upper[0])) == 1

    def test_rows_without_a_prediction_are_ignored(self):
        measured, predicted, groups = held_out()
        whole = conformal(measured[150:], predicted[150:], groups[150:], level=0.9)
        predicted[:150, 0] = np.nan
        predicted[:, 2] = np.nan
        intervals = conformal(measured, predicted, groups, level=0.9)
        np.testing.assert_array_equal(intervals.upper[0], whole.upper[0])
        np.testing.assert_array_equal(intervals.available, [True, True, False])
        assert np.isnan(intervals.around(np.ones((2, 3)))[0][:, 2]).all()

    def test_intervals_are_float32(self):
        measured, predicted, groups = held_out()
        lower, upper = conformal(measured, predicted, groups, level=0.9).around(predicted)
        assert lower.dtype == upper.dtype == np.float32
        assert (lower <= upper).all()

    @pytest.mark.parametrize(("level", "n"), [(0.5, 3), (0.8, 9), (0.9, 19), (0.95, 39)])
    def test_with_the_rows_needed_the_bound_is_the_last_error(self, level, n):
        assert rows_needed(level) == n
        few = {"measured": np.arange(n, dtype=float)[:, None], "predicted": np.zeros((n, 1))}
        intervals = conformal(**few, groups=np.arange(n), level=level)
        assert intervals.upper[0, 0] == n - 1
        one_less = {name: values[1:] for name, values in few.items()}
        with pytest.raises(
            ValueError, match=f"at least {n} held-out rows of a gene, found {n - 1}"
        ):
            conformal(**one_less, groups=np.arange(n - 1), level=level)

    @pytest.mark.parametrize("level", [0, 1, -0.1, 90, "0.9", None, True, np.nan])
    def test_an_invalid_level_is_refused(self, level):
        for call in (lambda: conformal(*held_out(), level=level), lambda: rows_needed(level)):
            with pytest.raises((ValueError, TypeError), match=r"between 0 and 1|a finite number"):
                call()

    def test_arrays_of_other_shapes_are_refused(self):
        measured, predicted, groups = held_out()
        with pytest.raises(ValueError, match=r"\(600, 3\) and \(600, 2\)"):
            conformal(measured, predicted[:, :2], groups, level=0.9)
        with pytest.raises(ValueError, match=r"groups must be \(600,\), not \(599,\)"):
            conformal(measured, predicted, groups[1:], level=0.9)
        with pytest.raises(ValueError, match="1 measured values are NaN"):
            conformal(with_one(measured, np.nan), predicted, groups, level=0.9)
        with pytest.raises(ValueError, match="1 predicted values are infinite"):
            conformal(measured, with_one(predicted, np.inf), groups, level=0.9)
        intervals = conformal(measured, predicted, groups, level=0.9)
        with pytest.raises(ValueError, match=r"predicted must be \(n, 3\), not \(600, 2\)"):
            intervals.around(predicted[:, :2])

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"level": 2.0}, "between 0 and 1"),
            ({"lower": np.zeros((3, 2), np.float32)}, r"lower must be \(3, 3\)"),
            ({"upper": np.full((3, 3), np.inf, np.float32)}, "infinite"),
            ({"upper": np.full((3, 3), -9, np.float32)}, "exceeds"),
            ({"edges": np.full((3, 2), np.nan, np.float32)}, "3 genes have NaN in some"),
        ],
    )
    def test_invalid_intervals_are_refused(self, change, message):
        intervals = conformal(*held_out(), level=0.9)
        with pytest.raises(ValueError, match=message):
            replace(intervals, **change)


def with_one(values, value):
    changed = values.copy()
    changed[5, 1] = value
    return changed


class TestCoverage:
    def test_it_equals_a_naive_count(self):
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

    def test_genes_without_intervals_have_no_coverage(self):
        ones = np.ones((4, 2))
        lower = np.array([[0.0, np.nan]] * 4)
        np.testing.assert_array_equal(coverage(ones, lower, lower + 2), [1, np.nan])

    def test_each_group_is_scored_with_intervals_of_the_others(self):
        measured, predicted, groups = held_out()
        names, shares = coverage_by_group(measured, predicted, groups, level=0.8)
        assert names == ("P0", "P1", "P2", "P3")
        for name, row in zip(names, shares, strict=True):
            others = groups != name
            intervals = conformal(measured[others], predicted[others], groups[others], level=0.8)
            by_hand = coverage(measured[~others], *intervals.around(predicted[~others]))
            np.testing.assert_array_equal(row, by_hand.astype(np.float32))

    def test_a_shifted_group_has_low_coverage(self):
        measured, predicted, groups = held_out()
        measured[groups == "P2"] += 9
        shares = coverage_by_group(measured, predicted, groups, level=0.9)[1]
        assert shares[2].mean() < 0.5

    def test_genes_missing_in_a_group_have_no_coverage(self):
        measured, predicted, groups = held_out()
        predicted[groups == "P1", 0] = np.nan
        shares = coverage_by_group(measured, predicted, groups, level=0.9)[1]
        np.testing.assert_array_equal(
            np.isnan(shares), [[0, 0, 0], [1, 0, 0], [0, 0, 0], [0, 0, 0]]
        )

    def test_invalid_input_is_refused(self):
        measured, predicted, groups = held_out(n_spots=10)
        with pytest.raises(ValueError, match=r"must all be \(n, n_genes\): \(40, 3\), \(40, 3\)"):
            coverage(measured, measured, measured[:, :2])
        with pytest.raises(ValueError, match="1 measured values are NaN"):
            coverage(with_one(measured, np.nan), predicted, predicted)
        with pytest.raises(ValueError, match="1 genes have intervals in some rows only"):
            coverage(measured, with_one(predicted, np.nan), predicted)
        with pytest.raises(ValueError, match="at least two groups, found \\['P0'\\]"):
            coverage_by_group(measured[:10], predicted[:10], groups[:10], level=0.5)
        with pytest.raises(ValueError, match=r"without group 'P0'.*at least 39"):
            coverage_by_group(measured, predicted, groups, level=0.95)


def smooth_fields(seed, positions, n_genes):
    """Independent maps with autocorrelation."""
    random = np.random.default_rng(seed)
    distance = np.linalg.norm(positions[:, None] - positions[None], axis=2)
    factor = np.linalg.cholesky(np.exp(-((distance / 4) ** 2)) + 1e-6 * np.eye(len(positions)))
    return factor @ random.normal(size=(len(positions), n_genes))


class TestReliable:
    @pytest.fixture
    def maps(self):
        """Smooth predictions in three sections; every other gene is the prediction with noise."""
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

    def test_planted_genes_are_reliable_and_smooth_maps_are_not(self, maps):
        result = self.run(maps).reliable
        assert result[::2].mean() > 0.95
        assert result[1::2].mean() < 0.1

    def test_hardly_any_smooth_map_is_reliable(self, maps):
        measured, predicted, positions, sections = maps
        wrong = np.arange(60) % 2 == 1
        result = self.run((measured[:, wrong], predicted[:, wrong], positions, sections))
        assert result.reliable.sum() <= 1

    def test_correlated_genes_at_another_level_are_not_reliable(self, maps):
        measured, predicted, positions, sections = maps
        result = self.run((measured, predicted + 5, positions, sections))
        assert not result.reliable.any()
        assert (result.rmse_ratio > 1).all()
        assert (result.p_adjusted[::2] < 0.05).all()

    def test_scores_equal_their_definition(self, maps):
        measured, predicted, _, sections = maps
        result = self.run(maps)
        pcc, errors = [], []
        for name in "abc":
            inside = sections == name
            pcc.append(np.corrcoef(measured[inside, 4], predicted[inside, 4])[0, 1])
            mean = measured[~inside, 4].mean()
            errors.append(
                [((measured[inside, 4] - x) ** 2).mean() for x in (predicted[inside, 4], mean)]
            )
        assert result.pcc[4] == pytest.approx(np.mean(pcc), rel=1e-5)
        ratio = np.sqrt(np.divide(*np.mean(errors, axis=0)))
        assert result.rmse_ratio[4] == pytest.approx(ratio, rel=1e-5)

    def test_the_seed_determines_the_result(self, maps):
        one, other = self.run(maps), self.run(maps)
        np.testing.assert_array_equal(one.p_adjusted, other.p_adjusted)
        assert (self.run(maps, seed=1).pcc_null != one.pcc_null).any()

    def test_genes_without_predictions_are_not_reliable(self, maps):
        measured, predicted, positions, sections = maps
        predicted[:, 0] = np.nan
        predicted[sections == "b", 2] = np.nan
        result = self.run((measured, predicted, positions, sections))
        assert np.isnan(result.pcc[0])
        assert not result.reliable[0]
        assert result.reliable[2]

    def test_constant_genes_are_not_reliable(self, maps):
        measured, predicted, positions, sections = maps
        predicted[:, 0], measured[:, 2] = 1.0, 1.0
        result = self.run((measured, predicted, positions, sections))
        assert not result.reliable[[0, 2]].any()
        np.testing.assert_array_equal(result.pcc[[0, 2]], 0)

    def test_invalid_input_is_refused(self, maps):
        measured, predicted, positions, sections = maps
        with pytest.raises(ValueError, match="at least two held-out groups"):
            self.run(maps, groups=np.full(len(sections), "a"))
        with pytest.raises(ValueError, match=r"positions must be \(588, 2\)"):
            self.run((measured, predicted, positions[1:], sections))
        with pytest.raises(ValueError, match="1 measured values are NaN"):
            self.run((with_one(measured, np.nan), predicted, positions, sections))


class TestSectionRule:
    """When intervals of a section are widened or withheld."""

    def test_few_groups_have_the_default_limit(self):
        assert SectionRule.fit([0.5, 0.6, 0.02], []).limit == 0.1

    def test_groups_that_vary_more_lower_the_limit(self):
        similar, different = [0.5, 0.55, 0.6, 0.52, 0.58], [0.1, 0.9, 0.4, 0.7, 0.3]
        assert SectionRule.fit(similar, []).limit == 0.1
        logits = np.log(np.divide(different, np.subtract(1, different)))
        # 3.747 is the quantile .99 of Student's t with 4 degrees of freedom
        bound = logits.mean() - 3.747 * logits.std(ddof=1) * np.sqrt(1 + 1 / 5)
        limit = SectionRule.fit(different, []).limit
        assert limit == pytest.approx(1 / (1 + np.exp(-bound)), rel=1e-3)
        assert limit < 0.01

    def test_widths_grow_as_familiarity_falls(self):
        references = [(0.6, 1.0), (0.5, 1.0), (0.3, 1.3), (0.4, 1.4), (0.2, 1.6)]
        rule = SectionRule.fit([0.5, 0.6, 0.6], references)
        assert rule.width(0.7) == rule.width(0.6) == 1.0
        assert rule.width(0.35) == pytest.approx(1.35)  # the mean of two in the wrong order
        assert rule.width(0.15) == pytest.approx(1.6)
        assert np.isnan(rule.width(0.05))

    def test_without_references_intervals_are_not_widened(self):
        assert SectionRule().width(0.11) == 1.0
        assert np.isnan(SectionRule().width(0.09))

    def test_the_needed_width_reaches_the_level(self):
        measured, predicted, groups = held_out(noise=1.0)
        intervals = conformal(measured, predicted, groups, level=0.9)
        assert 1 <= needed_width(measured, predicted, intervals) < 1.02
        shifted = measured + 4
        assert coverage(shifted, *intervals.around(predicted)).mean() < 0.85
        width = needed_width(shifted, predicted, intervals)
        wider = coverage(shifted, *intervals.around(predicted, width)).mean()
        assert wider == pytest.approx(0.9, abs=0.002)

    def test_wider_intervals_contain_the_narrower(self):
        edges, both_above = np.float32([[0, 1]]), (np.float32([[1] * 3]), np.float32([[2] * 3]))
        intervals = Intervals(0.9, edges, *both_above)  # bounds on one side of the prediction
        lower, upper = intervals.around([[0.0]], 1.5)
        assert (lower.item(), upper.item()) == (0.5, 3.0)
        bounds = intervals.around(np.zeros((2, 1)), np.float32([[1], [np.nan]]))
        np.testing.assert_array_equal(np.isnan(bounds), [[[False], [True]]] * 2)

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ((1.5, [], []), "limit of the section rule must be between 0 and 1"),
            ((0.1, [0.5, 0.4], [1.2, 1.1]), "must ascend, and widths descend"),
            ((0.1, [0.4, 0.5], [1.1, 1.2]), "must ascend, and widths descend"),
            ((0.1, [0.4], [0.9]), "at least 1"),
            ((0.1, [0.4], []), "widths of the section rule"),
            ((0.1, [np.nan], [1.0]), "familiarity of the section rule"),
        ],
    )
    def test_invalid_rules_are_refused(self, values, message):
        limit, familiarity, widths = values
        with pytest.raises(ValueError, match=message):
            SectionRule(limit, np.float32(familiarity), np.float32(widths))


class TestFamiliarity:
    def tiles(self, seed, n=400, d=30):
        """Tiles close to a three-dimensional plane."""
        random = np.random.default_rng(seed)
        axes = np.random.default_rng(99).normal(size=(3, d))
        return random.normal(size=(n, 3)) @ axes + 0.1 * random.normal(size=(n, d))

    @pytest.fixture
    def familiarity(self):
        groups = np.repeat(["P1", "P2", "P3", "P4"], 100)
        return Familiarity.fit(self.tiles(0), groups)

    def test_scores_of_similar_tiles_are_about_uniform(self, familiarity):
        scores = familiarity.score(self.tiles(1, n=2000))
        assert scores.dtype == np.float32
        assert abs(scores.mean() - 0.5) < 0.1
        for share in (0.1, 0.25, 0.75, 0.9):
            assert abs((scores < share).mean() - share) < 0.12

    def test_unfamiliar_tiles_score_0(self, familiarity):
        tiles = self.tiles(1)
        off_the_plane = tiles + np.random.default_rng(5).normal(size=30)
        for foreign in (tiles + 20, tiles * 30, off_the_plane):
            assert familiarity.score(foreign).max() < 0.02

    def test_distances_are_measured_between_groups(self):
        tiles = self.tiles(0)
        separated = tiles + np.repeat([0, 100], 200)[:, None]  # two slides far from each other
        familiarity = Familiarity.fit(separated, np.repeat(["P1", "P2"], 200))
        assert familiarity.score(separated).min() > 0.9

    @pytest.mark.parametrize("n_groups", [2, 4])
    def test_a_group_can_be_left_out(self, n_groups):
        groups = np.repeat(np.arange(n_groups), 400 // n_groups)
        tiles = self.tiles(0)
        left_out = LeftOut.fit(tiles, groups)
        others = left_out.without(0)
        assert len(others.tiles) == (groups != 0).sum()
        assert abs(np.median(others.score(tiles[groups == 0])) - 0.5) < 0.15
        # the group itself does not make its tiles familiar
        moved = tiles + 20.0 * (groups == 0)[:, None]
        left_out, own = LeftOut.fit(moved, groups), moved[groups == 0]
        medians = [
            np.median(each.score(own)) for each in (left_out.without(0), left_out.familiarity)
        ]
        assert medians[0] < 0.6 < medians[1]

    def test_scores_equal_a_naive_loop(self, familiarity):
        new = self.tiles(2, n=20)
        scores = (new - familiarity.mean) @ familiarity.components.T
        for row, score in zip(scores, familiarity.score(new), strict=True):
            distance = np.sort(np.linalg.norm(familiarity.tiles - row, axis=1))[:5].mean()
            assert score == pytest.approx((familiarity.distances > distance).mean(), abs=0.006)

    def test_large_cohorts_are_subsampled_evenly(self):
        groups = np.repeat(["P1", "P2", "P3"], [6000, 500, 3000])
        familiarity = Familiarity.fit(self.tiles(0, n=9500, d=5), groups)
        assert len(familiarity.tiles) == 1333 + 500 + 1333

    def test_a_constant_feature_is_not_a_component(self):
        tiles = self.tiles(0)
        tiles[:, 3:] = 1.0
        familiarity = Familiarity.fit(tiles, np.repeat(["P1", "P2"], 200))
        assert len(familiarity.components) == 3
        assert np.isfinite(familiarity.score(self.tiles(1))).all()

    def test_invalid_input_is_refused(self, familiarity):
        tiles = self.tiles(0, n=20)
        with pytest.raises(ValueError, match="at least two groups, found \\['P1'\\]"):
            Familiarity.fit(tiles, np.full(20, "P1"))
        with pytest.raises(ValueError, match="5 tiles outside the largest group, found 3"):
            Familiarity.fit(tiles, np.repeat(["P1", "P2"], [17, 3]))
        with pytest.raises(ValueError, match=r"groups must be \(20,\), not \(19,\)"):
            Familiarity.fit(tiles, np.repeat("P1", 19))
        with pytest.raises(ValueError, match="NaN"):
            Familiarity.fit(with_one(tiles, np.nan), np.repeat(["P1", "P2"], 10))
        with pytest.raises(ValueError, match=r"embeddings must be \(n, 30\), not \(20, 4\)"):
            familiarity.score(tiles[:, :4])
        with pytest.raises(ValueError, match="ascend"):
            replace(familiarity, distances=familiarity.distances[::-1].copy())
        with pytest.raises(ValueError, match=r"tiles of the familiarity must be \(399, "):
            replace(familiarity, tiles=familiarity.tiles[1:, :1])
        with pytest.raises(ValueError, match="mean of the familiarity has 30 values that are NaN"):
            replace(familiarity, mean=familiarity.mean * np.nan)


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

    def test_it_is_restored_from_its_state(self, calibration):
        config, tensors = calibration.state()
        again = Calibration.from_state(config, tensors)
        assert again.state()[0] == config
        for name, array in again.state()[1].items():
            np.testing.assert_array_equal(array, tensors[name], strict=True)

    def test_representations_are_short_and_without_arrays(self, calibration):
        text = repr(calibration)
        assert "'ridge' on 4 held-out groups" in text
        assert len(text.splitlines()) == 4
        assert repr(calibration.intervals) == "Intervals(level=0.9, 3 of 3 genes)"
        assert repr(calibration.familiarity) == "Familiarity(600 tiles, 3 components of 3 features)"
        assert repr(calibration.reliability).endswith("of 3 genes are reliable)")

    def test_coverage_is_averaged_over_genes_then_groups(self, calibration):
        shares = calibration.coverage.copy()
        shares[0] = np.nan
        shares[1, 0] = np.nan
        changed = replace(calibration, coverage=shares)
        of_groups = changed.coverage_of_groups
        assert np.isnan(of_groups["P0"])
        assert of_groups["P1"] == pytest.approx(shares[1, 1:].mean())
        means = [of_groups[name] for name in ("P1", "P2", "P3")]
        assert changed.mean_coverage == pytest.approx(np.mean(means))

    def test_a_gene_without_intervals_is_not_reliable(self, calibration):
        reliability = Reliability(
            *(np.array(x, np.float32) for x in ([1] * 3, [0] * 3, [0] * 3, [0.5] * 3))
        )
        arrays = {
            name: getattr(calibration.intervals, name).copy()
            for name in ("edges", "lower", "upper")
        }
        for array in arrays.values():
            array[1] = np.nan
        changed = replace(calibration, reliability=reliability, intervals=Intervals(0.9, **arrays))
        np.testing.assert_array_equal(changed.reliable, [True, False, True])

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"groups": ("P0",)}, "at least two distinct groups"),
            ({"groups": ("P0", "P0", "P1", "P2")}, "at least two distinct groups"),
            ({"coverage": np.ones((4, 2), np.float32)}, r"coverage must be \(4, 3\)"),
            ({"coverage": np.full((4, 3), 1.5, np.float32)}, "between 0 and 1"),
            ({"reliability": Reliability(*[np.zeros(2, np.float32)] * 4)}, "has 2 genes"),
        ],
    )
    def test_parts_that_do_not_match_are_refused(self, calibration, change, message):
        with pytest.raises(ValueError, match=message):
            replace(calibration, **change)

    def test_scores_of_different_lengths_are_refused(self):
        with pytest.raises(ValueError, match=r"rmse_ratio must be \(3,\), not \(2,\)"):
            Reliability(*[np.zeros(3, np.float32)] * 3, np.zeros(2, np.float32))
