"""Planted misalignments are estimated, undone, logged, and never applied twice."""

from __future__ import annotations

import numpy as np
import pytest
import spatialdata as sd
from spatialdata.transformations import Scale, get_transformation, set_transformation

import stpredict as stp
from stpredict._sdata import _provenance
from stpredict._sdata._spot_table import copy_of, open_table
from stpredict.alignment import pitch_of

SHIFT = (80.0, -60.0)
FINE = {
    "size_px": 900,
    "mpp": 0.5,
    "pitch_um": 40.0,
    "n_morphology": 6,
    "n_neighborhood": 2,
    "n_null": 2,
    "seed": 3,
}


@pytest.fixture(scope="module")
def displaced():
    """Two sections whose spots are displaced by 100 µm, one pitch."""
    return stp.datasets.phantom(
        2, size_px=1600, n_morphology=8, n_neighborhood=2, n_null=4, misalignment_um=SHIFT, seed=2
    )


@pytest.fixture
def shifted(displaced):
    return copy_of(displaced)


@pytest.fixture(scope="module")
def section():
    return stp.datasets.phantom(**FINE)


@pytest.fixture
def small(section):
    return copy_of(section)


def centers(sdata):
    return {section.name: section.centers_um for section in open_table(sdata).sections}


def off(sdata):
    """Distance of each spot from its true place, in pitches."""
    pitch = pitch_of(open_table(sdata).sections[0].centers_um)
    truth = sdata.tables["table"].obsm["spatial_true"]
    distances = np.concatenate(
        [
            np.linalg.norm(section.centers - truth[section.rows], axis=1) * section.mpp
            for section in open_table(sdata).sections
        ]
    )
    return distances / pitch


def recorded(sdata):
    return _provenance.recorded(sdata.tables["table"], "realign")


def test_a_planted_shift_is_found(shifted):
    assert np.median(off(shifted)) > 0.7
    stp.pp.realign(shifted)
    assert np.median(off(shifted)) < 0.1
    assert np.quantile(off(shifted), 0.9) < 0.2


def test_coordinates_are_not_overwritten(shifted):
    shapes = {name: circles.geometry.copy() for name, circles in shifted.shapes.items()}
    spatial = shifted.tables["table"].obsm["spatial"].copy()
    stp.pp.realign(shifted)
    for name, geometry in shapes.items():
        assert (shifted.shapes[name].geometry == geometry).all()
    np.testing.assert_array_equal(shifted.tables["table"].obsm["spatial"], spatial)


def test_a_planted_rotation_is_found_by_a_rigid_motion():
    sdata = stp.datasets.phantom(size_px=2000, misalignment_um=(40, 30), misalignment_deg=3, seed=2)
    stp.pp.realign(sdata, motion="rigid")
    assert np.median(off(sdata)) < 0.1
    record = recorded(sdata)["S1"]
    assert np.rad2deg(np.arctan2(record["matrix"][1][0], record["matrix"][0][0])) == pytest.approx(
        -3, abs=0.5
    )


def test_an_aligned_section_is_left_alone(small):
    before = centers(small)
    stp.pp.realign(small)
    np.testing.assert_array_equal(centers(small)["S1"], before["S1"])
    record = recorded(small)["S1"]
    assert not record["moved"]
    assert record["gain"] <= record["required"]
    np.testing.assert_array_equal(record["matrix"], np.eye(3))
    # and may be asked about again
    stp.pp.realign(small)


def test_uninformative_counts_do_not_affect_the_outline(shifted):
    table = shifted.tables["table"]
    rng = np.random.default_rng(0)
    table.X = type(table.X)(rng.poisson(5, table.shape).astype(np.float32))
    stp.pp.realign(shifted)
    assert np.median(off(shifted)) < 0.25


def test_undo_is_exact(shifted):
    before = centers(shifted)
    stp.pp.realign(shifted, motion="rigid")
    stp.pp.realign(shifted, undo=True)
    for name, places in centers(shifted).items():
        np.testing.assert_allclose(places, before[name], atol=1e-6)
    assert recorded(shifted) == {}


