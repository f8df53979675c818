"""Weights by which planted kinds of tissue weigh alike."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import scipy.sparse as sp
import spatialdata as sd

import stpredict as stp
from stpredict import _provenance, _sections

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


def test_planted_clusters_weigh_alike_within_each_section(sdata):
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


def test_a_column_instead(sdata):
    table = sdata.tables["table"]
    stp.pp.balance(sdata, by="region_truth")
    total = weights(sdata).groupby(table.obs["region_truth"], observed=True).sum()
    np.testing.assert_allclose(total, table.n_obs / len(total))
    assert _provenance.recorded(table, "balance")["by"] == ["region_truth"]
    assert _provenance.recorded(table, "balance")["n_groups"] == [len(total)]


def test_sections_weigh_alike_whatever_their_size(sdata):
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


# --- clusters of expression and morphology ------------------------------------------------------


class AESTETIK:
    """Stands for aestetik 0.3.1: called as it is, it clusters by the morphology alone."""

    made: ClassVar[list] = []

    def __init__(
        self,
        morphology_weight=1.5,
        n_cluster=7,
        clustering_method="bgm",
        num_repeats_predict=1000,
        random_state=2023,
    ):
        self.n_cluster, self.clustering_method = n_cluster, clustering_method
        self.random_state = random_state

    def fit_predict(self, X, y=None):
        assert X.obs_names.is_unique
        self.spots = X
        self.made.append(self)
        Path("lightning_logs").mkdir()
        print("Epoch 0")
        first = X.obsm["X_pca_morphology"][:, 0]
        return (first > np.median(first)).astype(int).astype(str)


@pytest.fixture
def aestetik(monkeypatch):
    monkeypatch.setitem(sys.modules, "aestetik", SimpleNamespace(AESTETIK=AESTETIK))
    monkeypatch.setattr(AESTETIK, "made", [])
    return AESTETIK.made


def embedded(sdata):
    """Two kinds of tiles, as many of each in every section."""
    table = plant(sdata)
    random = np.random.default_rng(1)
    values = random.normal(0, 0.1, (table.n_obs, 6))
    table.obs["tile"] = np.where(np.arange(table.n_obs) % 3 == 0, "a", "b")
    values[:, 2] += 5 * (table.obs["tile"] == "a")
    table.obsm["X_mine"] = values.astype(np.float32)
    table.uns["stpredict"]["embed"] = {"X_mine": {"tile_um": 50.0}}
    return table


def test_clusters_of_aestetik_weigh_alike(sdata, aestetik, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    table = embedded(sdata)
    stp.pp.balance(sdata, morphology="X_mine", resolution=0.2, seed=4)
    weight = weights(sdata)
    assert not list(tmp_path.iterdir())  # nor anything told
    assert capsys.readouterr().out == ""
    assert [model.n_cluster for model in aestetik] == [3, 3]  # as many as were planted
    assert {model.random_state for model in aestetik} == {4}
    for model, section in zip(aestetik, _sections.sections(sdata), strict=True):
        rows = section.rows
        assert len(model.spots) == len(rows)
        components = model.spots.obsm["X_pca_morphology"]
        first = components[:, 0] > np.median(components[:, 0])
        for cluster in (first, ~first):
            np.testing.assert_allclose(weight.iloc[rows][cluster].sum(), len(rows) / 2)
        # 30 µm apart in their array: neighbours in a row are one step apart
        place = model.spots.obs[["x_array", "y_array"]].to_numpy()
        np.testing.assert_array_equal(place, np.round(place))
        corner = section.centers_um.min(axis=0)
        assert np.abs(place * 30 + corner - section.centers_um).max() <= 15 + 1e-6
    record = _provenance.recorded(table, "balance")
    assert (record["morphology"], record["n_groups"]) == ("X_mine", [2, 2])


def test_the_array_is_that_of_the_slide_where_it_is_known(sdata, aestetik):
    table = embedded(sdata)
    table.obs["array_col"], table.obs["array_row"] = np.arange(table.n_obs), 7
    stp.pp.balance(sdata, morphology="X_mine", resolution=0.2)
    columns = np.concatenate([model.spots.obs["x_array"] for model in aestetik])
    np.testing.assert_array_equal(columns, np.arange(table.n_obs))
    assert (aestetik[0].spots.obs["y_array"] == 7).all()


def test_without_aestetik(sdata, monkeypatch):
    embedded(sdata)
    monkeypatch.setitem(sys.modules, "aestetik", None)
    with pytest.raises(ImportError, match=r'not installed: .* extra "aestetik".*pip install aest'):
        stp.pp.balance(sdata, morphology="X_mine")
    assert unchanged(sdata)


def test_bad_morphology(sdata, aestetik):
    table = embedded(sdata)
    with pytest.raises(KeyError, match=r"no embedding obsm\['X_uni'\]; embeddings: X_mine"):
        stp.pp.balance(sdata, morphology="X_uni")
    with pytest.raises(ValueError, match="give one of by= and morphology=: by='kind', morph"):
        stp.pp.balance(sdata, by="kind", morphology="X_mine")
    table.obsm["X_mine"][3, 1] = np.nan
    with pytest.raises(ValueError, match=r"obsm\['X_mine'\] has 1 values that are NaN"):
        stp.pp.balance(sdata, morphology="X_mine")
    assert not aestetik
    table.obsm["X_mine"] = np.tile(np.arange(6, dtype=np.float32), (table.n_obs, 1))
    with pytest.raises(ValueError, match=r"section 'S1' has no morphology to compare: .* 0 vary"):
        stp.pp.balance(sdata, morphology="X_mine")
    assert unchanged(sdata)


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
        ({"by": "cluster"}, KeyError, "by= names 'cluster', no column of obs: .*region"),
        ({"by": []}, ValueError, "by= is empty"),
        ({"by": "one"}, ValueError, "single group by 'one': there is nothing to balance"),
        ({"by": ["region", "lost"]}, ValueError, r"4 rows have no group in obs\['lost'\]"),
        ({"resolution": 0}, ValueError, "resolution must be a number above 0: 0"),
        (
            {"resolution": 1e-6},
            ValueError,
            "spots of section 'S1' form a single cluster at resolution=1e-06.*by=\"region\"",
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
    with pytest.raises(KeyError, match=r"no layers\['log1p'\].*run stp.pp.normalize first"):
        stp.pp.balance(sdata)
    assert unchanged(sdata)
