"""Super-resolution: fine positions predicted like spots, consistent with the spots' values."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import scipy.sparse as sp
import spatialdata as sd
from scipy.interpolate import griddata
from spatialdata.transformations import get_transformation

import stpredict as stp
from helpers import colour
from stpredict._sdata._spacing import Spacing
from stpredict._sdata._spot_table import copy_of, open_table
from stpredict.datasets._phantom_parts._truth import planted_at
from stpredict.encoders import load
from stpredict.encoders._embed import embed_section
from stpredict.tl._superresolution._match import match_spots
from stpredict.tl._superresolution._positions import fine_positions

SMALL = {"mpp": 0.5, "pitch_um": 40.0, "n_morphology": 3, "n_neighborhood": 3, "n_null": 2}
EMBED = {"key_added": "X_colour", "tile_um": 40, "n_subtiles": 1}


def prepared(spots="square", n_sections=1, seed=0):
    sdata = stp.datasets.phantom(n_sections, size_px=600, spots=spots, seed=seed, **SMALL)
    stp.pp.normalize(sdata)
    stp.pp.select_genes(sdata, n_top_genes=4)
    stp.pp.embed(sdata, colour, **EMBED)
    stp.pp.neighbors(sdata)
    return sdata


@pytest.fixture(scope="module")
def trained():
    sdata = prepared(n_sections=2)
    model = stp.tl.fit_ridge(sdata, embedding="X_colour", context="spot_neighbors", alpha=1.0)
    stp.tl.predict(sdata, model)
    return sdata, model


@pytest.fixture
def model(trained):
    return trained[1]


@pytest.fixture
def sdata(trained):
    return copy_of(trained[0])


def superresolve(sdata, model, *, resolution_um=10, **options):
    options = {"encoder": colour, **options}
    return stp.tl.superresolve(sdata, model, resolution_um=resolution_um, **options)


def layer(table, genes):
    values = table[:, list(genes)].layers["log1p"]
    return np.asarray(values.toarray() if sp.issparse(values) else values)


def mean_within(sdata, spot_section, row, values):
    """Mean over the positions within a spot's radius, by looking at every position."""
    fine = open_table(sdata, "superresolved").section(f"{spot_section.name}_superresolved")
    distance = np.linalg.norm(fine.centers_um - spot_section.centers_um[row], axis=1)
    return values[fine.rows[distance <= spot_section.radius_um[row]]].mean(axis=0)


@pytest.mark.parametrize("match", ["predicted", "table"])
def test_the_mean_over_every_spot_is_its_value(sdata, model, match):
    superresolve(sdata, model, match=match)
    table, fine = sdata["table"], sdata["superresolved"]
    expected = sdata["predicted"].X if match == "predicted" else layer(table, model.genes)
    assert fine.X.dtype == np.float32
    assert fine.X.min() >= 0
    for section in open_table(sdata).sections:
        for row in range(len(section.rows)):
            mean = mean_within(sdata, section, row, fine.X)
            np.testing.assert_allclose(mean, expected[section.rows[row]], atol=1e-4)


def test_spots_that_the_matched_table_lacks_are_not_matched(sdata, model):
    superresolve(sdata, model, match=None, key_added="unmatched")
    some = sdata["predicted"][:10].copy()
    some.X = some.X + 1
    del sdata.tables["predicted"]
    sdata["predicted"] = sd.models.TableModel.parse(
        some[some.obs["region"] == "S1"].copy(),
        "S1",
        "region",
        "instance_id",
        overwrite_metadata=True,
    )
    superresolve(sdata, model)
    fine, unmatched = sdata["superresolved"], sdata["unmatched"]
    matched = fine.obs["spot"].isin(some.obs_names).to_numpy()
    np.testing.assert_array_equal(fine.X[~matched], unmatched.X[~matched])
    assert (fine.X[matched] - unmatched.X[matched]).max() > 0.5


def test_every_position_has_the_tile_and_the_neighbours_of_training(sdata, model):
    superresolve(sdata, model, match=None)
    fine = open_table(sdata, "superresolved").section("S1_superresolved")
    steps = np.array([(x, y) for x in (-40, 0, 40) for y in (-40, 0, 40) if (x, y) != (0, 0)])
    middle = fine.centers_um.mean(axis=0)
    position = np.linalg.norm(fine.centers_um - middle, axis=1).argmin()
    places_um = fine.centers_um[position] + np.vstack([[0, 0], steps])
    encoder = load(colour, name="colour")
    tiles, _ = embed_section(
        fine.levels, places_um / fine.mpp, encoder, mpp=fine.mpp, fields_um=[40], n_subtiles=1,
        batch_size=9, description="",
    )  # fmt: skip
    alone = model.predict_array(tiles[:1], neighbors=tiles[None, 1:])
    predicted = sdata["superresolved"].X[fine.rows[position]]
    np.testing.assert_allclose(predicted, alone[0], atol=1e-4)