def test_one_section_is_undone_alone(shifted):
    before = centers(shifted)
    stp.pp.realign(shifted, shift_um=(10, 0))
    stp.pp.realign(shifted, sections=["S1"], undo=True)
    np.testing.assert_allclose(centers(shifted)["S1"], before["S1"], atol=1e-9)
    np.testing.assert_allclose(centers(shifted)["S2"], before["S2"] + (10, 0))
    assert "S1" not in recorded(shifted)


def test_it_is_never_applied_twice(shifted):
    stp.pp.realign(shifted, shift_um=SHIFT)
    before = centers(shifted)
    with pytest.raises(ValueError, match=r"'S1' is realigned already: .*undo=True"):
        stp.pp.realign(shifted)
    for name, places in centers(shifted).items():
        np.testing.assert_array_equal(places, before[name])


@pytest.mark.parametrize("as_mapping", [True, False])
def test_a_given_shift_is_in_um(small, as_mapping):
    before = centers(small)["S1"]
    stp.pp.realign(small, shift_um={"S1": (12, -7)} if as_mapping else (12, -7))
    np.testing.assert_allclose(centers(small)["S1"], before + np.array([12, -7]))
    assert recorded(small)["S1"]["moved"]


def test_a_given_matrix_is_from_um_to_um(small):
    before = centers(small)["S1"]
    matrix = np.array([[0.0, -1.0, 450.0], [1.0, 0.0, 0.0], [0, 0, 1]])
    stp.pp.realign(small, transform=matrix)
    np.testing.assert_allclose(
        centers(small)["S1"], np.column_stack([450 - before[:, 1], before[:, 0]])
    )


def test_a_mapping_moves_the_sections_it_names(shifted):
    before = centers(shifted)
    stp.pp.realign(shifted, shift_um={"S2": (5, 5)})
    np.testing.assert_array_equal(centers(shifted)["S1"], before["S1"])
    np.testing.assert_allclose(centers(shifted)["S2"], before["S2"] + 5)


def test_every_coordinate_system_shared_with_the_image_moves_alike():
    small = stp.datasets.phantom(**FINE)  # images of a copy would be those of the original
    set_transformation(small.images["S1_image"], Scale([2, 2], ("x", "y")), "double")
    set_transformation(small.shapes["S1"], Scale([2, 2], ("x", "y")), "double")
    set_transformation(small.shapes["S1"], Scale([3, 3], ("x", "y")), "elsewhere")
    stp.pp.realign(small, shift_um=(10, 0))  # 20 px, 40 in the doubled system

    def origin(system):
        to = get_transformation(small.shapes["S1"], to_coordinate_system=system)
        return to.to_affine_matrix(("x", "y"), ("x", "y"))[:2, 2]

    np.testing.assert_allclose(origin("S1_um"), (10, 0), atol=1e-9)
    np.testing.assert_allclose(origin("double"), (40, 0), atol=1e-9)
    np.testing.assert_allclose(origin("elsewhere"), (0, 0), atol=1e-9)


def test_what_was_computed_at_the_old_positions_is_dropped(small):
    def brightness(tiles):
        return tiles.mean((-2, -1))

    stp.pp.filter_spots(small)
    stp.pp.embed(small, brightness, key_added="X_brightness", tile_um=40)
    table = small.tables["table"]
    stp.pp.realign(small, shift_um=(1, 1))
    assert "tissue_fraction" not in table.obs
    assert not [key for key in table.obsm if key.startswith("X_")]
    assert _provenance.recorded(table, "embed") == {}


def test_it_survives_zarr(shifted, tmp_path):
    before = centers(shifted)
    stp.pp.realign(shifted)
    after = centers(shifted)
    shifted.write(tmp_path / "realigned.zarr")
    back = sd.read_zarr(tmp_path / "realigned.zarr")
    for name, places in centers(back).items():
        np.testing.assert_allclose(places, after[name])
    with pytest.raises(ValueError, match="realigned already"):
        stp.pp.realign(back)
    stp.pp.realign(back, undo=True)
    for name, places in centers(back).items():
        np.testing.assert_allclose(places, before[name], atol=1e-6)


