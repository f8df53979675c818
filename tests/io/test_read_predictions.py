"""Predictions of other tools: spots, tiles and genes matched, units, scores, and bad input."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import stpredict as stp
from stpredict import metrics
from stpredict._sdata._provenance import recorded
from stpredict._sdata._spot_table import copy_of, open_table

PITCH_UM = 60.0
#: Scores that do not change if a gene is shifted and scaled.
FREE = [name for name, metric in metrics.METRICS.items() if not metric.needs_units]


@pytest.fixture(scope="module")
def prepared():
    """Two sections with Ensembl ids, and predictions of a model for both."""
    sdata = stp.datasets.phantom(
        2, size_px=800, pitch_um=PITCH_UM, n_morphology=4, n_neighborhood=2, n_null=2
    )
    sdata["table"].var["gene_ids"] = [f"ENSG{i:011d}" for i in range(sdata["table"].n_vars)]
    stp.pp.normalize(sdata)
    stp.pp.embed(sdata, lambda tiles: tiles.mean((-2, -1)), key_added="X_colour", tile_um=60)
    stp.pp.neighbors(sdata)
    model = stp.tl.fit_ridge(
        sdata,
        embedding="X_colour",
        genes=sdata["table"].var_names[:6],
        context="spot",
        alpha=1.0,
    )
    stp.tl.predict(sdata, model)
    return sdata


@pytest.fixture
def sdata(prepared):
    return copy_of(prepared)


@pytest.fixture
def single(prepared):
    return copy_of(prepared.subset(["S1", "S1_image"]))


def tidy(scores, metrics=None):
    table = scores.table[scores.table["method"].isin(scores.methods)].astype(str)
    table["value"] = scores.table.loc[table.index, "value"]
    table = table.set_index(["section", "gene", "metric"])["value"].sort_index()
    return table if metrics is None else table[table.index.isin(metrics, level="metric")]


def grid(pitch_um, *, size_um=800.0, start_um=0.0):
    """Centres of tiles on a square grid over the section, (n, 2) in µm."""
    steps = np.arange(start_um, size_um, pitch_um)
    return np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)


def tiles(positions, *, genes=("morphology_001", "null_001")):
    """Predictions that are smooth functions of the position."""
    x, y = positions.T / 100
    columns = dict(zip(genes, (np.sin(x) + np.cos(y), np.sin(y) * x), strict=False))
    return pd.DataFrame({"x": positions[:, 0], "y": positions[:, 1], **columns})


def naive_values(section, positions, values):
    """Mean of the tiles inside each spot, or of the nearest ones within its cell of the grid."""
    pitch = np.median([np.sort(np.hypot(*(positions - each).T))[2] for each in positions])
    expected = {}
    for row, center, radius in zip(
        section.rows, section.centers_um, section.radius_um, strict=True
    ):
        distance = np.hypot(*(positions - center).T)
        if (distance <= radius).any():
            expected[row] = values[distance <= radius].mean(axis=0)
        elif distance.min() <= 1.05 * pitch / np.sqrt(2):
            expected[row] = values[distance <= distance.min() + 1e-3].mean(axis=0)
    return expected


@pytest.mark.parametrize("pitch_um", [17.0, 50.0, 60.0, 150.0])
@pytest.mark.parametrize("start_um", [0.0, 250.0])
def test_tiles_are_matched_to_spots_by_position(single, pitch_um, start_um):
    positions = grid(pitch_um, start_um=start_um)
    frame = tiles(positions)
    stp.io.read_predictions(single, frame, x="x", y="y", mpp=1.0)
    table = single["external"]
    section = open_table(single).sections[0]
    expected = naive_values(section, positions, frame[list(table.var_names)].to_numpy())
    assert table.obs_names.tolist() == single["table"].obs_names[sorted(expected)].tolist()
    np.testing.assert_allclose(table.X, [expected[row] for row in sorted(expected)], atol=1e-6)
    assert (len(expected) < single["table"].n_obs) == (start_um > 0)


def test_the_note_says_what_was_matched(single):
    frame = tiles(grid(25.0, start_um=250), genes=("morphology_001", "absent"))
    stp.io.read_predictions(single, frame, x="x", y="y", mpp=1.0)
    n_matched, n_spots = single["external"].n_obs, single["table"].n_obs
    note = recorded(single["external"], "predict")["notes"][0]
    assert note.startswith(f"S1: {n_matched} of {n_spots} spots matched by position to tiles 25 µm")
    assert "to the mean of" in note
    assert "tiles lie on no spot. 1 of 8 measured genes matched by name, 1 others" in note
    scores = stp.tl.evaluate(single, "external")
    assert note in str(scores.protocol)
    assert "The training sections of 'external' are UNKNOWN" in str(scores.protocol)


def test_tiles_on_no_spot_may_be_nan_and_the_input_is_not_changed(single):
    frame = tiles(grid(25.0))
    stp.io.read_predictions(single, frame, x="x", y="y", mpp=1.0)
    expected = single["external"].X
    corner = frame.index[0]  # of the image, where no spot lies
    frame.loc[corner, "morphology_001"] = np.nan
    before = frame.copy()
    stp.io.read_predictions(single, frame, x="x", y="y", mpp=1.0)
    np.testing.assert_array_equal(single["external"].X, expected)
    pd.testing.assert_frame_equal(frame, before)


def test_positions_in_pixels_are_those_of_the_image(single):
    section = open_table(single).sections[0]
    frame = tiles(section.centers)
    stp.io.read_predictions(single, frame, x="x", y="y")
    np.testing.assert_allclose(
        single["external"].X, frame[list(single["external"].var_names)], atol=1e-6
    )


@pytest.mark.parametrize("orientation", ["spots", "genes"])
def test_a_csv_with_ensembl_ids_scores_like_the_same_predictions(sdata, tmp_path, orientation):
    predicted = sdata["predicted"].to_df()
    ids = sdata["table"].var["gene_ids"]
    frame = predicted.rename(columns=lambda gene: f"{ids[gene]}.12").iloc[::-1, ::-1]
    frame = frame if orientation == "spots" else frame.T
    frame.to_csv(tmp_path / "other.csv")
    stp.io.read_predictions(
        sdata, tmp_path / "other.csv", same_units=True, training_sections=["S1", "S2"]
    )
    np.testing.assert_allclose(sdata["external"].to_df()[predicted.columns], predicted, atol=1e-6)
    expected, scores = stp.tl.evaluate(sdata), stp.tl.evaluate(sdata, "external")
    pd.testing.assert_series_equal(tidy(scores), tidy(expected), atol=1e-5)
    assert scores.protocol.leaking_sections == ("S1", "S2")
    assert "matched by gene_ids" in str(scores.protocol)


def test_rows_are_matched_by_the_id_of_the_spot_in_its_section(sdata):
    predicted = sdata["predicted"].to_df()
    regions = sdata["table"].obs["region"].astype(str)
    sources = {}
    for name in ("S2", "S1"):
        part = predicted[regions == name]
        sources[name] = part.set_axis(sdata["table"].obs.loc[part.index, "instance_id"])
    stp.io.read_predictions(sdata, sources)
    np.testing.assert_allclose(sdata["external"].to_df(), predicted, atol=1e-6)


def test_an_anndata_is_matched_by_its_positions_and_columns_of_var(single):
    predicted = single["predicted"].to_df()
    var = pd.DataFrame({"ensembl": single["table"].var["gene_ids"][:6].to_numpy()})
    table = AnnData(
        predicted.to_numpy(),
        var=var.set_axis([f"gene{i}" for i in range(6)]),
        obsm={"spatial": open_table(single).sections[0].centers + 2.0},
    )
    stp.io.read_predictions(single, {"S1": table})
    np.testing.assert_allclose(single["external"].to_df(), predicted, atol=1e-6)


def test_numbers_of_tiles_are_not_taken_for_names_of_spots(single):
    single["table"].obs_names = [str(i) for i in range(single["table"].n_obs)]
    order = np.random.default_rng(0).permutation(single["table"].n_obs)
    table = AnnData(
        single["predicted"].X[order],
        var=single["predicted"].var[[]],
        obsm={"spatial": open_table(single).sections[0].centers[order]},
    )
    stp.io.read_predictions(single, table)
    np.testing.assert_allclose(single["external"].X, single["predicted"].X, atol=1e-6)


class TestUnits:
    def test_unknown_units_leave_out_the_scores_that_depend_on_them(self, sdata):
        frame = sdata["predicted"].to_df() * 37 - 5
        stp.io.read_predictions(sdata, frame, training_sections=[])
        scores = stp.tl.evaluate(sdata, ["predicted", "external"])
        own = stp.tl.evaluate(sdata)
        other = stp.tl.evaluate(sdata, "external")
        pd.testing.assert_series_equal(tidy(other), tidy(own, FREE), atol=1e-5)
        assert np.isnan(scores.summary().loc["external", "rmse"])
        assert "'external' is in unknown units" in str(scores.protocol)
        assert scores.values()["training_mean"].notna().all()  # of the table that reports it

    def test_which_metrics_need_units_is_their_definition(self, sdata):
        sdata["predicted"].X = sdata["predicted"].X * np.arange(2, 8) - 5
        own = stp.tl.evaluate(copy_of(sdata))
        sdata["predicted"].X = (sdata["predicted"].X + 5) / np.arange(2, 8)
        changed = tidy(own) - tidy(stp.tl.evaluate(sdata))
        differs = changed.abs().groupby("metric").max() > 1e-4
        needs = pd.Series({name: metrics.METRICS[name].needs_units for name in differs.index})
        assert differs.tolist() == needs.tolist()

    def test_units_are_fitted_on_other_sections_only(self, sdata):
        predicted, layer = sdata["predicted"].to_df(), sdata["table"].to_df("log1p")
        frame = predicted * np.linspace(1, 50, 6) - 3
        first = (sdata["table"].obs["region"] == "S1").to_numpy()
        stp.io.read_predictions(sdata, frame, fit_sections=["S1"], training_sections=[])
        table = sdata["external"]
        assert table.obs_names.tolist() == predicted.index[~first].tolist()
        for gene in predicted:
            slope, intercept = np.polyfit(frame.loc[first, gene], layer.loc[first, gene], 1)
            expected = intercept + slope * frame.loc[~first, gene]
            np.testing.assert_allclose(table.to_df()[gene], expected, rtol=1e-4, atol=1e-4)
            assert table.var.loc[gene, "training_mean"] == pytest.approx(
                layer.loc[first, gene].mean()
            )
        scores = stp.tl.evaluate(sdata, "external")
        assert not scores.leaky
        assert scores.protocol.trained_on == {"external": ("S1",)}
        assert np.isfinite(scores.summary().loc["external", "rmse"])

    def test_the_fit_never_reverses_a_gene(self, sdata):
        frame = -sdata["predicted"].to_df()
        stp.io.read_predictions(sdata, frame, fit_sections=["S1"], training_sections=[])
        stp.io.read_predictions(sdata, frame, training_sections=[], key_added="raw")
        first, second = (stp.tl.evaluate(sdata, name).values() for name in ("external", "raw"))
        raw = second["raw"].xs("S2", level="section")
        np.testing.assert_allclose(first["external"].to_numpy(), raw.to_numpy(), atol=1e-3)
        assert "genes do not increase" in recorded(sdata["external"], "predict")["notes"][1]

    def test_values_in_other_units_than_claimed_are_flagged(self, sdata):
        frame = np.expm1(sdata["predicted"].to_df()) * 100
        with pytest.warns(UserWarning, match="OTHER UNITS"):
            stp.io.read_predictions(sdata, frame, same_units=True)
        assert "OTHER UNITS" in str(stp.tl.evaluate(sdata, "external").protocol)


def test_constant_predictions_score_0_and_are_flagged(sdata):
    frame = sdata["predicted"].to_df()
    gene = frame.columns[0]
    frame[gene] = 2.5
    stp.io.read_predictions(sdata, frame)
    scores = stp.tl.evaluate(sdata, "external")
    assert scores.genes().loc[gene, "pcc"] == 0
    assert "1 genes of 'external' are CONSTANT" in str(scores.protocol)


def test_a_table_survives_zarr_and_is_drawn_and_replaced(sdata, tmp_path):
    import spatialdata as sd

    frame = sdata["predicted"].to_df()
    stp.io.read_predictions(sdata, frame.iloc[:30])
    stp.io.read_predictions(sdata, frame, training_sections=["elsewhere"])
    expected = tidy(stp.tl.evaluate(sdata, "external"))
    stp.pl.prediction(sdata, frame.columns[0], key="external")
    sdata.write(tmp_path / "sections.zarr")
    stored = sd.read_zarr(tmp_path / "sections.zarr")
    pd.testing.assert_series_equal(tidy(stp.tl.evaluate(stored, "external")), expected)


def same(frame):
    return frame


BAD = {
    "no gene": (
        lambda frame: frame.add_prefix("other_"),
        {},
        r"share no gene: other_morphology_001",
    ),
    "no spot": (
        lambda frame: frame.add_prefix("other_", axis=0),
        {},
        r"no name of a spot \(other_.*Give x= and y=",
    ),
    "a spot twice": (
        lambda frame: pd.concat([frame, frame.iloc[:1]]),
        {},
        r"spots of the predictions are not unique",
    ),
    "a gene twice": (
        lambda frame: pd.concat([frame, frame.iloc[:, :1]], axis=1),
        {},
        r"genes of the predictions are not unique, repeated: morphology_001",
    ),
    "NaN": (
        lambda frame: frame.mask(frame == frame.iloc[0, 0]),
        {},
        r"the table of predictions has 1 values that are NaN",
    ),
    "contradictory units": (
        same,
        {"same_units": True, "fit_sections": ["S1"]},
        r"omit fit_sections=",
    ),
    "units fitted on everything": (same, {"fit_sections": ["S1", "S2"]}, r"other sections 0"),
    "units fitted elsewhere": (same, {"fit_sections": ["S9"]}, r"'S9' is not one of 'S1', 'S2'"),
    "x without y": (same, {"x": "x"}, r"set both x= and y="),
    "an empty dictionary": (lambda frame: {}, {}, r"empty dictionary"),
    "an unknown section": (lambda frame: {"S9": frame}, {}, r"'S9' is not one of"),
    "a key without a slide": (same, {"key": "tiles"}, r"not of DataFrame: omit it"),
    "the name of shapes": (same, {"key_added": "S1"}, r"name of another element"),
    "the measured table": (same, {"key_added": "table"}, r"exists, and holds no predictions"),
    "another ending": (lambda frame: "predictions.rds", {}, r"must end in \.csv"),
    "no key": (lambda frame: stp.datasets.phantom(), {}, r"give key=, the name of its table"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_predictions_are_refused_and_nothing_changes(sdata, case):
    change, options, message = BAD[case]
    before = repr(sdata), sdata["predicted"].X.copy()
    predictions = change(sdata["predicted"].to_df())
    with pytest.raises(ValueError, match=message):
        stp.io.read_predictions(sdata, predictions, **options)
    assert repr(sdata) == before[0]
    np.testing.assert_array_equal(sdata["predicted"].X, before[1])


@pytest.mark.parametrize(
    ("positions", "options", "message"),
    [
        (grid(50) + 5000, {"mpp": 1.0}, r"no spot of section 'S1' lies within .*spots: x from"),
        (np.repeat(grid(50), 2, axis=0), {"mpp": 1.0}, r"256 rows .* position of another row"),
        (np.full((5, 2), np.nan), {}, r"the array of positions has 10 values that are NaN"),
    ],
)
def test_bad_positions_are_refused(single, positions, options, message):
    with pytest.raises(ValueError, match=message):
        stp.io.read_predictions(single, tiles(positions), x="x", y="y", **options)
    assert "external" not in single.tables


def test_positions_of_several_sections_need_their_names(sdata):
    with pytest.raises(ValueError, match=r"a dictionary \{section: predictions\}"):
        stp.io.read_predictions(sdata, tiles(grid(50)), x="x", y="y")


def test_few_spots_cause_a_warning(single):
    with pytest.warns(UserWarning, match=r"fewer than half .* S1 \("):
        stp.io.read_predictions(single, tiles(grid(50, start_um=500)), x="x", y="y", mpp=1.0)


def test_missing_files_columns_and_words_are_refused(sdata, tmp_path):
    frame = sdata["predicted"].to_df()
    with pytest.raises(FileNotFoundError, match="no such file"):
        stp.io.read_predictions(sdata, tmp_path / "absent.csv")
    with pytest.raises(ValueError, match="has no x"):
        stp.io.read_predictions(sdata, frame, x="x", y="y")
    with pytest.raises(TypeError, match="must have numbers"):
        stp.io.read_predictions(sdata, frame.astype(str) + " counts")
    with pytest.raises(TypeError, match="a DataFrame or an AnnData"):
        stp.io.read_predictions(sdata, 3)
    with pytest.raises(KeyError, match="no 'scran'"):
        stp.io.read_predictions(sdata, frame, layer="scran")
    assert "external" not in sdata.tables