def test_positions_cover_the_area_of_the_spots_on_one_lattice(sdata, model):
    superresolve(sdata, model, match=None)
    for section in open_table(sdata).sections:
        fine = open_table(sdata, "superresolved").section(f"{section.name}_superresolved")
        steps = fine.centers_um / 10 - 0.5
        np.testing.assert_allclose(steps, np.rint(steps), atol=1e-6)
        distance = np.linalg.norm(fine.centers_um[:, None] - section.centers_um, axis=2)
        assert distance.min(axis=1).max() < 1.1 * 40 / np.sqrt(2)
        # a square of 40 µm has 16 positions 10 µm apart; spots at the edge cover a little more
        assert np.bincount(distance.argmin(axis=1)).min() == 16


def mean_pcc(truth, values):
    return stp.metrics.pcc(truth, values).mean()


@pytest.mark.parametrize("match", [None, "predicted", "table"])
def test_fine_predictions_recover_planted_expression_better_than_interpolation(match):
    design = {"size_px": 800, "spots": "square", "tile_um": 20, "counts_per_spot": 1e5}
    sdata = stp.datasets.phantom(4, **{**SMALL, "n_morphology": 10}, **design)
    genes = [name for name in sdata["table"].var_names if name.startswith("morphology")]
    stp.pp.normalize(sdata)
    sections = [sdata.subset([name, f"{name}_image"]) for name in sdata.shapes]
    training, new = stp.io.concat(sections[:3]), sections[3]
    stp.pp.embed(training, colour, key_added="X_colour", tile_um=20)
    model = stp.tl.fit_ridge(training, genes=genes, embedding="X_colour", context="spot")
    stp.pp.prepare(new, model, encoder=colour)
    stp.tl.predict(new, model)
    section = open_table(new).sections[0]
    at_spots = planted_at(sdata["table"], 3, section.centers)
    np.testing.assert_allclose(at_spots, new["table"][:, genes].layers["expected"], atol=1e-4)
    superresolve(new, model, match=match)
    fine = open_table(new, "superresolved").sections[0]
    truth = planted_at(sdata["table"], 3, fine.centers)
    spot_values = layer(new["table"], genes) if match == "table" else new["predicted"].X
    for method in ("nearest", "linear", "cubic"):
        interpolated = griddata(section.centers, spot_values, fine.centers, method=method)
        inside = np.isfinite(interpolated).all(axis=1)
        score = mean_pcc(truth[inside], new["superresolved"].X[inside])
        assert score > mean_pcc(truth[inside], interpolated[inside]) + 0.05


def one_spot_at_a_time(values, spot_values, positions, radius_um, pitch_um, nonnegative):
    """Matching by bisection, spot by spot and gene by gene."""
    matched = values.astype(float)
    for spot, targets in enumerate(spot_values):
        own = positions.spot == spot
        distance = positions.distance_um[own]
        edge = max(radius_um[spot], distance.min() + 1e-6)
        edge = edge if edge < pitch_um / 2 else np.inf
        within = distance <= edge
        taper = np.where(
            within, 1, np.clip((pitch_um / 2 - distance) / (pitch_um / 2 - edge), 0, 1)
        )
        for gene, target in enumerate(targets):
            low, high = -1e3, 1e3
            for _ in range(100):
                shift = (low + high) / 2
                moved = values[own, gene] + taper * shift
                moved = np.maximum(moved, 0) if nonnegative else moved
                low, high = (shift, high) if moved[within].mean() <= target else (low, shift)
            matched[own, gene] = moved
    return matched


@pytest.mark.parametrize("nonnegative", [True, False])
@pytest.mark.parametrize("radius", [2.0, 27.0, 60.0])  # below the resolution, Visium, touching
def test_matching_agrees_with_bisection(radius, nonnegative):
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:4, :5].reshape(2, -1)
    centers = np.column_stack([columns + 0.5 * (rows % 2), rows * np.sqrt(3) / 2]) * 100 + 217.3
    spacing = Spacing("hexagonal", 100.0)
    positions = fine_positions(centers, spacing, 20.0, size_um=np.array([900, 900]))
    values = rng.normal(0.5, 1, (len(positions.spot), 3)).astype(np.float32)
    values = np.maximum(values, 0) if nonnegative else values
    spot_values = rng.exponential(0.3, (len(centers), 3)) * rng.integers(0, 2, (len(centers), 3))
    radii = np.full(len(centers), radius)
    options = {"radius_um": radii, "pitch_um": 100.0, "nonnegative": nonnegative}
    matched = match_spots(values, spot_values, positions, **options)
    expected = one_spot_at_a_time(values, spot_values, positions, radii, 100.0, nonnegative)
    np.testing.assert_allclose(matched, expected, atol=1e-5)
    if nonnegative:
        assert matched.min() == 0