def test_combined_sections_keep_the_record(small):
    other = stp.datasets.phantom(2, **FINE).subset(["S2", "S2_image"], filter_tables=True)
    stp.pp.realign(small, shift_um=(3, 3))
    together = stp.io.concat([small, other])
    assert recorded(together)["S1"]["moved"]
    with pytest.raises(ValueError, match="'S1' is realigned already"):
        stp.pp.realign(together)


def test_a_copy_leaves_the_original(shifted):
    before = centers(shifted)
    moved = stp.pp.realign(shifted, shift_um=(9, 9), copy=True)
    for name in before:
        np.testing.assert_array_equal(centers(shifted)[name], before[name])
        np.testing.assert_allclose(centers(moved)[name], before[name] + 9)
    assert recorded(shifted) == {}


def test_distance_and_reason_are_logged(shifted, capsys, monkeypatch):
    monkeypatch.setattr(stp.settings, "verbosity", 1)
    stp.pp.realign(shifted)
    output = capsys.readouterr().out
    assert "realign S1: moved by (-" in output
    record = recorded(shifted)["S1"]
    assert record["required"] == max(record["noise"], 0.03)
    assert (
        f"(score +{record['gain']:.3f}, required: {record['required']:.3f}; by chance up to "
        f"{record['noise']:.3f})"
    ) in output


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        ({"motion": "affine"}, ValueError, "motion='affine' is not one of"),
        ({"sections": ["S9"]}, KeyError, "shift_um= or transform= names 'S9'"),
        ({"shift_um": {"S9": (1, 1)}}, KeyError, "shift_um= or transform= names 'S9'"),
        (
            {"shift_um": {"S1": (1, 1)}, "sections": ["S2"]},
            KeyError,
            "the mapping from sections to motions has no 'S2'",
        ),
        ({"shift_um": (1, 1), "undo": True}, ValueError, "one of shift_um="),
        ({"shift_um": (1, np.nan)}, ValueError, "two numbers"),
        ({"shift_um": (1, 2, 3)}, ValueError, "two numbers"),
        ({"transform": np.diag([1, 0, 1])}, ValueError, "cannot be inverted"),
        ({"transform": np.full((3, 3), np.nan)}, ValueError, "last row 0 0 1"),
        ({"transform": np.eye(2)}, ValueError, "affine matrix"),
        ({"shift_um": "far"}, ValueError, "shift_um must be numbers"),
        ({"shift_um": (1e6, 0)}, ValueError, "shift_um moves all spots of section 'S1' out of"),
        (
            {"transform": "far"},
            TypeError,
            "transform must be an array of numbers or a mapping",
        ),
        ({"max_shift_um": 0}, ValueError, "max_shift_um must be"),
        ({"max_shift_um": True}, ValueError, "max_shift_um must be"),
        ({"max_shift_um": 1e9}, ValueError, "shorter side of the image .* at most 800 µm"),
        ({"sections": []}, ValueError, "sections= is empty"),
        ({"shift_um": {}}, ValueError, "shift_um or transform= is empty"),
        ({"undo": True}, ValueError, "'S1' was not realigned"),
    ],
)
def test_bad_input_changes_nothing(shifted, call, error, message):
    before = centers(shifted)
    with pytest.raises(error, match=message):
        stp.pp.realign(shifted, **call)
    for name, places in centers(shifted).items():
        np.testing.assert_array_equal(places, before[name])
    assert recorded(shifted) == {}


def test_too_few_spots_are_refused(small):
    table = small.tables["table"]
    small.tables["table"] = table[:12].copy()
    with pytest.raises(ValueError, match=r"12 spots; at least 20 .* shift_um="):
        stp.pp.realign(small)
