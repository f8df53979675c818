"""From SpatialData to arrays: centres, scale, levels, rows; every broken link is reported."""

from __future__ import annotations

import copy

import anndata as ad
import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
import spatialdata as sd
from hypothesis import given, settings
from hypothesis import strategies as st
from spatialdata.models import Image2DModel, ShapesModel, TableModel
from spatialdata.transformations import (
    Affine,
    Identity,
    Scale,
    Sequence,
    get_transformation,
    set_transformation,
)

import stpredict as stp
from stpredict._sdata import _provenance
from stpredict._sdata._spot_table import copy_of, open_table
from stpredict._sdata._steps import EmbedStep, RankStep
from stpredict.io._shared._assemble import assemble_section

MPP = 2.0


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setattr(stp.settings, "verbosity", 0)


def section(name="S1", *, n=6, size=(60, 80), mpp=MPP, seed=0):
    rng = np.random.default_rng(seed)
    height, width = size
    return assemble_section(
        name,
        image=rng.integers(0, 256, (height, width, 3), dtype=np.uint8),
        counts=rng.integers(0, 9, (n, 3)),
        obs_names=[f"s{i}" for i in range(n)],
        var_names=["A", "B", "C"],
        positions=rng.uniform((5, 5), (width - 5, height - 5), (n, 2)),
        mpp=mpp,
        diameter_um=10,
    )


def positions(sdata, name="S1"):
    table = sdata.tables["table"]
    return table.obsm["spatial"][(table.obs["region"] == name).to_numpy()]


def only_section(sdata):
    (section,) = open_table(sdata).sections
    return section


