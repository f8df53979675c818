"""AnnData with pixel positions, read with its image."""

from __future__ import annotations

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import spatialdata as sd
from PIL import Image

import stpredict as stp
from stpredict._sdata._spot_table import open_table


def random_pixels(height=200, width=260, channels=3, dtype=np.uint8, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, np.iinfo(dtype).max, (height, width, channels), dtype=dtype)


def only_section(sdata):
    (section,) = open_table(sdata).sections
    return section


def png(path, pixels):
    Image.fromarray(pixels).save(path)


def cells(n=30, *, height=180, width=260, dense=False):
    rng = np.random.default_rng(5)
    counts = rng.poisson(1.0, (n, 4))
    return ad.AnnData(
        counts.astype(np.float32) if dense else sp.csr_matrix(counts, dtype=np.int64),
        obs=pd.DataFrame(
            {
                "column": rng.uniform(height, width, n),  # all beyond the image's height
                "row": rng.uniform(0, height, n),
                "cluster": pd.Categorical(rng.choice(["a", "b"], n)),
                "region": "somewhere",
            },
            index=[f"cell{i}" for i in range(n)],
        ),
        var=pd.DataFrame({"symbol": list("ABCD")}, index=[f"ENSG{i}" for i in range(4)]),
    )


OPTIONS = {"section": "X1", "mpp": 0.5, "diameter_um": 10.0}


@pytest.fixture
def picture(tmp_path):
    png(tmp_path / "X1.png", random_pixels(180, 260))
    return tmp_path / "X1.png"


@pytest.mark.parametrize("dense", [True, False])
def test_counts_columns_and_positions_are_read(tmp_path, picture, dense):
    table = cells(dense=dense)
    table.write_h5ad(tmp_path / "X1.h5ad")
    sdata = stp.io.read_h5ad(
        tmp_path / "X1.h5ad", picture, x="column", y="row", patient="P7", **OPTIONS
    )
    section = only_section(sdata)
    read = sdata.tables["table"]
    np.testing.assert_allclose(section.centers, table.obs[["column", "row"]])
    np.testing.assert_allclose(section.radius_um, 5)
    assert section.mpp == 0.5
    np.testing.assert_array_equal(read.X.toarray(), table.X if dense else table.X.toarray())
    assert list(read.var["symbol"]) == list("ABCD")
    assert list(read.var_names) == list(table.var_names)
    assert list(read.obs["cluster"]) == list(table.obs["cluster"])
    assert set(read.obs["region"]) == {"X1"}
    assert set(read.obs["patient"]) == {"P7"}
    assert list(read.obs["instance_id"]) == list(table.obs_names)


def test_positions_default_to_obsm(picture):
    table = cells()
    table.obsm["spatial"] = table.obs[["column", "row"]].to_numpy()
    before = table.copy()
    section = only_section(stp.io.read_h5ad(table, picture, **OPTIONS))
    np.testing.assert_allclose(section.centers, table.obsm["spatial"])
    pd.testing.assert_frame_equal(before.obs, table.obs)  # the input is unchanged


def nan_position(table):
    table.obs.iloc[2, 0] = np.nan


def negative_counts(table):
    table.X = table.X - sp.csr_matrix(np.eye(30, 4, dtype=np.int64) * 50)


def nan_counts(table):
    counts = table.X.toarray().astype(float)
    counts[0, 0] = np.nan
    table.X = counts


def repeated_ids(table):
    table.obs_names = ["cell1", *table.obs_names[1:]]


