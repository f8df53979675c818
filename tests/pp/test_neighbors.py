"""The neighbourhood graph equals brute force: grids, k nearest and radius, by section, in µm."""

from __future__ import annotations

import numpy as np
import pytest
import spatialdata as sd
from anndata import AnnData
from hypothesis import given, settings
from hypothesis import strategies as st

import stpredict as stp
from stpredict._sdata import _provenance
from stpredict.io._shared._assemble import assemble_section


def lattice(grid, n_rows, n_columns):
    """Positions on a grid of pitch 1."""
    row, column = (a.ravel().astype(float) for a in np.mgrid[:n_rows, :n_columns])
    if grid == "hexagonal":
        return np.column_stack([column + (row % 2) / 2, row * np.sqrt(3) / 2])
    return np.column_stack([column, row])


def spots_at(positions_px, *, mpp=2.0, name="S1"):
    """A section with spots at given places, on a blank image that just holds them."""
    positions = np.asarray(positions_px, dtype=float)
    width, height = np.ceil(positions.max(axis=0)).astype(int) + 30
    return assemble_section(
        name,
        image=np.full((height, width, 3), 200, dtype=np.uint8),
        counts=np.ones((len(positions), 2)),
        obs_names=[f"s{i}" for i in range(len(positions))],
        var_names=["A", "B"],
        positions=positions,
        mpp=mpp,
        diameter_um=4,
    )


def graph(sdata):
    table = sdata.tables["table"]
    links = table.obsp["spatial_connectivities"]
    distances = table.obsp["spatial_distances"]
    assert links.format == distances.format == "csr"
    assert links.shape == distances.shape == (table.n_obs, table.n_obs)
    return links.toarray() != 0, distances.toarray()


def all_distances(points):
    return np.linalg.norm(points[:, None] - points[None], axis=2)


def check_distances(links, distances, points_um):
    np.testing.assert_allclose(distances, np.where(links, all_distances(points_um), 0), rtol=1e-6)


def within(points, reach):
    distances = all_distances(points)
    return (distances <= reach) & ~np.eye(len(points), dtype=bool)


#: How far the neighbours in the first and second ring of a grid lie, and the next after them.
REACH = {("hexagonal", 1): 1.3, ("square", 1): 1.6}
jitters = st.tuples(st.integers(0, 2**32 - 1), st.floats(0, 0.08))


def jittered(grid, shape, jitter):
    seed, share = jitter
    points = lattice(grid, *shape)
    return points + np.random.default_rng(seed).uniform(-share, share, points.shape)


@settings(max_examples=25, deadline=None)
@given(
    grid=st.sampled_from(["hexagonal", "square"]),
    shape=st.tuples(st.integers(5, 9), st.integers(5, 9)),
    jitter=jitters,
    mpp=st.floats(0.3, 4),
)
def test_the_grid_is_detected_and_linked(grid, shape, jitter, mpp):
    points = jittered(grid, shape, jitter) * 20 + 10
    sdata = spots_at(points, mpp=mpp)
    stp.pp.neighbors(sdata)
    record = _provenance.recorded(sdata.tables["table"], "neighbors")
    assert (record["grid"], record["n_rings"]) == (grid, 1)
    links, distances = graph(sdata)
    ideal = lattice(grid, *shape)
    np.testing.assert_array_equal(links, within(ideal, REACH[grid, 1]))
    np.testing.assert_array_equal(links, links.T)
    check_distances(links, distances, points * mpp)


def rings(first, n):
    """Links within n steps, step by step."""
    reached = np.eye(len(first), dtype=bool)
    for _ in range(n):
        reached = reached | (reached.astype(int) @ first.astype(int) > 0)
    return reached & ~np.eye(len(first), dtype=bool)


@pytest.mark.parametrize("grid", ["hexagonal", "square"])
@pytest.mark.parametrize("n_rings", [1, 2, 3])
def test_rings(grid, n_rings):
    sdata = spots_at(lattice(grid, 7, 8) * 20 + 10)
    stp.pp.neighbors(sdata, grid=grid, n_rings=n_rings)
    links, distances = graph(sdata)
    points = lattice(grid, 7, 8)
    np.testing.assert_array_equal(links, rings(within(points, REACH[grid, 1]), n_rings))
    check_distances(links, distances, points * 40)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(4, 40), k=st.integers(1, 6))
