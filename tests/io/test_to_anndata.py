"""Export to AnnData: spots on small images, as squidpy draws them."""

from __future__ import annotations

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pytest
import squidpy as sq
from matplotlib.collections import PatchCollection

import stpredict as stp
from stpredict._sdata._spot_table import copy_of, open_table
from stpredict.io._shared import _small


@pytest.fixture(scope="module")
def predicted():
    """Two sections of different size, with predictions."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stp.settings, "verbosity", 0)
        sdata = stp.datasets.phantom(2, size_px=(700, 1100), mpp=0.5, pitch_um=40.0)
        stp.pp.normalize(sdata)
        stp.pp.embed(sdata, lambda tiles: tiles.mean((-2, -1)), key_added="X_colour", tile_um=40)
        model = stp.tl.fit_ridge(
            sdata, embedding="X_colour", context="spot", genes=["morphology_001"], alpha=1.0
        )
        stp.tl.predict(sdata, model)
    return sdata


@pytest.fixture
def sdata(predicted):
    return copy_of(predicted)


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def circles_of(ax):
    (circles,) = [part for part in ax.collections if isinstance(part, PatchCollection)]
    return circles


def test_squidpy_draws_predictions_of_one_section(sdata):
    one = sdata.subset(["S1", "S1_image"])
    adata = stp.io.to_anndata(one, table_name="predicted")
    sq.pl.spatial_scatter(adata, color="morphology_001")
    ax = plt.gca()
    assert ax.get_title() == "morphology_001"
    assert ax.images[0].get_array().shape[:2] == (700, 1100)
    circles = circles_of(ax)
    np.testing.assert_allclose(circles.get_array(), np.asarray(adata.X)[:, 0], rtol=1e-6)
    center = circles.get_paths()[0].get_extents()
    expected = open_table(one).sections[0]
    np.testing.assert_allclose((center.p0 + center.p1) / 2, expected.centers[0], atol=1)
    np.testing.assert_allclose(center.width, 2 * expected.radius_um[0] / expected.mpp, rtol=0.1)


def test_squidpy_draws_each_section_on_its_image(sdata):
    adata = stp.io.to_anndata(sdata)
    sq.pl.spatial_scatter(adata, color="morphology_001", library_key="region")
    drawn = [ax for ax in plt.gcf().axes if ax.images and ax.collections]
    assert len(drawn) == 2
    for ax, name in zip(drawn, ["S1", "S2"], strict=True):
        assert len(circles_of(ax).get_array()) == (adata.obs["region"] == name).sum()


def test_large_images_are_reduced_and_positions_still_fit(sdata, monkeypatch):
    monkeypatch.setattr(_small, "_MAX_PX", 300)
    adata = stp.io.to_anndata(sdata)
    library = adata.uns["spatial"]["S1"]
    image, scale = library["images"]["hires"], library["scalefactors"]["tissue_hires_scalef"]
    assert image.dtype == np.uint8
    assert max(image.shape[:2]) <= 300
    np.testing.assert_allclose(np.array([1100, 700]) * scale, image.shape[1::-1], atol=1)
    section = open_table(sdata).sections[0]
    full = np.asarray(section.levels[0]).transpose(1, 2, 0).astype(float)
    x, y = section.centers.round().astype(int).T
    small_x, small_y = (section.centers * scale).astype(int).T
    correlation = np.corrcoef(full[y, x].ravel(), image[small_y, small_x].ravel())[0, 1]
    assert correlation > 0.6


def test_the_object_does_not_change_and_the_export_is_written(sdata, tmp_path):
    before = set(sdata.tables["predicted"].uns)
    adata = stp.io.to_anndata(sdata, table_name="predicted")
    assert set(sdata.tables["predicted"].uns) == before
    adata.write_h5ad(tmp_path / "predicted.h5ad")


def test_squidpy_draws_a_written_file_without_further_arguments(sdata, tmp_path):
    one = sdata.subset(["S1", "S1_image"])
    stp.io.to_anndata(one, table_name="predicted").write_h5ad(tmp_path / "predicted.h5ad")
    adata = ad.read_h5ad(tmp_path / "predicted.h5ad")
    sq.pl.spatial_scatter(adata, color="morphology_001")
    ax = plt.gca()
    assert ax.images[0].get_array().shape[:2] == (700, 1100)
    expected = np.asarray(one["predicted"].X)[:, 0]
    np.testing.assert_allclose(circles_of(ax).get_array(), expected, rtol=1e-6)
    center = circles_of(ax).get_paths()[0].get_extents()
    section = open_table(one).sections[0]
    np.testing.assert_allclose((center.p0 + center.p1) / 2, section.centers[0], atol=1)


def test_a_table_that_does_not_exist_is_refused(sdata):
    with pytest.raises(KeyError, match="tables has no 'other'"):
        stp.io.to_anndata(sdata, table_name="other")
