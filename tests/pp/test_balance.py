"""Planted kinds of tissue get equal weight."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import spatialdata as sd

import stpredict as stp
from stpredict._sdata import _provenance

SMALL = {"size_px": 800, "mpp": 0.5, "pitch_um": 30.0, "n_morphology": 3, "n_neighborhood": 3}


def phantom():
    sdata = stp.datasets.phantom(2, **SMALL, n_null=6)
    stp.pp.normalize(sdata)
    return sdata


def plant(sdata, shares=(0.6, 0.25, 0.15)):
    """Three kinds of spots far apart in expression, dealt at random in every section."""
    table = sdata.tables["table"]
    random = np.random.default_rng(0)
    kind = np.empty(table.n_obs, dtype=int)
    for name in ("S1", "S2"):
        rows = np.flatnonzero((table.obs["region"] == name).to_numpy())
        kind[rows] = random.choice(len(shares), len(rows), p=shares)
    values = random.normal(3, 0.1, table.shape)
    values[:, : len(shares)] += 4 * np.eye(len(shares))[kind]
    table.layers["log1p"] = values.astype(np.float32)
    table.obs["kind"] = [f"kind {number}" for number in kind]
    return table


def weights(sdata):
    weight = sdata.tables["table"].obs["sampling_weight"]
    assert weight.dtype == np.float64
    assert (weight > 0).all()
    assert weight.mean() == pytest.approx(1)
    return weight


def test_planted_clusters_get_equal_weight_within_each_section(sdata):
    table = plant(sdata)
    stp.pp.balance(sdata, resolution=0.2)
    weight = weights(sdata)
    total = weight.groupby([table.obs["region"].astype(str), table.obs["kind"]]).sum()
    for name in ("S1", "S2"):
        n = (table.obs["region"] == name).sum()
        np.testing.assert_allclose(total[name], n / 3)  # and the section as much as it has spots
    record = _provenance.recorded(table, "balance")
    assert record["n_groups"] == [3, 3]
    assert record["resolution"] == 0.2
    assert "by" not in record


def test_sparse_and_dense_layers_give_the_same_weights(sdata):
    table = plant(sdata)
    stp.pp.balance(sdata, resolution=0.2)
    dense = weights(sdata).to_numpy()
    layer = sp.csr_matrix(table.layers["log1p"])
    for start, stop in zip(layer.indptr[:-1], layer.indptr[1:], strict=True):
        layer.indices[start:stop] = layer.indices[start:stop][::-1].copy()
        layer.data[start:stop] = layer.data[start:stop][::-1].copy()
    layer.has_sorted_indices = False
    before = layer.copy()
    table.layers["log1p"] = layer
    stp.pp.balance(sdata, resolution=0.2)
    np.testing.assert_allclose(weights(sdata), dense)
    np.testing.assert_array_equal(table.layers["log1p"].indices, before.indices)


def test_the_same_seed_gives_the_same_weights(sdata):
    stp.pp.balance(sdata, seed=3)
    first = weights(sdata).to_numpy()
    stp.pp.balance(sdata, seed=3)
    np.testing.assert_array_equal(weights(sdata), first)


def test_groups_of_a_column_get_equal_weight(sdata):
    table = sdata.tables["table"]
    stp.pp.balance(sdata, by="region_truth")
    total = weights(sdata).groupby(table.obs["region_truth"], observed=True).sum()
    np.testing.assert_allclose(total, table.n_obs / len(total))
    assert _provenance.recorded(table, "balance")["by"] == ["region_truth"]
    assert _provenance.recorded(table, "balance")["n_groups"] == [len(total)]


def test_sections_get_equal_weight_regardless_of_size(sdata):
    table = sdata.tables["table"]
    keep = np.flatnonzero(
        (table.obs["region"] == "S1").to_numpy() | (np.arange(table.n_obs) % 3 == 0)
    )
    sdata.tables["table"] = table = table[keep].copy()
    stp.pp.balance(sdata, by="region")
    total = weights(sdata).groupby(table.obs["region"], observed=True).sum()
    np.testing.assert_allclose(total, table.n_obs / 2)


def test_several_columns_are_combined(sdata):
    table = plant(sdata)
    del table.layers["log1p"]  # not needed
    stp.pp.balance(sdata, by=("region", "kind"))
    columns = [table.obs["region"].astype(str), table.obs["kind"]]
    np.testing.assert_allclose(weights(sdata).groupby(columns).sum(), table.n_obs / 6)


def test_the_table_is_not_copied(sdata):
    table = sdata.tables["table"]
    values, layer = table.X, table.layers["log1p"]
    stp.pp.balance(sdata, by="region")
    assert sdata.tables["table"] is table
    assert table.X is values
    assert table.layers["log1p"] is layer


def test_copy_and_zarr(sdata, tmp_path):
    changed = stp.pp.balance(sdata, by=["region", "region_truth"], copy=True)
    assert "sampling_weight" not in sdata.tables["table"].obs
    assert stp.pp.balance(sdata, by="region") is None
    changed.write(tmp_path / "a.zarr")
    back = sd.read_zarr(tmp_path / "a.zarr")
    np.testing.assert_array_equal(weights(back), weights(changed))
    assert _provenance.recorded(back.tables["table"], "balance") == _provenance.recorded(
        changed.tables["table"], "balance"
    )


def unchanged(sdata):
    table = sdata.tables["table"]
    return "sampling_weight" not in table.obs and "balance" not in table.uns["stpredict"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"by": "cluster"}, KeyError, "obs has no 'cluster'; available: .*region"),
        ({"by": []}, ValueError, "by= is empty"),
        ({"by": "one"}, ValueError, "all rows are in a single group by one"),
        ({"by": ["region", "lost"]}, ValueError, r"4 rows have no group in obs\['lost'\]"),
        ({"seed": -1}, ValueError, "seed must be a whole number of at least 0: -1"),
        ({"resolution": 0}, ValueError, "resolution must be a number above 0: 0"),
        (
            {"resolution": 1e-6},
            ValueError,
            "section 'S1' forms a single cluster at resolution=1e-06.*or by=",
        ),
    ],
)
def test_bad_input(sdata, options, error, message):
    obs = sdata.tables["table"].obs
    obs["one"] = "same"
    obs["lost"] = obs["region"].astype(object).where(np.arange(len(obs)) >= 4)
    with pytest.raises(error, match=message):
        stp.pp.balance(sdata, **options)
    assert unchanged(sdata)


def test_layers_that_cannot_be_clustered(sdata):
    table = sdata.tables["table"]
    table.layers["log1p"] = np.ones(table.shape, dtype=np.float32)
    with pytest.raises(ValueError, match=r"section 'S1' has no expression to compare: .* 0 vary"):
        stp.pp.balance(sdata)
    table.layers["log1p"][5, 2] = np.nan
    with pytest.raises(ValueError, match=r"layers\['log1p'\] has 1 values that are NaN"):
        stp.pp.balance(sdata)
    del table.layers["log1p"]
    with pytest.raises(KeyError, match=r"layers has no 'log1p'.*run stp.pp.normalize first"):
        stp.pp.balance(sdata)
    assert unchanged(sdata)
