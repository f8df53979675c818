"""Spots are removed for the planted reason, counted under it, and their shapes with them."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import shapely
import spatialdata as sd
from spatialdata.models import ShapesModel, TableModel

import stpredict as stp
from stpredict._sdata import _provenance
from stpredict._sdata._spot_table import open_table

# a phantom whose pale regions Otsu's threshold takes for tissue, as they are
FINE = {
    "size_px": 700,
    "mpp": 0.5,
    "pitch_um": 40.0,
    "n_morphology": 2,
    "n_neighborhood": 2,
    "seed": 2,
}


def move(sdata, names, x, y, section="S1"):
    """Put spots of a section somewhere else."""
    circles = sdata.shapes[section]
    points = circles.geometry.to_numpy().copy()
    points[circles.index.isin(names)] = shapely.Point(x, y)
    del sdata.shapes[section]
    sdata.shapes[section] = ShapesModel.parse(circles.set_geometry(points))


def starve(sdata, rows):
    """Leave one count to each of some rows."""
    table = sdata.tables["table"]
    counts = table.X.toarray()
    counts[rows] = 0
    counts[rows, 0] = 1
    table.X = type(table.X)(counts)


def removed(sdata):
    return _provenance.recorded(sdata.tables["table"], "filter_spots")["removed"]


def test_planted_reasons(capsys, monkeypatch):
    monkeypatch.setattr(stp.settings, "verbosity", 1)
    sdata = stp.datasets.phantom(2, **FINE, off_tissue=3, counts_per_spot=20000.0)
    table = sdata.tables["table"]
    n = table.n_obs
    on = np.flatnonzero(table.obs["on_tissue"])
    starve(sdata, on[[3, 4]])
    gone = set(table.obs_names[on[[0, 1, 3, 4]]]) | set(
        table.obs_names[~table.obs["on_tissue"].to_numpy()]
    )
    first, second = table.obs["instance_id"].iloc[on[[0, 1]]]
    move(sdata, [first], 1000.0, 20.0)
    move(sdata, [second], np.nan, np.nan)
    expected = [name for name in table.obs_names if name not in gone]

    stp.pp.filter_spots(sdata)

    after = sdata.tables["table"]
    assert list(after.obs_names) == expected
    assert removed(sdata) == {"outside_image": 2, "too_few_counts": 2, "off_tissue": 6}
    output = capsys.readouterr().out
    assert f"filter_spots: {n - 10} of {n} spots kept; removed: 2 without a position" in output
    assert "2 with fewer than 100 counts, 6 off the tissue" in output
    assert after.obs["on_tissue"].all()
    for section in ("S1", "S2"):
        left = after.obs.loc[after.obs["region"] == section, "instance_id"]
        assert sorted(sdata.shapes[section].index) == sorted(left)
    # what is left can be worked with
    assert [len(s.rows) for s in open_table(sdata).sections] == list(
        after.obs["region"].value_counts()[["S1", "S2"]]
    )
    assert set(sdata.coordinate_systems) == {"S1_um", "S2_um"}
    np.testing.assert_array_equal(after.obs["total_counts"], np.asarray(after.X.sum(1)).ravel())


def test_tissue_fraction_follows_the_picture():
    sdata = stp.datasets.phantom(**FINE, off_tissue=3)
    stp.pp.filter_spots(sdata, min_counts=0, min_tissue_fraction=0.0)
    obs = sdata.tables["table"].obs
    assert obs["on_tissue"].sum() == len(obs) - 3  # nobody was removed
    assert obs.loc[obs["on_tissue"], "tissue_fraction"].min() > 0.3
    assert obs.loc[obs["on_tissue"], "tissue_fraction"].median() > 0.95
    assert obs.loc[~obs["on_tissue"], "tissue_fraction"].max() < 0.1


def test_known_tissue_fraction_is_used():
    sdata = stp.datasets.phantom(**FINE)
    table = sdata.tables["table"]
    table.obs["tissue_fraction"] = np.linspace(0, 1, table.n_obs)
    stp.pp.filter_spots(sdata, min_tissue_fraction=0.5)
    remaining = sdata.tables["table"].obs["tissue_fraction"]
    assert remaining.min() >= 0.5
    assert len(remaining) == table.n_obs // 2


def test_an_image_without_glass_is_all_tissue():
    sdata = stp.datasets.phantom(**FINE)
    dark = sdata.images["S1_image"]
    for scale in dark.children:
        dark[scale].ds["image"].data = dark[scale].ds["image"].data // 3
    stp.pp.filter_spots(sdata)
    assert (sdata.tables["table"].obs["tissue_fraction"] == 1).all()


def test_thresholds():
    sdata = stp.datasets.phantom(**FINE)
    totals = np.asarray(sdata.tables["table"].X.sum(axis=1)).ravel()
    middle = int(np.median(totals)) + 1
    stp.pp.filter_spots(sdata, min_counts=middle, min_tissue_fraction=0.0)
    assert sdata.tables["table"].n_obs == (totals >= middle).sum()
    record = _provenance.recorded(sdata.tables["table"], "filter_spots")
    assert (record["min_counts"], record["min_tissue_fraction"]) == (middle, 0.0)


def test_a_spot_is_counted_under_the_first_reason():
    sdata = stp.datasets.phantom(**FINE, off_tissue=2)
    table = sdata.tables["table"]
    starve(sdata, np.arange(table.n_obs) >= table.n_obs - 2)  # those off the tissue come last
    move(sdata, [table.obs["instance_id"].iloc[-1]], -50.0, 5.0)
    stp.pp.filter_spots(sdata)
    assert removed(sdata) == {"outside_image": 1, "too_few_counts": 1, "off_tissue": 0}


def test_a_second_call_removes_nothing():
    sdata = stp.datasets.phantom(**FINE, off_tissue=2)
    stp.pp.filter_spots(sdata)
    before = list(sdata.tables["table"].obs_names)
    stp.pp.filter_spots(sdata)
    assert list(sdata.tables["table"].obs_names) == before
    assert set(removed(sdata).values()) == {0}


def test_earlier_results_stay_aligned():
    sdata = stp.datasets.phantom(**FINE, off_tissue=2)
    stp.pp.normalize(sdata)
    stp.pp.neighbors(sdata)
    before = sdata.tables["table"].copy()
    stp.pp.filter_spots(sdata)
    after = sdata.tables["table"]
    remaining = before.obs_names.isin(after.obs_names)
    np.testing.assert_array_equal(
        after.layers["log1p"].toarray(), before.layers["log1p"].toarray()[remaining]
    )
    graph = before.obsp["spatial_connectivities"][remaining][:, remaining]
    assert (after.obsp["spatial_connectivities"] != graph).nnz == 0
    assert "neighbors" in after.uns["stpredict"]


def test_copy():
    sdata = stp.datasets.phantom(**FINE, off_tissue=2)
    n, names = sdata.tables["table"].n_obs, list(sdata.shapes["S1"].index)
    columns = list(sdata.tables["table"].obs)
    changed = stp.pp.filter_spots(sdata, copy=True)
    assert isinstance(changed, sd.SpatialData)
    assert changed.tables["table"].n_obs == n - 2
    assert len(changed.shapes["S1"]) == n - 2
    assert sdata.tables["table"].n_obs == n
    assert list(sdata.shapes["S1"].index) == names
    assert list(sdata.tables["table"].obs) == columns
    assert "filter_spots" not in sdata.tables["table"].uns["stpredict"]
    assert stp.pp.filter_spots(sdata) is None


def test_survives_zarr(tmp_path):
    sdata = stp.datasets.phantom(**FINE, off_tissue=2)
    stp.pp.filter_spots(sdata)
    sdata.write(tmp_path / "a.zarr")
    back = sd.read_zarr(tmp_path / "a.zarr")
    table, read = sdata.tables["table"], back.tables["table"]
    assert _provenance.recorded(read, "filter_spots") == _provenance.recorded(table, "filter_spots")
    np.testing.assert_array_equal(table.obs["tissue_fraction"], read.obs["tissue_fraction"])
    stp.pp.filter_spots(back, min_counts=200)  # and can be filtered again


def test_a_section_would_be_left_empty():
    sdata = stp.datasets.phantom(2, **FINE)
    table = sdata.tables["table"]
    starve(sdata, (table.obs["region"] == "S2").to_numpy())
    before, names = list(table.obs), list(sdata.shapes["S1"].index)
    message = (
        r"no spot of section 'S2' would be left: of \d+, \d+ lie in the image, 0 have at least "
        r"min_counts=100 and \d+ lie on tissue"
    )
    with pytest.raises(ValueError, match=message):
        stp.pp.filter_spots(sdata)
    assert sdata.tables["table"] is table
    assert list(table.obs) == before
    assert list(sdata.shapes["S1"].index) == names
    assert "filter_spots" not in table.uns["stpredict"]


@pytest.mark.parametrize("share", [-0.1, 1.5, np.nan])
def test_bad_share(share):
    with pytest.raises(ValueError, match=r"min_tissue_fraction must (lie between 0|be a finite)"):
        stp.pp.filter_spots(stp.datasets.phantom(size_px=600), min_tissue_fraction=share)


def other_table(sdata, name, rows):
    """Add a table of some of the same spots, as predictions are."""
    spots = open_table(sdata)
    table = ad.AnnData(np.ones((len(rows), 1)), obs=spots.table.obs.iloc[rows].copy())
    table.obs["region"] = table.obs["region"].cat.remove_unused_categories()
    names = list(table.obs["region"].cat.categories)
    sdata.tables[name] = TableModel.parse(table, names, "region", "instance_id")


def test_regions_that_are_text_are_filtered_in_table_and_shapes():
    sdata = stp.datasets.phantom(2, **FINE, off_tissue=2)
    table = sdata.tables["table"]
    table.obs["region"] = table.obs["region"].astype(str)
    stp.pp.filter_spots(sdata)
    assert sdata.tables["table"].n_obs == table.n_obs - 4
    assert len(sdata.shapes["S1"]) + len(sdata.shapes["S2"]) == table.n_obs - 4


@pytest.mark.filterwarnings("ignore:The table is annotating:UserWarning")  # spatialdata's
def test_a_failure_changes_nothing(monkeypatch):
    sdata = stp.datasets.phantom(**FINE, off_tissue=2)
    other_table(sdata, "predicted", np.arange(sdata.tables["table"].n_obs))
    del sdata.tables["predicted"].obs["region"]
    table, shapes = sdata.tables["table"], sdata.shapes["S1"]
    columns = list(table.obs)
    with pytest.raises((KeyError, ValueError)):
        stp.pp.filter_spots(sdata)
    assert sdata.tables["table"] is table
    assert sdata.shapes["S1"] is shapes
    assert list(table.obs) == columns
    assert "filter_spots" not in table.uns["stpredict"]


def test_other_tables_lose_the_same_spots(capsys, monkeypatch):
    monkeypatch.setattr(stp.settings, "verbosity", 1)
    sdata = stp.datasets.phantom(2, **FINE, off_tissue=2)
    on_tissue = sdata.tables["table"].obs["on_tissue"].to_numpy()
    other_table(sdata, "predicted", np.arange(len(on_tissue)))
    other_table(sdata, "on_glass", np.flatnonzero(~on_tissue))
    other_table(sdata, "kept", np.flatnonzero(on_tissue)[:3])
    stp.pp.filter_spots(sdata)
    table = sdata.tables["table"]
    assert table.n_obs == on_tissue.sum()
    assert list(sdata.tables["predicted"].obs_names) == list(table.obs_names)
    assert "on_glass" not in sdata.tables
    assert sdata.tables["kept"].n_obs == 3
    assert (
        "the same spots are removed from tables 'predicted', 'on_glass'" in capsys.readouterr().out
    )


@pytest.mark.parametrize(("pitch_um", "least"), [(30.0, 10), (100.0, 100)])
def test_the_default_minimum_depends_on_the_diameter(pitch_um, least):
    # spots of 0.55 pitches: 16 µm as cells, and 55 µm as on Visium
    sdata = stp.datasets.phantom(**FINE | {"pitch_um": pitch_um, "size_px": 1000})
    table = sdata.tables["table"]
    counts = np.zeros(table.shape)
    counts[:, 0] = 1000
    counts[:2, 0] = 9, 99
    table.X = type(table.X)(counts)
    stp.pp.filter_spots(sdata, min_tissue_fraction=0.0)
    assert removed(sdata)["too_few_counts"] == (2 if least == 100 else 1)
    assert _provenance.recorded(sdata.tables["table"], "filter_spots")["min_counts"] == least


@pytest.mark.parametrize("value", [-1, np.nan, np.inf, "5", True])
def test_bad_minimum(value):
    with pytest.raises((ValueError, TypeError), match=r"min_counts must be a .*number"):
        stp.pp.filter_spots(stp.datasets.phantom(size_px=600), min_counts=value)