def test_k_nearest(seed, n, k):
    k = min(k, n - 1)
    points = np.random.default_rng(seed).uniform(1, 200, (n, 2))
    sdata = spots_at(points)
    stp.pp.neighbors(sdata, n_neighbors=k)
    links, distances = graph(sdata)
    assert (links.sum(axis=1) == k).all()
    assert not links.diagonal().any()
    alone_distances = all_distances(points) + np.diag(np.full(n, np.inf))
    farthest = np.where(links, alone_distances, -np.inf).max(axis=1)
    nearest_left = np.where(links, np.inf, alone_distances).min(axis=1)
    assert (farthest <= nearest_left + 1e-9).all()
    check_distances(links, distances, points * 2)
    assert _provenance.recorded(sdata.tables["table"], "neighbors")["n_neighbors"] == k


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(2, 40), radius=st.floats(1, 300))
def test_radius(seed, n, radius):
    points = np.random.default_rng(seed).uniform(1, 200, (n, 2))
    sdata = spots_at(points)
    if not within(points * 2, radius).any():
        with pytest.raises(ValueError, match="no spot has a neighbour"):
            stp.pp.neighbors(sdata, radius_um=radius)
        return
    stp.pp.neighbors(sdata, radius_um=radius)
    links, distances = graph(sdata)
    np.testing.assert_array_equal(links, within(points * 2, radius))
    np.testing.assert_array_equal(links, links.T)
    check_distances(links, distances, points * 2)
    assert _provenance.recorded(sdata.tables["table"], "neighbors")["radius_um"] == radius


@settings(max_examples=15, deadline=None)
@given(
    grids=st.lists(st.tuples(st.integers(4, 6), st.integers(4, 6)), min_size=2, max_size=3),
    mpps=st.lists(st.floats(0.3, 3), min_size=3, max_size=3),
    rule=st.sampled_from([{}, {"n_neighbors": 3}, {"radius_um": 90.0}]),
    seed=st.integers(0, 999),
)
def test_sections_are_never_linked(grids, mpps, rule, seed):
    # nearly the same places in every section (nearest without ties), in shuffled rows
    mpps = mpps if rule else mpps[:1] * 3  # grids of one table have one pitch
    points = [jittered("square", shape, (seed, 0.04)) * 20 + 10 for shape in grids]
    parts = [
        spots_at(p, mpp=mpp, name=f"S{i}")
        for i, (p, mpp) in enumerate(zip(points, mpps, strict=False))
    ]
    together = stp.io.concat(parts)
    table = together.tables["table"]
    order = np.random.default_rng(seed).permutation(table.n_obs)
    together = sd.SpatialData.init_from_elements(
        {**dict(together.images), **dict(together.shapes), "table": table[order].copy()}
    )
    stp.pp.neighbors(together, **rule)
    links, distances = graph(together)
    region = together.tables["table"].obs["region"].astype(str).to_numpy()
    assert not links[region[:, None] != region[None]].any()
    for i, part in enumerate(parts):
        # a section among others is linked as it is alone
        stp.pp.neighbors(part, **rule)
        alone, alone_distances = graph(part)
        rows = np.flatnonzero(region == f"S{i}")
        names = together.tables["table"].obs_names[rows]
        alone_rows = part.tables["table"].obs_names.get_indexer(names)
        np.testing.assert_array_equal(
            links[np.ix_(rows, rows)], alone[np.ix_(alone_rows, alone_rows)]
        )
        np.testing.assert_allclose(
            distances[np.ix_(rows, rows)], alone_distances[np.ix_(alone_rows, alone_rows)]
        )


@pytest.mark.parametrize("grid", ["hexagonal", "square"])
def test_grid_with_holes(grid):
    points = lattice(grid, 10, 10)
    kept_spots = np.random.default_rng(0).random(100) < 0.85
    sdata = spots_at(points[kept_spots] * 20 + 10)
    stp.pp.neighbors(sdata)
    assert _provenance.recorded(sdata.tables["table"], "neighbors")["grid"] == grid
    np.testing.assert_array_equal(graph(sdata)[0], within(points[kept_spots], REACH[grid, 1]))


@pytest.mark.parametrize("layout", ["hexagonal", "square"])
def test_phantom(layout):
    sdata = stp.datasets.phantom(2, size_px=600, mpp=0.5, pitch_um=40.0, spots=layout, n_null=1)
    stp.pp.neighbors(sdata)
    assert _provenance.recorded(sdata.tables["table"], "neighbors")["grid"] == layout


def test_turned_grid():
    angle = np.deg2rad(23)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = lattice("square", 7, 7) @ turn.T
    sdata = spots_at((points - points.min(axis=0)) * 20 + 10)
    stp.pp.neighbors(sdata)
    np.testing.assert_array_equal(graph(sdata)[0], within(points, 1.6))


