"""Readers on real sections, if they are stored next to the checkout."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pytest

import stpredict as stp
from stpredict._sdata._spot_table import open_table

DATA = Path(__file__).parents[3] / "shared" / "data"


def folder(name):
    path = DATA / name
    if not path.is_dir():
        pytest.skip(f"no real data: ../shared/data/{name}")
    return path


def only_section(sdata):
    (section,) = open_table(sdata).sections
    return section


@pytest.fixture(scope="module")
def her2st():
    return stp.datasets.her2st(["C2", "C3", "C4", "C5"], directory=folder("her2st"))


def test_her2st_has_its_known_geometry(her2st):
    stp.pp.neighbors(her2st)
    table = her2st.tables["table"]
    assert table.uns["stpredict"]["neighbors"]["grid"] == "square"
    for section in open_table(her2st).sections:
        # the pitch is about 291 px = 200 µm in all of them
        assert section.mpp == pytest.approx(200 / 291, rel=0.01)
        assert min(section.shape_yx) > 9000
        assert len(section.levels) >= 4
        assert 150 < len(section.rows) < 250
        np.testing.assert_allclose(section.radius_um, 50)
        per_spot = np.diff(table.obsp["spatial_connectivities"][section.rows].indptr)
        assert np.median(per_spot) >= 7
        assert per_spot.max() <= 8
        pitches = table.obsp["spatial_distances"][section.rows].data
        assert np.median(pitches[pitches < 240]) == pytest.approx(200, rel=0.03)


def test_her2st_sections_are_combined(her2st):
    table = her2st.tables["table"]
    names = [section.name for section in open_table(her2st).sections]
    assert names == ["C2", "C3", "C4", "C5"]
    assert set(table.obs["patient"]) == {"C"}
    assert "ERBB2" in table.var_names
    assert table.var_names.is_unique
    assert np.isfinite(table.X.data).all()


def test_her2st_spots_lie_on_tissue():
    """A spot's tile is darker than the glass in the corners of the image."""
    sdata = stp.datasets.her2st("C5", directory=folder("her2st"))
    section = only_section(sdata)
    coarse = section.levels[-1].compute()
    scale = section.shape_yx[1] / coarse.shape[2]
    x, y = (section.centers / scale).astype(int).T
    glass = np.concatenate([coarse[1, :20, :20].ravel(), coarse[1, -20:, -20:].ravel()])
    assert np.median(coarse[1, y, x]) < np.median(glass) - 30


XENIUM = {"section": "NCBI858", "mpp": 2.0, "diameter_um": 10.0}


def test_xenium_cells_lie_on_nuclei():
    path = folder("xenium_ncbi858")
    # in this file x_pixel is the row
    sdata = stp.io.read_h5ad(
        path / "NCBI858.h5ad", path / "NCBI858.jpg", x="y_pixel", y="x_pixel", **XENIUM
    )
    section = only_section(sdata)
    assert section.shape_yx == (1249, 1431)
    assert len(section.rows) == 200
    red = section.levels[0].compute()[0]
    x, y = section.centers.astype(int).T
    assert np.median(red[y, x]) < np.median(red) - 10  # haematoxylin takes red away
    table = ad.read_h5ad(path / "NCBI858.h5ad")
    assert sdata.tables["table"].n_vars == table.n_vars
    assert "gene_name" in sdata.tables["table"].var


def test_xenium_swapped_axes_raise():
    path = folder("xenium_ncbi858")
    with pytest.raises(ValueError, match=r"lie outside the image of 1431 × 1249.*x and y swapped"):
        stp.io.read_h5ad(
            path / "NCBI858.h5ad", path / "NCBI858.jpg", x="x_pixel", y="y_pixel", **XENIUM
        )


def test_an_implausible_scale_of_real_cells_is_reported():
    path = folder("xenium_ncbi858")
    options = {"x": "y_pixel", "y": "x_pixel", **XENIUM, "mpp": 0.25}
    message = r"at 0.25 µm per pixel details .* 0.41 µm wide; about 1.8 µm per pixel are expected"
    with pytest.warns(UserWarning, match=message):
        stp.io.read_h5ad(path / "NCBI858.h5ad", path / "NCBI858.jpg", **options)


def test_visium_spots_have_the_printed_distances():
    sdata = stp.io.read_visium(folder("visium_tiny"), section="V1")
    section = only_section(sdata)
    table = sdata.tables["table"]
    assert table.shape == (100, 100)
    np.testing.assert_allclose(section.radius_um, 27.5)
    # Space Ranger's file has spots of 65 µm that are 89.43 px wide; the array agrees within 1 %
    assert section.mpp == pytest.approx(65 / 89.4275 / 0.150015, rel=0.01)
    # on the array, the six nearest printed spots are 100 µm apart
    array = table.obs[["array_row", "array_col"]].to_numpy()
    for i in range(len(array)):
        step = np.abs(array - array[i])
        ring = (step == [0, 2]).all(axis=1) | (step == [1, 1]).all(axis=1)
        apart = np.linalg.norm(section.centers_um[ring] - section.centers_um[i], axis=1)
        np.testing.assert_allclose(apart, 100, rtol=0.03)