@pytest.mark.parametrize("resolution", [25.0, 30.0])
@pytest.mark.parametrize("layout", ["square", "hexagonal"])
def test_blocks_with_the_spots_around_them_give_the_values_of_the_whole(layout, resolution):
    rng = np.random.default_rng(1)
    rows, columns = np.mgrid[:9, :9].reshape(2, -1)
    shift, height = (0.5, np.sqrt(3) / 2) if layout == "hexagonal" else (0, 1)
    centers = np.column_stack([columns + shift * (rows % 2), rows * height]) * 100.0 + 100
    spacing, size = Spacing(layout, 100.0), np.array([1100, 1000])
    whole = fine_positions(centers, spacing, resolution, size_um=size)
    values = rng.random((len(whole.spot), 2), dtype=np.float32)
    by_index = {tuple(index): row for row, index in enumerate(whole.index)}
    spot_values, radius = rng.random((81, 2)), np.full(81, 50.0)  # touching
    options = {"pitch_um": 100.0, "nonnegative": True}
    expected = match_spots(values, spot_values, whole, radius_um=radius, **options)
    for block in np.array_split(np.arange(81), 5):
        distance = np.linalg.norm(centers[:, None] - centers[block], axis=2).min(axis=1)
        with_halo = np.flatnonzero(distance <= 200)
        part = fine_positions(centers[with_halo], spacing, resolution, size_um=size)
        own = np.isin(with_halo[part.spot], block)
        rows_of_whole = np.array([by_index[tuple(index)] for index in part.index])
        np.testing.assert_array_equal(
            np.sort(rows_of_whole[own]), np.flatnonzero(np.isin(whole.spot, block))
        )
        matched = match_spots(
            values[rows_of_whole], spot_values[with_halo], part,
            radius_um=radius[with_halo], **options,
        )  # fmt: skip
        np.testing.assert_array_equal(matched[own], expected[rows_of_whole[own]])


def test_a_written_object_can_be_drawn_and_exported(sdata, model, tmp_path):
    superresolve(sdata, model, match="table")
    sdata.write(tmp_path / "sdata.zarr")
    back = sd.read_zarr(tmp_path / "sdata.zarr")
    np.testing.assert_array_equal(back["superresolved"].X, sdata["superresolved"].X)
    axes = stp.pl.prediction(back, model.genes[0], key="superresolved")
    assert axes.shape == (2, 2)  # H&E and prediction of two sections
    adata = stp.io.to_anndata(back, table_name="superresolved")
    assert set(adata.uns["spatial"]) == {"S1_superresolved", "S2_superresolved"}
    superresolve(back, model, resolution_um=20)
    assert back["superresolved"].n_obs < sdata["superresolved"].n_obs / 2


def test_a_second_call_replaces_the_first(sdata, model):
    superresolve(sdata, model)
    superresolve(sdata, model, resolution_um=20)
    once = copy_of(sdata)
    superresolve(sdata, model, resolution_um=20)
    np.testing.assert_array_equal(sdata["superresolved"].X, once["superresolved"].X)
    assert (
        len(sdata["S1_superresolved"])
        == sdata["superresolved"].obs["region"].eq("S1_superresolved").sum()
    )


def test_positions_lie_on_the_image_of_their_section(sdata, model):
    superresolve(sdata, model)
    assert list(get_transformation(sdata["S2_superresolved"], get_all=True)) == ["S2_um"]
    assert list(get_transformation(sdata["S2_image"], get_all=True)) == ["S2_um"]
    for section in open_table(sdata, "superresolved").sections:
        assert section.image == section.name.replace("superresolved", "image")
        np.testing.assert_allclose(
            section.centers, sdata["superresolved"].obsm["spatial"][section.rows]
        )


def test_the_stain_of_training_is_used_and_no_image_is_added():
    training, new = prepared(), prepared(seed=1)
    stp.pp.normalize_stain(training)
    stp.pp.embed(training, colour, **EMBED)
    model = stp.tl.fit_ridge(training, embedding="X_colour", context="spot", alpha=1.0)
    superresolve(new, model, match=None)
    assert list(new.images) == ["S1_image"]
    stp.pp.prepare(new, model, encoder=colour)  # normalises the images
    raw = new["superresolved"].X
    superresolve(new, model, match=None)
    np.testing.assert_allclose(new["superresolved"].X, raw, atol=1e-5)


