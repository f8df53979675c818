"""Several sections become one object with one table."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
from spatialdata.transformations import (
    get_transformation,
)

import stpredict as stp
from stpredict._sdata._spot_table import open_table
from stpredict.io._shared._assemble import assemble_section


def random_pixels(height=200, width=260, channels=3, dtype=np.uint8, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, np.iinfo(dtype).max, (height, width, channels), dtype=dtype)


def small(name="S1", genes=("A", "B", "C"), *, n=5, mpp=2.0, patient=None, **options):
    rng = np.random.default_rng(len(genes))
    return assemble_section(
        name,
        image=random_pixels(60, 80),
        counts=rng.poisson(3.0, (n, len(genes))),
        obs_names=[f"s{i}" for i in range(n)],
        var_names=list(genes),
        positions=rng.uniform(5, 55, (n, 2)),
        mpp=mpp,
        diameter_um=10,
        patient=patient,
        **options,
    )


def test_sections_survive_zarr(tmp_path):
    sdata = stp.io.concat([small("S1", patient="P1"), small("S2", mpp=0.7, patient="P2")])
    sdata.write(tmp_path / "a.zarr")
    back = sd.read_zarr(tmp_path / "a.zarr")
    table, read = sdata.tables["table"], back.tables["table"]
    assert (table.X != read.X).nnz == 0
    np.testing.assert_array_equal(table.obsm["spatial"], read.obsm["spatial"])
    for column in table.obs:
        assert list(table.obs[column].astype(str)) == list(read.obs[column].astype(str))
    for name in ("S1", "S2"):
        pd.testing.assert_series_equal(
            sdata.shapes[name]["radius"], back.shapes[name]["radius"], check_index_type=False
        )
        assert set(get_transformation(back.images[f"{name}_image"], get_all=True)) == {f"{name}_um"}
    assert [s.mpp for s in open_table(back).sections] == [2.0, 0.7]


def test_the_inner_join_keeps_shared_genes():
    together = stp.io.concat(
        [small("S1", "ABC", patient="P1"), small("S2", "BCD", patient="P2")], join="inner"
    )
    table = together.tables["table"]
    assert set(together.shapes) == {"S1", "S2"}
    assert set(together.images) == {"S1_image", "S2_image"}
    assert list(table.var_names) == ["B", "C"]
    assert table.obs_names.is_unique
    assert [s.name for s in open_table(together).sections] == ["S1", "S2"]
    assert list(table.obs["patient"].unique()) == ["P1", "P2"]


def test_the_outer_join_fills_with_zeros():
    parts = [small("S1", "ABC"), small("S2", "BCD")]
    table = stp.io.concat(parts, join="outer").tables["table"]
    assert sorted(table.var_names) == list("ABCD")
    counts = table.to_df()
    assert (counts.loc[table.obs["region"] == "S1", "D"] == 0).all()
    assert (counts.loc[table.obs["region"] == "S2", "A"] == 0).all()
    for part in parts:
        expected = part.tables["table"].to_df()
        pd.testing.assert_frame_equal(
            counts.loc[expected.index, expected.columns], expected, check_dtype=False
        )
    assert np.isfinite(table.X.toarray()).all()


def test_bad_input_raises():
    with pytest.raises(ValueError, match="no sections to combine"):
        stp.io.concat([])
    with pytest.raises(ValueError, match="section names are not unique, repeated: S1"):
        stp.io.concat([small("S1"), small("S1", "AB")])
    with pytest.raises(ValueError, match=r"no gene in common.* Ensembl"):
        stp.io.concat([small("S1", "ABC"), small("S2", "XYZ")])
