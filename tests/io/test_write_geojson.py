"""Spots as QuPath's detections: outlines, values, and files that are complete or unchanged."""

from __future__ import annotations

import json

import geopandas as gpd
import numpy as np
import pytest
import shapely
from spatialdata.models import ShapesModel
from spatialdata.transformations import get_transformation

import stpredict as stp
from stpredict._sdata._spot_table import open_table

GENES = ["morphology_001", "null_001"]


@pytest.fixture
def sdata(monkeypatch):
    monkeypatch.setattr(stp.settings, "verbosity", 0)
    return stp.datasets.phantom(2, size_px=600, mpp=0.5, pitch_um=40, n_morphology=2, n_null=1)


def test_features_are_those_of_qupath(sdata, tmp_path):
    path = tmp_path / "S2.geojson"
    stp.io.write_geojson(sdata, path, section="S2", genes=GENES)
    collection = json.loads(path.read_text())
    assert collection["type"] == "FeatureCollection"
    rows = np.flatnonzero(sdata["table"].obs["region"] == "S2")
    assert len(collection["features"]) == len(rows)
    expected = sdata["table"][rows, GENES].X.toarray()
    for feature, values, name in zip(
        collection["features"], expected, sdata["table"].obs["instance_id"].iloc[rows], strict=True
    ):
        assert feature["type"] == "Feature"
        assert feature["geometry"]["type"] == "Polygon"
        ring = feature["geometry"]["coordinates"][0]
        assert ring[0] == ring[-1]
        properties = feature["properties"]
        assert properties["objectType"] == "detection"
        assert properties["name"] == name
        assert properties["classification"] == {"name": "table", "color": [31, 119, 180]}
        assert list(properties["measurements"]) == GENES
        np.testing.assert_allclose(list(properties["measurements"].values()), values, rtol=1e-5)


def test_geopandas_reads_the_outlines_in_pixels(sdata, tmp_path):
    path = tmp_path / "S1.geojson"
    stp.pp.realign(sdata, shift_um=(6.0, -4.0))
    stp.io.write_geojson(sdata, path, section="S1", genes=GENES[0])
    outlines = gpd.read_file(path).set_crs(None, allow_override=True)  # GeoJSON has degrees
    section = open_table(sdata).sections[0]
    centers = np.column_stack([outlines.centroid.x, outlines.centroid.y])
    np.testing.assert_allclose(centers, section.centers, atol=0.02)
    radius_px = section.radius_um / section.mpp
    np.testing.assert_allclose(outlines.area, np.pi * radius_px**2, rtol=0.01)


def test_outlines_of_cells_are_kept(sdata, tmp_path):
    shapes = sdata.shapes["S1"]
    squares = shapely.box(
        shapes.geometry.x - 9, shapes.geometry.y - 5, shapes.geometry.x + 9, shapes.geometry.y + 5
    )
    cells = gpd.GeoDataFrame(geometry=squares, index=shapes.index)
    to_um = get_transformation(shapes, get_all=True)
    del sdata.shapes["S1"]
    sdata.shapes["S1"] = ShapesModel.parse(cells, transformations=to_um)
    path = tmp_path / "S1.geojson"
    stp.io.write_geojson(sdata, path, section="S1")
    outlines = gpd.read_file(path)
    np.testing.assert_allclose(outlines.bounds, shapely.bounds(squares), atol=0.01)
    measurements = json.loads(path.read_text())["features"][0]["properties"]["measurements"]
    assert list(measurements) == sdata["table"].var_names.tolist()


def test_missing_values_are_left_out(sdata, tmp_path):
    values = sdata["table"].X.toarray()
    values[0, 0] = np.nan
    sdata["table"].X = values
    path = tmp_path / "S1.geojson"
    stp.io.write_geojson(sdata, path, section="S1", genes=GENES)
    features = json.loads(path.read_text())["features"]
    assert list(features[0]["properties"]["measurements"]) == GENES[1:]
    assert list(features[1]["properties"]["measurements"]) == GENES


def test_a_file_is_complete_or_unchanged(sdata, tmp_path, monkeypatch):
    path = tmp_path / "S1.geojson"
    path.write_text("an older file")

    def fail(*args, **options):
        raise OSError("the disk is full")

    monkeypatch.setattr(json, "dumps", fail)
    with pytest.raises(OSError, match="the disk is full"):
        stp.io.write_geojson(sdata, path, section="S1")
    assert path.read_text() == "an older file"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, ValueError, r"has 2 sections \(S1, S2\): name one with section="),
        ({"section": "S3"}, ValueError, "section='S3' is not one of 'S1', 'S2'"),
        ({"section": "S1", "genes": ["ERBB2"]}, KeyError, "1 of 1 genes are not in the table"),
        ({"section": "S1", "table_name": "predicted"}, KeyError, "run stp.tl.predict first"),
    ],
)
def test_bad_input_writes_nothing(sdata, tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        stp.io.write_geojson(sdata, tmp_path / "spots.geojson", **options)
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_is_named(sdata, tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist: create it first"):
        stp.io.write_geojson(sdata, tmp_path / "missing" / "spots.geojson", section="S1")
    with pytest.raises(IsADirectoryError, match="is a folder: give the name of a file"):
        stp.io.write_geojson(sdata, tmp_path, section="S1")