@pytest.mark.parametrize(
    ("spoil", "options", "error", "message"),
    [
        (None, {"x": "row", "y": "column"}, ValueError, "30 of 30 spots .* Are x and y swapped"),
        (None, {}, KeyError, r"no obsm\['spatial'\]. Set x= and y=, columns of obs: column, row"),
        (None, {"x": "column"}, ValueError, "set both x= and y=, or neither: x='column', y=None"),
        (
            None,
            {"x": "column", "y": "Row"},
            KeyError,
            "obs has no Row; it has column",
        ),
        (nan_position, {"x": "column", "y": "row"}, ValueError, "1 of 30 spots .* NaN positions"),
        (negative_counts, {"x": "column", "y": "row"}, ValueError, "4 are negative"),
        (nan_counts, {"x": "column", "y": "row"}, ValueError, "1 values are NaN"),
        (repeated_ids, {"x": "column", "y": "row"}, ValueError, "not unique, repeated: cell1"),
        (None, {"x": "column", "y": "row", "mpp": 0}, ValueError, "mpp must be a number above 0"),
        (
            None,
            {"x": "column", "y": "row", "mpp": "0.25"},
            TypeError,
            "mpp must be a finite number",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:Observation names are not unique:UserWarning")
def test_bad_input_raises(picture, spoil, options, error, message):
    table = cells()
    if spoil:
        spoil(table)
    with pytest.raises(error, match=message):
        stp.io.read_h5ad(table, picture, **{**OPTIONS, **options})


def test_malformed_counts_raise_before_they_are_used(tmp_path, picture):
    cells().write_h5ad(tmp_path / "X1.h5ad")
    with h5py.File(tmp_path / "X1.h5ad", "a") as file:
        file["X/indices"][3] = 10**9
    with pytest.raises(
        ValueError, match=r"values of section 'X1' is malformed \(indices must be < 4"
    ):
        stp.io.read_h5ad(tmp_path / "X1.h5ad", picture, x="column", y="row", **OPTIONS)


def test_repeated_entries_are_added_before_logarithms_are_taken(picture):
    table = cells(n=2)
    table.X = sp.csr_matrix(([1, 2, 5], [0, 0, 3], [0, 2, 3]), shape=(2, 4))
    read = stp.io.read_h5ad(table, picture, x="column", y="row", **OPTIONS).tables["table"]
    assert list(read.X.data) == [3, 5]


def test_counts_above_float32_raise(picture):
    table = cells(n=1)
    table.X = np.full((1, 4), 1e39)
    with pytest.raises(ValueError, match=r"values of section 'X1' .* 4 values are NaN or infinite"):
        stp.io.read_h5ad(table, picture, x="column", y="row", **OPTIONS)


def test_a_damaged_file_is_named(tmp_path, picture):
    cells().write_h5ad(tmp_path / "X1.h5ad")
    content = (tmp_path / "X1.h5ad").read_bytes()
    (tmp_path / "X1.h5ad").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"X1.h5ad cannot be read \(.*Check that it is complete"):
        stp.io.read_h5ad(tmp_path / "X1.h5ad", picture, **OPTIONS)


def test_positions_that_are_text_raise(picture):
    table = cells()
    table.obs["row"] = "top"
    with pytest.raises(TypeError, match="column 'row' of obs must have numbers, not top, top"):
        stp.io.read_h5ad(table, picture, x="column", y="row", **OPTIONS)


def test_cells_without_a_position_in_the_image_can_be_dropped(
    tmp_path, picture, capsys, monkeypatch
):
    monkeypatch.setattr(stp.settings, "verbosity", 1)
    table = cells()
    table.obs.iloc[2, 0] = np.nan
    table.obs.iloc[5, 0] = 261
    with pytest.raises(ValueError, match=r'2 of 30 spots .*To drop such spots: outside="drop"'):
        stp.io.read_h5ad(table, picture, x="column", y="row", **OPTIONS)
    sdata = stp.io.read_h5ad(table, picture, x="column", y="row", outside="drop", **OPTIONS)
    assert "X1: 2 of 30 spots or cells have no position in the image" in capsys.readouterr().out
    keep = np.setdiff1d(np.arange(30), [2, 5])
    read = sdata.tables["table"]
    assert list(read.obs["instance_id"]) == list(table.obs_names[keep])
    np.testing.assert_array_equal(read.X.toarray(), table.X.toarray()[keep])
    np.testing.assert_allclose(only_section(sdata).centers, table.obs[["column", "row"]].iloc[keep])
    sdata.write(tmp_path / "a.zarr")
    back = sd.read_zarr(tmp_path / "a.zarr").tables["table"]
    for each in (read, back):
        assert list(each.uns["stpredict"]["outside_image"]["X1"]) == ["cell2", "cell5"]


def test_dropping_most_cells_raises(picture):
    options = {**OPTIONS, "outside": "drop"}
    with pytest.raises(ValueError, match=r"30 of 30 spots .* Are x and y swapped\?$"):
        stp.io.read_h5ad(cells(), picture, x="row", y="column", **options)
    with pytest.raises(ValueError, match="outside='keep' is not one of 'error', 'drop'"):
        stp.io.read_h5ad(cells(), picture, x="column", y="row", **{**options, "outside": "keep"})


def test_a_table_without_cells_raises(picture):
    with pytest.raises(ValueError, match="section 'X1' has no spots"):
        stp.io.read_h5ad(cells()[:0].copy(), picture, x="column", y="row", **OPTIONS)
