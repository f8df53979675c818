"""Steps write to the requested table and slots, and record only the default slots."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import spatialdata as sd

import stpredict as stp
from stpredict._sdata._provenance import read_steps

SMALL = {"size_px": 600, "mpp": 0.5, "pitch_um": 40.0, "n_morphology": 2, "n_neighborhood": 2}


def mean_colour(tiles):
    return tiles.mean((-2, -1))


def phantom():
    sdata = stp.datasets.phantom(2, **SMALL, n_null=2)
    stp.pp.normalize(sdata)
    stp.pp.neighbors(sdata)
    return sdata


#: Steps with one record: options, the slot of another name, and the name of the record.
RECORDED = {
    "normalize": ({}, "layers", "other", "normalize"),
    "neighbors": ({"n_neighbors": 2}, "obsp", "other_connectivities", "neighbors"),
    "select_genes": ({"n_top_genes": 2}, "var", "other", "select_genes"),
    "balance": ({"by": "region"}, "obs", "other", "balance"),
}


@pytest.mark.parametrize("step", RECORDED)
def test_only_the_default_name_is_recorded(sdata, step):
    options, slots, slot, record = RECORDED[step]
    table = sdata.tables["table"]
    before = table.uns["stpredict"].get(record)
    getattr(stp.pp, step)(sdata, **options, key_added="other")
    assert slot in getattr(table, slots)
    assert table.uns["stpredict"].get(record) == before
    getattr(stp.pp, step)(sdata, **options)
    assert table.uns["stpredict"][record] != before or step == "normalize"


def test_a_second_graph_leaves_the_first_in_place(sdata):
    table = sdata.tables["table"]
    first = table.obsp["spatial_connectivities"].copy()
    stp.pp.neighbors(sdata, n_neighbors=2, key_added="near")
    assert (table.obsp["spatial_connectivities"] != first).nnz == 0
    assert (np.diff(table.obsp["near_connectivities"].indptr) == 2).all()
    assert table.uns["near_neighbors"]["distances_key"] == "near_distances"


#: Functions that write a slot, with options for a quick run, and the kind of slot.
WRITERS = {
    "balance": ({"by": "region"}, "obs"),
    "embed": ({"encoder": mean_colour, "tile_um": 40}, "obsm"),
    "neighbors": ({"n_neighbors": 2}, "obsp"),
    "normalize": ({}, "layers"),
    "rank_expression": ({"layer": None}, "layers"),
    "select_genes": ({"n_top_genes": 2}, "var"),
    "smooth": ({"layer": None}, "layers"),
}
every_writer = pytest.mark.parametrize("step", WRITERS)


@every_writer
@pytest.mark.parametrize("name", ["", "a/b", "X_<s>", "a b", "__a", ".."])
def test_names_that_cannot_be_written_to_disk_are_refused(sdata, step, name):
    before = repr(sdata.tables["table"])
    with pytest.raises(ValueError, match=r"key_added=.* must be a name of letters, digits"):
        getattr(stp.pp, step)(sdata, **WRITERS[step][0], key_added=name)
    assert repr(sdata.tables["table"]) == before


@every_writer
def test_a_slot_of_the_user_is_not_overwritten(sdata, step):
    options, kind = WRITERS[step]
    table = sdata.tables["table"]
    slot = "mine_distances" if kind == "obsp" else "mine"
    length = table.n_vars if kind == "var" else table.n_obs
    values = np.ones(length) if kind in ("obs", "var") else np.ones((length, table.n_vars))
    getattr(table, kind)[slot] = sp.eye(length, format="csr") if kind == "obsp" else values
    with pytest.raises(ValueError, match=rf"{kind}\['{slot}'\] exists, and stpredict did not"):
        getattr(stp.pp, step)(sdata, **options, key_added="mine")
    stored = getattr(table, kind)[slot]
    assert stored.sum() == (length if kind == "obsp" else values.sum())


@every_writer
def test_a_slot_of_an_earlier_call_is_overwritten_also_after_a_round_trip(sdata, step, tmp_path):
    getattr(stp.pp, step)(sdata, **WRITERS[step][0], key_added="other")
    sdata.write(tmp_path / "a.zarr")
    back = sd.read_zarr(tmp_path / "a.zarr")
    getattr(stp.pp, step)(back, **WRITERS[step][0], key_added="other")


@pytest.mark.parametrize(
    ("step", "name"),
    [
        ("embed", "spatial"),
        ("balance", "region"),
        ("balance", "patient"),
        ("select_genes", "_index"),
    ],
)
def test_names_with_another_meaning_are_refused(sdata, step, name):
    with pytest.raises(ValueError, match=f"key_added='{name}' has another meaning"):
        getattr(stp.pp, step)(sdata, **WRITERS[step][0], key_added=name)


def test_names_that_differ_only_in_case_are_refused(sdata):
    with pytest.raises(ValueError, match=r"differs from layers\['log1p'\] only in case"):
        stp.pp.normalize(sdata, key_added="LOG1P")


def test_positions_are_not_registered_as_an_embedding(sdata):
    with pytest.raises(ValueError, match="key='spatial' holds positions"):
        stp.pp.register_embedding(sdata, "spatial", encoder="mine", tile_um=40)
    assert sdata.tables["table"].obsm["spatial"].dtype == np.float64


def test_a_grid_with_an_invalid_section_name_keeps_the_table(sdata):
    slide = sdata.subset(["S1_image", "S2_image"])
    stp.pp.grid(slide, "S1_image", pitch_um=40)
    with pytest.raises(ValueError, match="section='a/b' must be a name of letters, digits"):
        stp.pp.grid(slide, "S2_image", section="a/b", pitch_um=40)
    assert set(slide.tables) == {"table"}


def test_overwriting_a_layer_drops_its_record(sdata):
    stp.pp.rank_expression(sdata)
    assert read_steps(sdata.tables["table"]).layer("ranks")
    stp.pp.normalize(sdata, key_added="ranks")
    assert not read_steps(sdata.tables["table"]).layer("ranks")


#: Steps that work on a table, with options for a quick run.
STEPS = {
    "balance": {"by": "region"},
    "detect_tissue": {},
    "embed": {"encoder": mean_colour, "tile_um": 40},
    "filter_spots": {},
    "neighbors": {"n_neighbors": 3},
    "normalize": {"target_sum": 100},
    "normalize_stain": {"method": "reinhard"},
    "rank_expression": {"layer": None},
    "realign": {"shift_um": (2, 1)},
    "register_embedding": {"key": "features", "encoder": "mine", "tile_um": 40},
    "select_genes": {"n_top_genes": 2},
    "smooth": {"layer": None, "by": "expression", "n_neighbors": 3},
}


@pytest.mark.parametrize("step", STEPS)
def test_a_table_of_another_name_is_used(sdata, step):
    sdata.tables["table"].obsm["features"] = np.ones((sdata.tables["table"].n_obs, 3))
    sdata.tables["cells"] = sdata.tables.pop("table")
    before = repr(sdata.tables["cells"].uns)
    getattr(stp.pp, step)(sdata, **STEPS[step], table_name="cells")
    assert set(sdata.tables) == {"cells"}
    assert repr(sdata.tables["cells"].uns) != before


@pytest.mark.parametrize("step", STEPS)
def test_a_missing_table_is_reported(sdata, step):
    with pytest.raises(KeyError, match="tables has no 'cells'; available: table"):
        getattr(stp.pp, step)(sdata, **STEPS[step], table_name="cells")


def test_a_grid_is_placed_in_a_table_of_another_name(sdata):
    slide = sdata.subset(["S1_image"])
    stp.pp.grid(slide, "S1_image", pitch_um=40, table_name="spots")
    assert set(slide.tables) == {"spots"}
    assert "S1" in slide.tables["spots"].uns["stpredict"]["grid"]