@pytest.mark.parametrize("seed", range(3))
def test_random_points_are_on_no_grid(seed):
    points = np.random.default_rng(seed).uniform(1, 400, (150, 2))
    sdata = spots_at(points)
    with pytest.raises(ValueError, match=r"no hexagonal or square grid .*n_neighbors=, radius_um="):
        stp.pp.neighbors(sdata)
    assert not sdata.tables["table"].obsp.keys()
    assert "spatial_neighbors" not in sdata.tables["table"].uns
    stp.pp.neighbors(sdata, n_neighbors=4)  # what the message says


@pytest.mark.parametrize(
    ("rule", "squidpy_graph"),
    [
        ({"n_rings": 1}, lambda gr, data: gr.spatial_neighbors_grid(data, n_neighs=6, copy=True)),
        (
            {"n_rings": 3},
            lambda gr, data: gr.spatial_neighbors_grid(data, n_neighs=6, n_rings=3, copy=True),
        ),
        (
            {"n_neighbors": 5},
            lambda gr, data: gr.spatial_neighbors_knn(data, n_neighs=5, copy=True),
        ),
        (
            {"radius_um": 150.0},
            lambda gr, data: gr.spatial_neighbors_radius(data, radius=150.0, copy=True),
        ),
    ],
)
def test_the_graph_is_that_of_squidpy(rule, squidpy_graph):
    from squidpy import gr

    rng = np.random.default_rng(0)
    positions = 100 * lattice("hexagonal", 12, 10) + rng.normal(0, 2, (120, 2)) + 20
    positions = positions[rng.random(120) < 0.85]
    sdata = spots_at(positions, mpp=1.0)
    stp.pp.neighbors(sdata, **rule)
    bare = AnnData(shape=(len(positions), 0), obsm={"spatial": positions})
    expected = squidpy_graph(gr, bare)[0]
    np.testing.assert_array_equal(graph(sdata)[0], expected.toarray() != 0)


def test_squidpy_uses_the_graph():
    import squidpy as sq

    sdata = stp.datasets.phantom(size_px=600, mpp=0.5, pitch_um=40.0, n_null=2)
    stp.pp.neighbors(sdata)
    table = sdata.tables["table"]
    sq.gr.spatial_autocorr(table, mode="moran", show_progress_bar=False)
    assert len(table.uns["moranI"]) == table.n_vars


def test_a_second_call_replaces_the_graph():
    sdata = spots_at(lattice("square", 5, 5) * 20 + 10)
    stp.pp.neighbors(sdata, n_neighbors=2)
    stp.pp.neighbors(sdata)
    record = _provenance.recorded(sdata.tables["table"], "neighbors")
    assert "n_neighbors" not in record
    assert record["grid"] == "square"
    assert sdata.tables["table"].uns["spatial_neighbors"]["params"] == {
        "grid": "square",
        "n_rings": 1,
        "pitch_um": 40.0,
        "distance_um": 40.0,
    }


def test_copy():
    sdata = spots_at(lattice("square", 5, 5) * 20 + 10)
    changed = stp.pp.neighbors(sdata, copy=True)
    assert isinstance(changed, sd.SpatialData)
    assert "spatial_connectivities" in changed.tables["table"].obsp
    assert not sdata.tables["table"].obsp.keys()
    assert "stpredict" not in sdata.tables["table"].uns
    assert stp.pp.neighbors(sdata) is None


def test_survives_zarr(tmp_path):
    sdata = spots_at(lattice("hexagonal", 6, 6) * 20 + 10)
    stp.pp.neighbors(sdata)
    sdata.write(tmp_path / "a.zarr")
    back = sd.read_zarr(tmp_path / "a.zarr")
    for written, read in zip(graph(sdata), graph(back), strict=True):
        np.testing.assert_array_equal(written, read)
    assert _provenance.recorded(back.tables["table"], "neighbors") == _provenance.recorded(
        sdata.tables["table"], "neighbors"
    )
    stp.pp.neighbors(back)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grid": "square", "n_neighbors": 3}, "give one rule for neighbours, not 2: .*'square'"),
        ({"radius_um": 3.0, "n_neighbors": 3}, "give one rule for neighbours, not 2"),
        ({"grid": "cubic"}, "grid='cubic' is not one of 'hexagonal', 'square'"),
        ({"n_rings": 0}, "n_rings must be a whole number of at least 1: 0"),
        ({"n_rings": 10**9}, "n_rings must be at most 100: 1000000000"),
        ({"n_rings": 1.5}, "n_rings must be a whole number: 1.5"),
        ({"n_neighbors": 0}, "n_neighbors must be a whole number of at least 1: 0"),
        ({"radius_um": -1.0}, r"radius_um must be a number above 0 \(µm\): -1.0"),
        ({"n_neighbors": 3, "n_rings": 2}, "n_rings=2 applies to grids, not to .*n_neighbors"),
        ({"n_neighbors": 25}, "section 'S1' has 25 spots, too few for 25 neighbours each"),
    ],
)
def test_bad_options(options, message):
    sdata = spots_at(lattice("square", 5, 5) * 20 + 10)
    with pytest.raises(ValueError, match=message):
        stp.pp.neighbors(sdata, **options)
    table = sdata.tables["table"]
    assert not table.obsp.keys()
    assert "stpredict" not in table.uns