def rotation(degrees, *, scale=1.0, shift=(0.0, 0.0), mirror=False):
    """Affine matrix (3, 3) over x, y."""
    angle = np.deg2rad(degrees)
    matrix = np.eye(3)
    matrix[:2, :2] = scale * np.array(
        [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    )
    if mirror:
        matrix[:2, 1] *= -1
    matrix[:2, 2] = shift
    return matrix


def affine(matrix):
    return Affine(matrix, input_axes=("x", "y"), output_axes=("x", "y"))


def apply(matrix, points):
    return points @ matrix[:2, :2].T + matrix[:2, 2]


def test_sections_of_a_reader_are_read_back():
    sdata = section()
    read = only_section(sdata)
    assert (read.name, read.image, read.mpp) == ("S1", "S1_image", MPP)
    np.testing.assert_allclose(read.centers, positions(sdata))
    np.testing.assert_allclose(read.centers_um, positions(sdata) * MPP)
    np.testing.assert_allclose(read.radius_um, 5)
    np.testing.assert_array_equal(read.rows, np.arange(6))
    assert read.shape_yx == (60, 80)


angles, shifts = st.floats(-180, 180), st.tuples(st.floats(-500, 500), st.floats(-500, 500))


@settings(max_examples=30, deadline=None)
@given(angle=angles, shift=shifts, scale=st.floats(0.2, 5), mirror=st.booleans())
def test_centers_follow_the_shapes_transformation(angle, shift, scale, mirror):
    sdata = section()
    moved = rotation(angle, scale=scale, shift=shift, mirror=mirror)
    set_transformation(
        sdata.shapes["S1"], Sequence([Scale([MPP, MPP], ("x", "y")), affine(moved)]), "S1_um"
    )
    read = only_section(sdata)
    assert read.mpp == pytest.approx(MPP)
    np.testing.assert_allclose(read.centers_um, apply(moved, positions(sdata) * MPP), atol=1e-6)
    np.testing.assert_allclose(read.centers, read.centers_um / MPP)
    np.testing.assert_allclose(read.radius_um, 5 * scale)
    # the coordinates themselves were not touched
    np.testing.assert_array_equal(
        shapely.get_coordinates(sdata.shapes["S1"].geometry), positions(sdata)
    )


@settings(max_examples=30, deadline=None)
@given(angle=angles, shift=shifts, scale=st.floats(0.2, 5))
def test_centers_follow_the_image_transformation(angle, shift, scale):
    sdata = section()
    placed = rotation(angle, scale=scale, shift=shift)
    set_transformation(sdata.images["S1_image"], affine(placed), "S1_um")
    read = only_section(sdata)
    assert read.mpp == pytest.approx(scale)
    # a centre in pixels, taken to µm by the image, is the spot taken to µm by the shapes
    np.testing.assert_allclose(
        apply(placed, read.centers), positions(sdata) * MPP, atol=1e-6, rtol=1e-6
    )
    np.testing.assert_allclose(read.radius_um, 5)


@pytest.mark.parametrize("element", ["image", "shapes"])
def test_a_stretched_transformation_is_refused(element):
    sdata = section()
    target = sdata.images["S1_image"] if element == "image" else sdata.shapes["S1"]
    set_transformation(target, Scale([2.0, 2.02], ("x", "y")), "S1_um")
    assert only_section(sdata).name == "S1"  # rounding errors of readers are tolerated
    for stretch in (2.5, 0.0):
        set_transformation(target, Scale([2.0, stretch], ("x", "y")), "S1_um")
        scales = f"{max(2, stretch):g} and {min(2, stretch):g}"
        with pytest.raises(
            ValueError, match=f"S1.*stretches its axes by {scales}; .*scale both alike"
        ):
            only_section(sdata)


@pytest.mark.parametrize("element", ["image", "shapes"])
@pytest.mark.parametrize("place", [(0, 0), (0, 2)])
def test_a_transformation_with_nan_is_refused(element, place):
    sdata = section()
    matrix = np.diag([2.0, 2.0, 1.0])
    matrix[place] = np.nan
    target = sdata.images["S1_image"] if element == "image" else sdata.shapes["S1"]
    set_transformation(target, affine(matrix), "S1_um")
    with pytest.raises(ValueError, match=r"of .*S1.* has values that are NaN or infinite: set it"):
        only_section(sdata)


def test_a_dense_graph_of_another_tool_is_read():
    sdata = section()
    dense = np.zeros((6, 6))
    dense[0, 1] = dense[1, 0] = 1
    sdata.tables["table"].obsp["spatial_connectivities"] = dense
    graph = open_table(sdata).graph
    np.testing.assert_array_equal(graph.toarray(), dense)
    dense[2, 3] = np.nan
    with pytest.raises(ValueError, match=r"obsp\['spatial_connectivities'\] has 1 values that are"):
        open_table(sdata).graph  # noqa: B018


def test_rows_of_several_sections_are_separated():
    sdata = stp.io.concat([section("S1", n=4), section("S2", n=7, mpp=0.5, seed=1)])
    table = sdata.tables["table"]
    shuffled = table[np.random.default_rng(0).permutation(table.n_obs)].copy()
    sdata = sd.SpatialData.init_from_elements(
        {**dict(sdata.images), **dict(sdata.shapes), "table": shuffled}
    )
    spots = open_table(sdata)
    by_name = {s.name: s for s in spots.sections}
    assert {name: s.mpp for name, s in by_name.items()} == {"S1": MPP, "S2": 0.5}
    rows = np.concatenate([s.rows for s in by_name.values()])
    assert sorted(rows) == list(range(11))
    for name, s in by_name.items():
        assert (shuffled.obs["region"].to_numpy()[s.rows] == name).all()
        np.testing.assert_allclose(s.centers, shuffled.obsm["spatial"][s.rows])
        np.testing.assert_allclose(spots.positions_um[s.rows], s.centers_um)
    assert spots.section_names == list(dict.fromkeys(shuffled.obs["region"]))
    assert spots.section_of_row.tolist() == shuffled.obs["region"].tolist()


def test_spots_without_rows_are_left_out():
    sdata = section()
    sdata.tables["table"] = sdata.tables["table"][[4, 1]].copy()
    read = only_section(sdata)
    np.testing.assert_allclose(read.centers, positions(section())[[4, 1]])


def test_levels_are_lazy_and_finest_first():
    sdata = section(size=(2100, 3000))
    levels = only_section(sdata).levels
    assert [level.shape for level in levels] == [(3, 2100, 3000), (3, 1050, 1500), (3, 525, 750)]
    assert all(level.dtype == np.uint8 for level in levels)
    assert all(hasattr(level, "dask") for level in levels)
    np.testing.assert_array_equal(
        levels[0][:, :50, :50].compute(),
        np.random.default_rng(0)
        .integers(0, 256, (2100, 3000, 3), dtype=np.uint8)[:50, :50]
        .transpose(2, 0, 1),
    )


def test_a_single_level_with_channels_last_is_read():
    sdata = section()
    pixels = sdata.images["S1_image"]["scale0"].ds["image"].data
    transformations = get_transformation(sdata.images["S1_image"], get_all=True)
    del sdata.images["S1_image"]
    sdata.images["S1_image"] = Image2DModel.parse(
        pixels.transpose(1, 2, 0), dims=("y", "x", "c"), transformations=transformations
    )
    (level,) = only_section(sdata).levels
    np.testing.assert_array_equal(level.compute(), pixels.compute())


def test_polygons_are_read_as_circles_of_equal_area():
    sdata = section(n=2)
    polygons = gpd.GeoDataFrame(
        geometry=[
            shapely.box(10, 20, 14, 30),
            shapely.MultiPolygon([shapely.box(40, 40, 42, 42), shapely.box(44, 40, 46, 42)]),
        ],
        index=["s0", "s1"],
    )
    del sdata.shapes["S1"]
    sdata.shapes["S1"] = ShapesModel.parse(
        polygons, transformations={"S1_um": Scale([MPP, MPP], ("x", "y"))}
    )
    read = only_section(sdata)
    np.testing.assert_allclose(read.centers, [[12, 25], [43, 41]])
    np.testing.assert_allclose(np.pi * read.radius_um**2, [40 * MPP**2, 8 * MPP**2])


# --- broken links -----------------------------------------------------------------------------


def replace_image(sdata, image, name="S1_image", **transformations):
    if name in sdata.images:
        del sdata.images[name]
    sdata.images[name] = Image2DModel.parse(
        image, dims=("c", "y", "x"), transformations=transformations
    )


def unannotated(sdata):
    table = sdata.tables["table"]
    del table.uns[TableModel.ATTRS_KEY]


def shapes_gone(sdata):
    del sdata.shapes["S1"]


def apart(sdata):
    set_transformation(sdata.shapes["S1"], {"elsewhere": Identity()}, set_all=True)


def second_image(sdata):
    set_transformation(sdata.images["S1_image"], {"S1_um": Scale([2, 2], ("x", "y"))}, set_all=True)
    replace_image(
        sdata, np.zeros((3, 9, 9), dtype=np.uint8), "again", S1_um=Scale([9, 9], ("x", "y"))
    )


def pixels_only(sdata):
    for element in (sdata.images["S1_image"], sdata.shapes["S1"]):
        set_transformation(element, {"global": Identity()}, set_all=True)


def pixels_only_two_images(sdata):
    pixels_only(sdata)
    replace_image(sdata, np.zeros((3, 9, 9), dtype=np.uint8), "hires", **{"global": Identity()})


def empty_section(sdata):
    table = sdata.tables["table"]
    table.uns[TableModel.ATTRS_KEY]["region"] = ["S1", "S2"]


def no_rows(sdata):
    table = sdata.tables["table"][:0].copy()
    table.uns[TableModel.ATTRS_KEY]["region"] = []
    sdata.tables["table"] = table


def duplicated_ids(sdata):
    sdata.tables["table"].obs["instance_id"] = ["s0", "s1", "s1", "s3", "s0", "s5"]


def duplicated_shapes(sdata):
    shapes = sdata.shapes["S1"]
    shapes.index = pd.Index(["s0", "s1", "s1", "s3", "s4", "s5"])


def unknown_ids(sdata):
    sdata.tables["table"].obs["instance_id"] = ["s0", "x1", "x2", "s3", "s4", "s5"]


def grey(sdata):
    replace_image(sdata, np.zeros((1, 60, 80), dtype=np.uint8), S1_um=Scale([2, 2], ("x", "y")))


def four_channels(sdata):
    replace_image(sdata, np.zeros((4, 60, 80), dtype=np.uint8), S1_um=Scale([2, 2], ("x", "y")))


def sixteen_bit(sdata):
    replace_image(sdata, np.zeros((3, 60, 80), dtype=np.uint16), S1_um=Scale([2, 2], ("x", "y")))


def floats(sdata):
    replace_image(sdata, np.zeros((3, 60, 80), dtype=np.float32), S1_um=Scale([2, 2], ("x", "y")))


def no_radius(sdata):
    sdata.shapes["S1"]["radius"] = [np.nan, -1.0, 0.0, 5.0, 5.0, 5.0]


REMEDY = r"stp\.io\.register_um\(sdata, 'S1', image=…, mpp=…\)"
BROKEN = [
    (unannotated, r"tables\['table'\] annotates no shapes: .*TableModel.parse"),
    (shapes_gone, "the table annotates 'S1', but there are no such shapes; shapes: none"),
    (
        apart,
        r"shapes\['S1'\] \(coordinate systems elsewhere\) shares no coordinate system with an "
        r"image; images: S1_image: spatialdata.transformations.set_transformation",
    ),
    (second_image, "several images could belong to section 'S1': S1_image, again: .*" + REMEDY),
    (
        pixels_only,
        r"the µm per pixel of images\['S1_image'\] are not known .*'S1_um'.*give them with "
        + REMEDY,
    ),
    (pixels_only_two_images, "several images could .*'S1': S1_image, hires: .*" + REMEDY),
    (empty_section, "section 'S2' has no rows in the table"),
    (no_rows, r"tables\['table'\] has no rows"),
    (duplicated_ids, "spot ids of section 'S1' in the table are not unique, repeated: s0, s1"),
    (duplicated_shapes, r"the index of shapes\['S1'\] is not unique"),
    (unknown_ids, r"2 spots of the table are not in shapes\['S1'\]: x1, x2"),
    (no_radius, "3 circles have no radius above 0: s0, s1, s2"),
    (grey, r"images\['S1_image'\] has 1 channels of uint8; .*3 channels \(RGB\) of uint8"),
    (four_channels, r"images\['S1_image'\] has 4 channels of uint8"),
    (sixteen_bit, r"images\['S1_image'\] has 3 channels of uint16"),
    (floats, r"images\['S1_image'\] has 3 channels of float32"),
]


@pytest.mark.parametrize(("spoil", "message"), BROKEN, ids=[b[0].__name__ for b in BROKEN])
@pytest.mark.filterwarnings("ignore:The table is annotating:UserWarning")  # spatialdata's
def test_broken_links_are_reported(spoil, message):
    sdata = section()
    spoil(sdata)
    with pytest.raises(ValueError, match=message):
        open_table(sdata).sections  # noqa: B018


@pytest.mark.parametrize("spoil", [second_image, pixels_only, pixels_only_two_images])
def test_register_um_repairs_a_broken_link(spoil):
    sdata = section()
    spoil(sdata)
    stp.io.register_um(sdata, "S1", image="S1_image", mpp=3.0)
    read = only_section(sdata)
    assert (read.image, read.mpp) == ("S1_image", 3.0)
    np.testing.assert_allclose(read.centers, positions(sdata))


def test_missing_tables_are_reported():
    sdata = section()
    with pytest.raises(KeyError, match=r"no 'predicted'; available: table: run stp\.tl\.predict"):
        open_table(sdata, "predicted")
    del sdata.tables["table"]
    with pytest.raises(KeyError, match="tables has no 'table'; available: none"):
        open_table(sdata)


def test_layers_are_read_and_checked():
    spots = open_table(section())
    table = spots.table
    with pytest.raises(KeyError, match=r"no 'log1p'; available: none: run stp\.pp\.normalize"):
        spots.layer("log1p")
    table.layers["mine"] = table.X.toarray()
    with pytest.raises(KeyError, match=r"no 'other'; available: mine\"$"):
        spots.layer("other")
    assert spots.layer("mine") is table.layers["mine"]
    assert spots.layer(None) is table.X
    table.layers["mine"][0, 0] = np.nan
    with pytest.raises(ValueError, match=r"layers\['mine'\] has 1 values that are NaN"):
        spots.layer("mine")


def test_a_subset_has_its_rows_shapes_and_images_only():
    sdata = stp.io.concat([section("S1"), section("S2", seed=1)])
    spots = open_table(sdata)
    rows = np.flatnonzero(spots.section_of_row == "S2")[::-1]
    part = spots.subset(rows)
    assert (list(part.sdata.shapes), list(part.sdata.images)) == (["S2"], ["S2_image"])
    np.testing.assert_array_equal(part.table.obs_names, spots.table.obs_names[np.sort(rows)])
    np.testing.assert_allclose(part.positions_um, spots.positions_um[np.sort(rows)])
    part.table.X.data[:] = 9
    assert spots.table.X.max() < 9


def test_an_added_table_annotates_the_same_shapes():
    sdata = section()
    spots = open_table(sdata)
    spots.add_table("other", ad.AnnData(np.zeros((6, 1)), obs=spots.table.obs.copy()))
    added = open_table(sdata, "other")
    np.testing.assert_allclose(added.positions_um, spots.positions_um)
    np.testing.assert_array_equal(added.table.obsm["spatial"], spots.table.obsm["spatial"])


# --- records of steps -----------------------------------------------------------------------

STEP = {
    "name": "texture",
    "number": 3,
    "share": 0.25,
    "flag": True,
    "names": ["a", "b"],
    "nested": {"X_texture": {"tile_um": 112.0, "n_subtiles": 3}},
}


def test_the_last_run_of_a_step_is_recorded():
    table = section().tables["table"]
    assert _provenance.recorded(table, "embed") == {}
    _provenance.record(table, "embed", **STEP, left_out=None)
    _provenance.record(table, "normalize", target_sum=1e4)
    record = _provenance.recorded(table, "embed")
    assert record.pop("stpredict_version") == stp.__version__
    assert record == STEP
    assert set(table.uns["stpredict"]) == {"embed", "normalize"}
    _provenance.record(table, "embed", number=4)
    assert set(_provenance.recorded(table, "embed")) == {"number", "stpredict_version"}


def test_records_survive_zarr(tmp_path):
    sdata = section()
    _provenance.record(sdata.tables["table"], "embed", **STEP)
    sdata.write(tmp_path / "a.zarr")
    table = sd.read_zarr(tmp_path / "a.zarr").tables["table"]
    record = _provenance.recorded(table, "embed")
    assert record == {**STEP, "stpredict_version": stp.__version__}
    assert type(record["number"]) is int
    assert type(record["flag"]) is bool
    assert type(record["names"]) is list


def test_typed_steps_survive_zarr(tmp_path):
    sdata = section()
    table = sdata.tables["table"]
    embed = EmbedStep("texture", weights_hash="00", tile_um=112.0, mpp=0.5, n_subtiles=3)
    ranks = RankStep(key_added="ranks", layer="log1p", n_genes=2, genes=("A", "B"))
    _provenance.record_step(table, embed, slot="X_texture")
    _provenance.record_step(table, embed, slot="X_other")
    _provenance.record_step(table, ranks, slot="ranks")
    sdata.write(tmp_path / "a.zarr")
    table = sd.read_zarr(tmp_path / "a.zarr").tables["table"]
    assert _provenance.read_steps(table).embed == {"X_texture": embed, "X_other": embed}
    assert _provenance.read_steps(table).rank_expression["ranks"] == ranks
    assert _provenance.read_steps(table).rank_expression.get("other") is None
    _provenance.forget_step(table, EmbedStep, "X_other")
    assert list(_provenance.read_steps(table).embed) == ["X_texture"]


def test_sections_survive_zarr(tmp_path):
    sdata = stp.io.concat([section("S1"), section("S2", mpp=0.7, size=(2100, 1100), seed=1)])
    moved = rotation(10, shift=(3, -4))
    set_transformation(
        sdata.shapes["S2"], Sequence([Scale([0.7, 0.7], ("x", "y")), affine(moved)]), "S2_um"
    )
    sdata.write(tmp_path / "a.zarr")
    stored = open_table(sd.read_zarr(tmp_path / "a.zarr")).sections
    for before, after in zip(open_table(sdata).sections, stored, strict=True):
        assert (before.name, before.image) == (after.name, after.image)
        assert before.mpp == pytest.approx(after.mpp)
        np.testing.assert_allclose(before.centers, after.centers)
        np.testing.assert_allclose(before.radius_um, after.radius_um)
        np.testing.assert_array_equal(before.rows, after.rows)
        for level, read in zip(before.levels, after.levels, strict=True):
            np.testing.assert_array_equal(read.compute(), level.compute())


def test_sections_are_selected_by_coordinate_system():
    sdata = stp.io.concat([section("S1"), section("S2", seed=1)])
    part = sdata.filter_by_coordinate_system("S2_um")
    read = only_section(part)
    assert (read.name, len(read.rows)) == ("S2", 6)


def test_a_copy_shares_images_only():
    sdata = section()
    _provenance.record(sdata.tables["table"], "embed", number=1)
    before = copy.deepcopy(dict(sdata.tables["table"].uns["stpredict"]))
    twin = copy_of(sdata)
    assert twin.images["S1_image"] is sdata.images["S1_image"]
    table = twin.tables["table"]
    table.X.data[:] = 9
    table.obs["new"] = 1
    _provenance.record(table, "embed", number=2)
    set_transformation(twin.shapes["S1"], Identity(), "S1_um")
    original = sdata.tables["table"]
    assert original.uns["stpredict"] == before
    assert "new" not in original.obs
    assert (original.X != section().tables["table"].X).nnz == 0
    assert only_section(sdata).mpp == MPP
    np.testing.assert_allclose(only_section(sdata).centers, positions(sdata))
    np.testing.assert_allclose(only_section(twin).centers, positions(sdata) / MPP)
