"""Spots of other sections lie as far apart as in training, or their neighbours do, or an error."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import stpredict as stp
from stpredict._sdata import _provenance
from stpredict.io._shared._assemble import assemble_section

HEXAGONAL, SQUARE = ("hexagonal", 100), ("square", 200)


def lattice(layout, pitch, n=10):
    row, column = (axis.ravel().astype(float) for axis in np.mgrid[:n, :n])
    if layout == "hexagonal":
        return pitch * np.column_stack([column + (row % 2) / 2, row * np.sqrt(3) / 2])
    return pitch * np.column_stack([column, row])


def sections_at(points, *, name="S1"):
    """A section with spots at positions in µm, and features that were computed elsewhere."""
    points = np.asarray(points) - np.min(points, axis=0) + 10
    width, height = (np.ceil(points.max(axis=0) / 4) + 5).astype(int)
    random = np.random.default_rng(0)
    sdata = assemble_section(
        name,
        image=np.full((height, width, 3), 200, dtype=np.uint8),
        counts=random.poisson(3, (len(points), 2)).astype(np.float32),
        obs_names=[f"s{i}" for i in range(len(points))],
        var_names=["A", "B"],
        positions=points / 4,
        mpp=4.0,
        diameter_um=4,
    )
    table = sdata.tables["table"]
    table.obsm["X_mine"] = random.normal(size=(table.n_obs, 3)).astype(np.float32)
    stp.pp.register_embedding(sdata, "X_mine", encoder="mine", tile_um=20)
    return sdata


def fit(points, **rule):
    sdata = sections_at(points)
    stp.pp.neighbors(sdata, **rule)
    return stp.tl.fit_ridge(sdata, embedding="X_mine", genes=["A"], layer=None, alpha=1.0)


def prepared(points, model):
    sdata = sections_at(points)
    stp.pp.prepare(sdata, model)
    stp.tl.predict(sdata, model)
    assert np.isfinite(sdata.tables["predicted"].X).all()
    return sdata.tables["table"]


def cells(distance, n=400):
    """Random positions with about a distance between neighbours."""
    return np.random.default_rng(0).uniform(0, distance * 2 * np.sqrt(n), (n, 2))


@pytest.mark.parametrize(
    ("grid", "points"),
    [
        (HEXAGONAL, lattice("hexagonal", 50, 16)),
        (HEXAGONAL, lattice("square", 20, 40)),
        (HEXAGONAL, cells(8, 2000)),
        (SQUARE, lattice("hexagonal", 100, 16)),
        (SQUARE, lattice("square", 50, 24)),
    ],
)
@pytest.mark.parametrize("n_rings", [1, 2])
def test_neighbours_on_finer_spots_lie_at_the_distance_of_training(grid, points, n_rings):
    layout, pitch = grid
    table = prepared(points, fit(lattice(layout, pitch), n_rings=n_rings))
    distances = table.obsp["spatial_distances"]
    per_spot = np.diff(table.obsp["spatial_connectivities"].indptr)
    in_rings = {"hexagonal": (6, 18), "square": (8, 24)}[layout][n_rings - 1]
    assert per_spot.max() == in_rings
    assert np.median(distances.data) == pytest.approx(pitch * (1 + 0.9 * (n_rings - 1)), rel=0.15)
    assert distances.data.min() >= 0.7 * pitch
    record = _provenance.recorded(table, "neighbors")
    assert (record["grid"], record["pitch_um"]) == (layout, pitch)


def test_every_other_spot_of_a_grid_of_half_the_pitch_is_a_neighbour():
    points = lattice("hexagonal", 50, 16)
    table = prepared(points, fit(lattice(*HEXAGONAL)))
    links = table.obsp["spatial_connectivities"].toarray() != 0
    between = np.linalg.norm(points[:, None] - points[None], axis=2)
    angle = np.arctan2(*(points[:, None] - points[None]).transpose(2, 1, 0))
    along_rows = np.abs(np.cos(3 * (angle + np.pi / 2))) > 0.99
    np.testing.assert_array_equal(links, np.isclose(between, 100) & along_rows)


@pytest.mark.parametrize(
    ("grid", "points", "message"),
    [
        (HEXAGONAL, lattice("square", 100), r"\(square, 100 µm apart\).*\(hexagonal, 100 µm"),
        (HEXAGONAL, lattice("hexagonal", 70), r"\(hexagonal, 70 µm apart\).*\(hexagonal, 100 µm"),
        (HEXAGONAL, lattice("square", 200), r"\(square, 200 µm apart\).*\(hexagonal, 100 µm"),
        (SQUARE, lattice("square", 300), r"\(square, 300 µm apart\).*\(square, 200 µm"),
    ],
)
def test_spots_without_neighbours_like_those_of_training_are_refused(grid, points, message):
    model = fit(lattice(*grid))
    sdata = sections_at(points)
    remedy = rf"stp\.pp\.grid\(.*pitch_um={grid[1]}, layout='{grid[0]}'\)"
    with pytest.raises(ValueError, match=f"'S1' {message} apart.*: use {remedy}"):
        stp.pp.prepare(sdata, model)
    assert not sdata.tables["table"].obsp.keys()


@pytest.mark.parametrize("points", [lattice("square", 20, 40), lattice("hexagonal", 50, 16)])
def test_neighbours_at_another_distance_are_refused(points):
    model = fit(lattice(*HEXAGONAL))
    sdata = sections_at(points)
    stp.pp.neighbors(sdata)
    with pytest.raises(
        ValueError, match=r"neighbors step was run differently.*pp\.prepare"
    ) as error:
        stp.tl.predict(sdata, model)
    assert "pitch_um is" in str(error.value)
    assert "trained with 100" in str(error.value)
    assert set(sdata.tables) == {"table"}


@pytest.mark.parametrize("rule", [{"n_neighbors": 6}, {"radius_um": 110}])
@pytest.mark.parametrize(
    ("points", "message"),
    [
        (lattice("square", 20, 40), "layout is square, the model was trained with hexagonal"),
        (lattice("hexagonal", 50, 16), "pitch_um is 50, the model was trained with 100"),
        (cells(10), "layout is irregular, the model was trained with hexagonal"),
    ],
)
def test_a_number_or_radius_needs_the_grid_of_training(rule, points, message):
    model = fit(lattice(*HEXAGONAL), **rule)
    sdata = sections_at(points)
    remedy = r"stp\.pp\.grid\(sdata, image, pitch_um=100, layout='hexagonal'\)"
    with pytest.raises(ValueError, match=f"{message}: place spots with {remedy}"):
        stp.pp.prepare(sdata, model)
    assert not sdata.tables["table"].obsp.keys()
    stp.pp.neighbors(sdata, **rule)
    with pytest.raises(ValueError, match=f"{message}: place spots with {remedy}"):
        stp.tl.predict(sdata, model)


def test_one_section_on_another_grid_is_refused():
    model = fit(lattice(*HEXAGONAL))
    parts = [sections_at(lattice(*HEXAGONAL), name=name) for name in ("S1", "S2")]
    odd = sections_at(lattice("square", 100), name="odd")
    with pytest.raises(ValueError, match=r"'odd' \(square, 100 µm apart\)"):
        stp.pp.prepare(stp.io.concat([*parts, odd]), model)


@pytest.mark.parametrize("rule", [{"n_neighbors": 6}, {"radius_um": 30}])
def test_cells_of_a_tissue_of_another_density_are_predicted(rule):
    prepared(cells(14), fit(cells(10), **rule))


def test_cells_with_much_farther_neighbours_are_refused():
    model = fit(cells(10), n_neighbors=6)
    message = r"distance_um is .*, the model was trained with .*: fit a model on such sections"
    with pytest.raises(ValueError, match=message):
        stp.pp.prepare(sections_at(cells(50)), model)


@pytest.mark.parametrize(
    "change",
    [
        lambda points: points * 1.1,  # µm per pixel are known to about 10 %
        lambda points: points + np.random.default_rng(0).uniform(-8, 8, points.shape),
        lambda points: points[np.random.default_rng(0).random(len(points)) < 0.7],  # holes
        lambda points: np.concatenate([points, [[3000.0, 0.0], [0.0, 3000.0]]]),  # isolated spots
        lambda points: points @ np.array([[1.0, 0.05], [0.0, 1.0]]),  # sheared
        lambda points: points @ np.array([[0.8, 0.6], [-0.6, 0.8]]),  # turned
    ],
)
def test_distorted_and_ragged_sections_are_linked_by_their_own_rings(change):
    points = change(lattice(*HEXAGONAL))
    table = prepared(points, fit(lattice(*HEXAGONAL)))
    links = table.obsp["spatial_connectivities"].toarray() != 0
    between = np.linalg.norm(points[:, None] - points[None], axis=2)
    np.testing.assert_array_equal(links, (between < 135) & (between > 0))


def test_models_without_a_recorded_spacing_are_not_compared():
    model = fit(lattice(*HEXAGONAL))
    step = replace(model.recipe.neighbors, pitch_um=None, distance_um=None)
    model = replace(model, recipe=replace(model.recipe, neighbors=step))
    table = prepared(lattice("hexagonal", 40), model)
    assert _provenance.recorded(table, "neighbors")["pitch_um"] == 40


def test_the_spacing_is_saved_with_a_model(tmp_path):
    model = fit(cells(10), n_neighbors=4)
    model.save(tmp_path / "model")
    assert stp.models.load(tmp_path / "model").recipe == model.recipe
    assert model.recipe.neighbors.layout == "irregular"