def test_calibrated_models_report_familiarity_and_no_intervals():
    sdata = prepared(n_sections=3)
    fit = functools.partial(
        stp.tl.fit_ridge, embedding="X_colour", context="spot_neighbors", alpha=1.0
    )
    stp.tl.cross_validate(sdata, {"ridge": fit})
    model = stp.tl.calibrate(sdata, fit(sdata), level=0.5)
    superresolve(sdata, model, match=None)
    fine = sdata["superresolved"]
    assert fine.obs["familiarity"].between(0, 1).all()
    assert not {"lower", "upper"} & set(fine.layers)
    assert "reliable" not in fine.var


def registered(sdata):
    stp.pp.register_embedding(sdata, "X_own", encoder="mine", tile_um=40.0)
    return stp.tl.fit_ridge(sdata, embedding="X_own", context="spot", alpha=1.0)


def by_number(sdata):
    stp.pp.neighbors(sdata, n_neighbors=4)
    return stp.tl.fit_ridge(sdata, embedding="X_colour", context="spot_neighbors", alpha=1.0)


@pytest.mark.parametrize(
    ("fit", "message"),
    [(registered, "were computed by another tool"), (by_number, "defined by {'n_neighbors': 4}")],
)
def test_models_that_cannot_be_run_at_new_positions_are_refused(fit, message):
    sdata = prepared()
    sdata["table"].obsm["X_own"] = sdata["table"].obsm["X_colour"].copy()
    model = fit(sdata)
    elements = [name for _, name, _ in sdata.gen_elements()]
    with pytest.raises(ValueError, match=message):
        superresolve(sdata, model, match=None)
    assert [name for _, name, _ in sdata.gen_elements()] == elements


def without_gene(sdata, model):
    table = sdata["predicted"][:, 1:].copy()
    del sdata.tables["predicted"]
    sdata["predicted"] = table


def in_other_units(sdata, model):
    sdata["predicted"].uns["stpredict"]["predict"]["units"] = "rank"


def other_spots(sdata, model):
    sdata["predicted"].obs["instance_id"] = "x" + sdata["predicted"].obs["instance_id"].astype(str)


def without_layer(sdata, model):
    del sdata["table"].layers["log1p"]


def without_predictions(sdata, model):
    del sdata.tables["predicted"]


def without_image(sdata, model):
    del sdata.images["S1_image"]


def two_spots_at_one_place(sdata, model):
    geometry = sdata["S1"].geometry.to_numpy()
    geometry[1] = geometry[0]
    sdata["S1"].geometry = geometry


def own_shapes(sdata, model):
    sdata["S1_superresolved"] = sdata["S1"].copy()


BAD_OBJECTS = [
    (without_gene, {}, KeyError, "1 of 4 genes are not in the table"),
    (in_other_units, {}, ValueError, "holds rank, but the model predicts"),
    (other_spots, {}, ValueError, "has none of the spots"),
    (without_layer, {"match": "table"}, KeyError, "run stp.pp.normalize first"),
    (without_predictions, {}, KeyError, "run stp.tl.predict first"),
    (without_image, {}, ValueError, "no coordinate system"),
    (two_spots_at_one_place, {}, ValueError, "have no position that is nearer to them"),
    (own_shapes, {}, ValueError, "already: give another key_added="),
]
BAD_OPTIONS = [
    ({"resolution_um": 40}, "too coarse for section 'S1', whose spots are 40 µm apart"),
    ({"resolution_um": 25}, "too coarse for the model's neighbours, 40 µm apart: use at most 22"),
    ({"resolution_um": 0.1}, "the maximum is 5,000,000"),
    ({"resolution_um": 0}, "must be a number above 0"),
    ({"key_added": "predicted"}, "holds predictions of spots"),
    ({"key_added": "table"}, "holds no predictions of stpredict"),
]


@pytest.mark.parametrize(
    ("change", "options", "error", "message"),
    [
        *BAD_OBJECTS,
        *((lambda sdata, model: None, *case[:1], ValueError, case[1]) for case in BAD_OPTIONS),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(
    sdata, model, change, options, error, message
):
    change(sdata, model)
    elements = {name: element for _, name, element in sdata.gen_elements()}
    with pytest.raises(error, match=message):
        superresolve(sdata, model, **options)
    after = {name: element for _, name, element in sdata.gen_elements()}
    assert elements.keys() == after.keys()
    assert all(after[name] is element for name, element in elements.items())