def test_few_spots():
    sdata = spots_at([[10.0, 10], [30, 10]])
    with pytest.raises(ValueError, match="no hexagonal or square grid"):
        stp.pp.neighbors(sdata)
    with pytest.raises(ValueError, match="'S1' has 2 spots, too few for 6 neighbours each"):
        stp.pp.neighbors(sdata, grid="hexagonal")
    stp.pp.neighbors(sdata, radius_um=50)
    assert graph(sdata)[0].sum() == 2


@pytest.mark.parametrize(("grid", "other"), [("hexagonal", "square"), ("square", "hexagonal")])
def test_a_grid_on_which_the_spots_do_not_lie_is_refused(grid, other):
    sdata = spots_at(lattice(other, 8, 8) * 20 + 10)
    message = rf"grid='{grid}' does not fit the spots \(S1: {other}, 40 µm apart\): omit grid="
    with pytest.raises(ValueError, match=message):
        stp.pp.neighbors(sdata, grid=grid)
    assert not sdata.tables["table"].obsp.keys()


@pytest.mark.parametrize(
    ("grids", "mpps", "message"),
    [
        (("hexagonal", "square"), (2.0, 2.0), r"no .* grid that all .*S1: hex.*S2: square, 40 µm"),
        (
            ("square", "square"),
            (2.0, 1.0),
            r"pitch differs .*S1: square, 40 µm.*S2: square, 20",
        ),
    ],
)
def test_sections_on_different_grids_are_refused(grids, mpps, message):
    parts = [
        spots_at(lattice(grid, 8, 8) * 20 + 10, mpp=mpp, name=name)
        for grid, mpp, name in zip(grids, mpps, ("S1", "S2"), strict=True)
    ]
    sdata = stp.io.concat(parts)
    with pytest.raises(ValueError, match=message):
        stp.pp.neighbors(sdata)
    assert not sdata.tables["table"].obsp.keys()
    stp.pp.neighbors(sdata, radius_um=60)
    assert _provenance.recorded(sdata.tables["table"], "neighbors")["layout"] == "irregular"


@pytest.mark.parametrize(
    ("rule", "spacing"),
    [
        ({}, {"grid": "hexagonal", "n_rings": 1, "pitch_um": 40.0, "distance_um": 40.0}),
        ({"n_neighbors": 3}, {"layout": "hexagonal", "pitch_um": 40.0, "distance_um": 40.0}),
        ({"radius_um": 41.0}, {"layout": "hexagonal", "pitch_um": 40.0, "distance_um": 40.0}),
    ],
)
def test_the_spacing_of_the_spots_is_recorded(rule, spacing):
    sdata = spots_at(lattice("hexagonal", 8, 8) * 20 + 10)
    stp.pp.neighbors(sdata, **rule)
    record = _provenance.recorded(sdata.tables["table"], "neighbors")
    assert {**record, **rule, **spacing} == record


def test_cells_have_no_layout():
    sdata = spots_at(np.random.default_rng(0).uniform(10, 300, (200, 2)))
    stp.pp.neighbors(sdata, n_neighbors=5)
    record = _provenance.recorded(sdata.tables["table"], "neighbors")
    assert record["layout"] == "irregular"
    distances = sdata.tables["table"].obsp["spatial_distances"].data
    assert record["distance_um"] == pytest.approx(np.median(distances), rel=1e-3)


def test_a_radius_without_neighbours_is_refused():
    sdata = spots_at(lattice("square", 5, 5) * 20 + 10)
    with pytest.raises(ValueError, match=r"about 40 µm apart: increase radius_um="):
        stp.pp.neighbors(sdata, radius_um=39)
    assert not sdata.tables["table"].obsp.keys()


def test_a_single_spot_among_sections_has_no_neighbours():
    parts = [spots_at(lattice("square", 5, 5) * 20 + 10), spots_at([[10.0, 10.0]], name="S2")]
    sdata = stp.io.concat(parts)
    stp.pp.neighbors(sdata, radius_um=41)
    stp.pp.neighbors(sdata)
    assert graph(sdata)[0].sum(axis=1)[-1] == 0
