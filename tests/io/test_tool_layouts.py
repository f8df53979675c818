"""Predictions in the layouts in which other tools write them are matched and scored."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
import zarr

import stpredict as stp
from stpredict._sdata._spot_table import copy_of, open_table

GENES = ["morphology_001", "neighborhood_001", "null_001", "not_measured"]
TILE_PX, MPP = 80, 0.5  # larger than spots, so that each has one tile


@pytest.fixture(scope="module")
def measured():
    """A section with pixels of 0.5 µm."""
    sdata = stp.datasets.phantom(
        1, size_px=900, mpp=MPP, pitch_um=40.0, n_morphology=20, n_neighborhood=2, n_null=2
    )
    stp.pp.normalize(sdata)
    return sdata


@pytest.fixture
def sdata(measured):
    return copy_of(measured)


@pytest.fixture(scope="module")
def corners():
    """Upper left corners of the tiles in pixels of the slide, (n, 2)."""
    steps = np.arange(0, 900 - TILE_PX, TILE_PX)
    # off the grid of the spots, so that no two tiles are equally near
    return np.stack(np.meshgrid(steps + 6, steps + 14), axis=-1).reshape(-1, 2)


@pytest.fixture(scope="module")
def expression(corners):
    return np.random.default_rng(0).normal(size=(len(corners), len(GENES))).astype(np.float32)


def nearest(sdata, corners, expression):
    """Prediction of the tile whose centre is nearest to each spot."""
    centers = open_table(sdata).sections[0].centers
    distance = np.linalg.norm(centers[:, None] - (corners + TILE_PX / 2)[None], axis=-1)
    return expression[distance.argmin(axis=1)]


def check(sdata, corners, expression):
    """All spots have the values of their tiles, and are scored."""
    table, expected = sdata["external"], nearest(sdata, corners, expression)
    assert table.obs_names.equals(sdata["table"].obs_names)
    assert table.var_names.tolist() == GENES[:3]
    np.testing.assert_allclose(table.X, expected[:, :3], atol=1e-6)
    scores = stp.tl.evaluate(sdata, "external")
    assert scores.protocol.n_spots == table.n_obs
    assert np.isfinite(scores.values("pcc")["external"]).all()


def test_a_file_of_deepspotm(sdata, corners, expression, tmp_path):
    """One file per slide, with corners in ``obs`` and centres in ``obsm``."""
    obs = pd.DataFrame(
        {"x": corners[:, 0], "y": corners[:, 1]}, index=[f"slide_{x}_{y}" for x, y in corners]
    )
    table = ad.AnnData(expression, obs=obs, var=pd.DataFrame(index=GENES))
    table.obsm["spatial"] = (corners + TILE_PX / 2).astype(float)
    table.uns["deepspotm"] = {"slide": "slide.svs", "tile_px": TILE_PX, "expression": "log1p-CPM"}
    table.write_h5ad(tmp_path / "slide.h5ad")
    stp.io.read_predictions(sdata, {"S1": tmp_path / "slide.h5ad"}, training_sections=[])
    check(sdata, corners, expression)


def test_features_of_tiatoolbox(sdata, corners, expression, tmp_path):
    """A zarr group of features and corners at the resolution of reading, without gene names."""
    read_mpp = 2 * MPP
    group = zarr.open_group(tmp_path / "slide.zarr", mode="w")
    bounds = np.concatenate([corners, corners + TILE_PX], axis=1) * MPP / read_mpp
    for name, values in (("features", expression), ("coordinates", bounds.astype(int))):
        group.create_array(name, data=values)

    output = zarr.open_group(tmp_path / "slide.zarr", mode="r")
    bounds = output["coordinates"][:]
    table = ad.AnnData(output["features"][:], var=pd.DataFrame(index=GENES))
    table.obsm["spatial"] = (bounds[:, :2] + bounds[:, 2:]) / 2
    stp.io.read_predictions(sdata, {"S1": table}, mpp=read_mpp, training_sections=[])
    check(sdata, corners, expression)


def of_omicverse(corners, expression):
    """A table of numbered tiles that annotates no shapes, with their centres in pixels."""
    obs = pd.DataFrame(
        {"tile_id": np.arange(len(corners)), "library_id": "tiles"},
        index=np.arange(len(corners)).astype(str),
    )
    table = ad.AnnData(expression, obs=obs, var=pd.DataFrame(index=GENES))
    table.obsm["spatial"] = (corners + TILE_PX / 2).astype(np.float32)
    table.uns["histo"] = {"method": "stpath", "fm_backbone": "gigapath"}
    return table


@pytest.mark.parametrize("is_in_slide", [False, True])
def test_a_table_of_omicverse(sdata, corners, expression, is_in_slide):
    table, options = of_omicverse(corners, expression), {}
    if is_in_slide:
        table, options = sd.SpatialData(tables={"stpath_tiles": table}), {"key": "stpath_tiles"}
    stp.io.read_predictions(sdata, {"S1": table}, training_sections=[], **options)
    check(sdata, corners, expression)


def of_stpath(sdata):
    """Numbered rows in the order of the spots given, whose positions are shifted and rescaled."""
    section = open_table(sdata).sections[0]
    shifted = section.centers - section.centers.min(axis=0)
    values = np.random.default_rng(1).normal(size=(len(section.rows), len(GENES)))
    table = ad.AnnData(values.astype(np.float32))
    table.var_names = pd.Index(GENES)
    table.obsm["coordinates"] = 100 * shifted / shifted.max()
    return table


def test_a_result_of_stpath_needs_the_names_or_positions_of_its_rows(sdata):
    table, section = of_stpath(sdata), open_table(sdata).sections[0]
    with pytest.raises(ValueError, match=r"STPath rescales obsm\['coordinates'\]: set obs_names"):
        stp.io.read_predictions(sdata, {"S1": table})
    assert list(sdata.tables) == ["table"]
    named, placed = table.copy(), table.copy()
    named.obs_names = sdata["table"].obs_names[section.rows]
    placed.obsm["spatial"] = section.centers
    for changed in (named, placed):
        stp.io.read_predictions(sdata, {"S1": changed}, training_sections=[])
        expected = table[:, GENES[:3]].X
        np.testing.assert_allclose(sdata["external"].X[section.rows], expected, atol=1e-6)
