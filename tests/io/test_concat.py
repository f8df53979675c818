"""Several sections become one object with one table."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
from spatialdata.transformations import (
    get_transformation,
)

import stpredict as stp
from stpredict._sdata._spot_table import layer_names, open_table
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


def test_columns_that_one_section_lacks_are_kept_with_missing_values_and_reported(tmp_path):
    first, second = small("S1", patient="P1"), small("S2", patient="P2")
    table = second.tables["table"]
    del table.obs["patient"]
    first.tables["table"].obs["flag"] = True
    first.tables["table"].obs["depth"] = 3
    first.tables["table"].obs["note"] = ["a", "b", "c", "d", "e"]
    with pytest.warns(UserWarning, match=r"missing values: obs\['patient'\] of S2, obs\['flag'\]"):
        together = stp.io.concat([first, second])
    together.write(tmp_path / "a.zarr")
    for sdata in (together, sd.read_zarr(tmp_path / "a.zarr")):
        obs = sdata.tables["table"].obs
        for column, value in (("patient", "P1"), ("flag", True), ("depth", 3), ("note", "a")):
            assert obs[column].iloc[0] == value
            assert obs[column].isna().tolist() == [False] * 5 + [True] * 5


def test_a_split_of_combined_sections_refuses_a_missing_patient():
    first, second, third = (small(f"S{i}", patient="P1", n=12) for i in (1, 2, 3))
    del third.tables["table"].obs["patient"]
    with pytest.warns(UserWarning, match=r"obs\['patient'\] of S3"):
        together = stp.io.concat([first, second, third])
    for groups in (None, "region"):
        with pytest.raises(ValueError, match=r"12 rows have no patient in obs\['patient'\]"):
            stp.tl.cross_validate(together, {"ridge": stp.tl.fit_ridge}, groups=groups)


def test_slots_that_one_section_lacks_are_left_out_and_reported():
    first, second = small("S1"), small("S2")
    for sdata, width in ((first, 2), (second, 3)):
        sdata.tables["table"].obsm["X_a"] = np.ones((5, width), dtype=np.float32)
    first.tables["table"].layers["mine"] = np.ones((5, 3), dtype=np.float32)
    first.tables["table"].var["selected"] = [True, False, True]
    second.tables["table"].var["selected"] = [False, True, True]
    message = (
        r"left out: layers\['mine'\] \(not in S2\), obsm\['X_a'\] \(sections differ in width\), "
        r"var\['selected'\] \(sections differ\)"
    )
    with pytest.warns(UserWarning, match=message):
        table = stp.io.concat([first, second]).tables["table"]
    assert set(table.obsm) == {"spatial"}
    assert "selected" not in table.var
    assert layer_names(table) == []
    assert "mine" in first.tables["table"].layers


def test_layers_normalised_differently_are_reported():
    first, second = small("S1"), small("S2")
    stp.pp.normalize(first, target_sum=1e4)
    stp.pp.normalize(second, target_sum=1e6)
    with pytest.warns(UserWarning, match="steps run differently: normalize"):
        stp.io.concat([first, second])


def test_graphs_are_kept_block_by_block():
    parts = [small("S1"), small("S2", mpp=2.01)]  # the measured distances differ a little
    for part in parts:
        stp.pp.neighbors(part, n_neighbors=2)
    together = stp.io.concat(parts)
    graph = open_table(together).graph.toarray()
    for number, part in enumerate(parts):
        rows = slice(5 * number, 5 * number + 5)
        np.testing.assert_array_equal(graph[rows, rows], open_table(part).graph.toarray())
    assert graph.sum() == sum(open_table(part).graph.sum() for part in parts)
    assert open_table(together).steps.neighbors is not None


def test_gene_columns_of_the_outer_join_come_from_the_section_that_lists_the_gene():
    parts = [small("S1", "AB"), small("S2", "BC")]
    for part, ids in zip(parts, (["1", "2"], ["2", "3"]), strict=True):
        part.tables["table"].var["gene_ids"] = ids
    var = stp.io.concat(parts, join="outer").tables["table"].var
    assert var["gene_ids"].sort_index().tolist() == ["1", "2", "3"]


def test_the_result_shares_no_table_and_no_shapes_with_its_sections():
    one, two = small("S1"), small("S2")
    single = stp.io.concat([one])
    assert single is not one
    for together in (single, stp.io.concat([one, two])):
        stp.pp.realign(together, sections=["S1"], shift_um=(4, 2))
        together.tables["table"].obs["mine"] = 1
    assert "mine" not in one.tables["table"].obs
    assert "Scale" in type(get_transformation(one.shapes["S1"], "S1_um")).__name__


def test_spots_of_the_same_name_are_refused():
    first, second = small("a"), small("a_b")
    first.tables["table"].obs_names = [f"a_b_s{i}" for i in range(5)]
    with pytest.raises(ValueError, match=r"names of spots .* not unique over the sections.*a_b_s0"):
        stp.io.concat([first, second])


def test_predictions_keep_missing_values_for_genes_of_other_models():
    parts = [small("S1"), small("S2")]
    for part, genes in zip(parts, ("AB", "BC"), strict=True):
        spots = open_table(part)
        predicted = ad.AnnData(
            np.ones((5, 2), dtype=np.float32), spots.table.obs.copy(), pd.DataFrame(index=[*genes])
        )
        spots.add_table("predicted", predicted)
    table = stp.io.concat(parts, join="outer").tables["predicted"]
    assert np.isnan(table.to_df()).sum().to_dict() == {"A": 5, "B": 0, "C": 5}


def test_other_arguments_are_refused():
    with pytest.raises(TypeError, match=r"sdatas must be a list of SpatialData objects, not Spat"):
        stp.io.concat(small("S1"))
    with pytest.raises(TypeError, match="sdatas must be a list of SpatialData objects, not list"):
        stp.io.concat(["S1"])
    with pytest.raises(ValueError, match="join='left' is not one of"):
        stp.io.concat([small("S1"), small("S2")], join="left")
