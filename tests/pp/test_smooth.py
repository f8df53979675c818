"""Means over neighbours equal a naive loop, and recover planted expression from noise."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import spatialdata as sd

import stpredict as stp
from stpredict._sdata._layer_steps import units_of
from stpredict._sdata._provenance import read_steps
from stpredict._sdata._steps import SmoothStep

SMALL = {"size_px": 700, "mpp": 0.5, "pitch_um": 30.0, "n_morphology": 6, "n_neighborhood": 6}
BOTH = pytest.mark.parametrize("by", ["space", "expression"])


def phantom(seed=0):
    sdata = stp.datasets.phantom(2, **SMALL, n_null=8, seed=seed)
    stp.pp.normalize(sdata)
    stp.pp.neighbors(sdata)
    return sdata


def dense(values):
    return np.asarray(values.toarray() if sp.issparse(values) else values)


def naive(values, neighbors):
    """Mean of every row and its neighbours."""
    return np.stack([values[[row, *others]].mean(axis=0) for row, others in enumerate(neighbors)])


def nearest(values, region, k):
    """The k rows of the same section that are nearest in 20 components."""
    neighbors = []
    for row in range(len(values)):
        same = np.flatnonzero(region == region[row])
        centered = values[same] - values[same].mean(axis=0)
        left, scale, _ = np.linalg.svd(centered, full_matrices=False)
        components = (left * scale)[:, :19]
        self_index = np.flatnonzero(same == row)[0]
        distances = np.linalg.norm(components - components[self_index], axis=1)
        distances[self_index] = np.inf
        neighbors.append(same[np.argsort(distances)[:k]])
    return neighbors


@pytest.mark.parametrize("make", [sp.csr_matrix, sp.csc_matrix, sp.csr_array, np.asarray])
def test_in_space(sdata, make):
    table = sdata.tables["table"]
    values = table.layers["log1p"].toarray()
    table.layers["log1p"] = make(values)
    stp.pp.smooth(sdata)
    smoothed = table.layers["smoothed"]
    assert smoothed.dtype == np.float32
    assert sp.issparse(smoothed) == sp.issparse(make(values))
    graph = table.obsp["spatial_connectivities"].toarray()
    expected = naive(values.astype(float), [np.flatnonzero(row) for row in graph])
    np.testing.assert_allclose(dense(smoothed), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(dense(table.layers["log1p"]), values)
    assert read_steps(table).smooth["smoothed"] == SmoothStep("smoothed", "log1p", "space")


@pytest.mark.parametrize("k", [1, 7])
def test_in_expression(sdata, k):
    table = sdata.tables["table"]
    table.layers["log1p"] = values = table.layers["log1p"].toarray()
    region = table.obs["region"].astype(str).to_numpy()
    stp.pp.smooth(sdata, by="expression", n_neighbors=k, key_added="alike")
    expected = naive(values.astype(float), nearest(values.astype(float), region, k))
    same = np.isclose(table.layers["alike"], expected, rtol=1e-4, atol=1e-5).all(axis=1)
    assert same.mean() > 0.99  # rounding may swap the last neighbours of a spot
    expected = SmoothStep("alike", "log1p", "expression", n_neighbors=k)
    assert read_steps(table).smooth["alike"] == expected


def test_self_links_links_between_sections_and_weights_are_ignored(sdata):
    table = sdata.tables["table"]
    stp.pp.smooth(sdata)
    expected = dense(table.layers["smoothed"])
    graph = table.obsp["spatial_connectivities"].tolil()
    graph.setdiag(5)
    graph[0, table.n_obs - 1] = 1  # nor one to another section
    graph = graph.tocsr() * 3  # nor does the weight of a link
    table.obsp["spatial_connectivities"] = graph
    stp.pp.smooth(sdata)
    np.testing.assert_allclose(dense(table.layers["smoothed"]), expected, rtol=1e-5)


def test_a_spot_without_neighbors_keeps_its_values(sdata):
    table = sdata.tables["table"]
    table.obsp["spatial_connectivities"] = sp.csr_matrix((table.n_obs, table.n_obs))
    stp.pp.smooth(sdata)
    np.testing.assert_allclose(dense(table.layers["smoothed"]), dense(table.layers["log1p"]))


@BOTH
def test_sections_are_smoothed_separately(sdata, by):
    table = sdata.tables["table"]
    alone = sdata.subset(["S2", "S2_image"])
    alone.tables["table"] = alone.tables["table"].copy()
    rows = (table.obs["region"] == "S2").to_numpy()
    for both in (sdata, alone):
        stp.pp.smooth(both, by=by)
    np.testing.assert_allclose(
        dense(table.layers["smoothed"])[rows],
        dense(alone.tables["table"].layers["smoothed"]),
        rtol=1e-5,
    )


def test_planted_patterns_are_recovered_from_noise(sdata):
    table = sdata.tables["table"]
    random = np.random.default_rng(0)
    x, y = table.obsm["spatial"].T / 700
    field = np.stack([np.sin(3 * x), np.cos(3 * y)], axis=1) @ random.normal(size=(2, 20))
    kinds = random.normal(size=(3, 20))[random.integers(0, 3, table.n_obs)]  # dealt at random
    for by, truth, helps in (
        ("space", field, True),
        ("space", kinds, False),
        ("expression", kinds, True),
    ):
        table.layers["noisy"] = truth + random.normal(size=truth.shape)
        stp.pp.smooth(sdata, layer="noisy", by=by)
        raw, smoothed = (
            ((table.layers[layer] - truth) ** 2).mean() for layer in ("noisy", "smoothed")
        )
        assert (smoothed < raw / 3) == helps


@BOTH
def test_unsorted_indices_stay_with_their_values(sdata, by):
    table = sdata.tables["table"]
    stp.pp.smooth(sdata, by=by, key_added="reference")
    values = table.layers["log1p"]
    for start, stop in zip(values.indptr[:-1], values.indptr[1:], strict=True):
        values.indices[start:stop] = values.indices[start:stop][::-1].copy()
        values.data[start:stop] = values.data[start:stop][::-1].copy()
    values.has_sorted_indices = False
    before = values.indices.copy()
    stp.pp.smooth(sdata, by=by)
    np.testing.assert_allclose(
        dense(table.layers["smoothed"]), dense(table.layers["reference"]), rtol=1e-5
    )
    np.testing.assert_array_equal(table.layers["log1p"].indices, before)


def test_copy_and_zarr(sdata, tmp_path):
    changed = stp.pp.smooth(sdata, layer=None, by="expression", copy=True)
    assert "smoothed" not in sdata.tables["table"].layers
    assert "smooth" not in sdata.tables["table"].uns["stpredict"]
    assert stp.pp.smooth(sdata) is None
    stp.pp.smooth(changed, key_added="near")
    changed.write(tmp_path / "a.zarr")
    table, back = changed.tables["table"], sd.read_zarr(tmp_path / "a.zarr").tables["table"]
    for layer in ("smoothed", "near"):
        np.testing.assert_array_equal(dense(back.layers[layer]), dense(table.layers[layer]))
        assert read_steps(back).layer(layer) == read_steps(table).layer(layer)


def units(table, layer):
    return units_of(table, layer)


def test_units_follow_the_step_that_wrote_the_layer_last(sdata):
    table = sdata.tables["table"]
    stp.pp.smooth(sdata)
    assert units(table, "smoothed") == "log(1 + counts per 10,000), smoothed"
    stp.pp.rank_expression(sdata, layer="smoothed")
    assert units(table, "ranks") == "rank of smoothed values among 20 (ties: average)"
    stp.pp.rank_expression(sdata, key_added="smoothed")
    assert units(table, "smoothed") == "rank among 20 (ties: average)"
    stp.pp.smooth(sdata)
    assert units(table, "smoothed") == "log(1 + counts per 10,000), smoothed"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"by": "time"}, ValueError, "by='time' is not one of 'space', 'expression'"),
        ({"n_neighbors": 5}, ValueError, "n_neighbors=5 requires by='expression'"),
        ({"by": "expression", "n_neighbors": 0}, ValueError, "of at least 1: 0"),
        (
            {"by": "expression", "n_neighbors": 2.5},
            ValueError,
            "n_neighbors must be a whole number or None: 2.5",
        ),
        ({"by": "expression", "n_neighbors": 9999}, ValueError, r"'S1' has \d+ spots, too few for"),
        ({"layer": "counts"}, KeyError, r"layers has no 'counts'"),
        ({"key_added": "log1p"}, ValueError, "would overwrite the layer it is computed from"),
        ({"layer": None, "key_added": "log1p"}, ValueError, "or that of stp.pp.normalize"),
    ],
)
def test_bad_input(sdata, options, error, message):
    before = set(sdata.tables["table"].layers)
    with pytest.raises(error, match=message):
        stp.pp.smooth(sdata, **options)
    assert set(sdata.tables["table"].layers) == before
    assert "smooth" not in sdata.tables["table"].uns["stpredict"]


@BOTH
def test_layers_that_cannot_be_smoothed(sdata, by):
    table = sdata.tables["table"]
    table.layers["log1p"].data[3] = np.nan
    with pytest.raises(ValueError, match=r"layers\['log1p'\] has 1 values that are NaN"):
        stp.pp.smooth(sdata, by=by)
    assert "smoothed" not in table.layers


def test_missing_inputs_are_reported(sdata):
    table = sdata.tables["table"]
    del table.obsp["spatial_connectivities"]
    with pytest.raises(
        KeyError, match=r"no neighbourhood graph obsp.*: run stp\.pp\.neighbors first"
    ):
        stp.pp.smooth(sdata)
    table.layers["log1p"] = np.ones(table.shape)
    with pytest.raises(ValueError, match=r"section 'S1' has no expression to compare: .* 0 vary"):
        stp.pp.smooth(sdata, by="expression")
    assert "smoothed" not in table.layers


def colour(tiles):
    return tiles.mean((-2, -1))


def fit(sdata, layer, context):
    stp.pp.embed(sdata, colour, key_added="X_colour", tile_um=40, n_subtiles=1)
    return stp.tl.fit_deepspot(
        sdata,
        embedding="X_colour",
        context=context,
        genes=sdata.tables["table"].var_names[:3],
        layer=layer,
        network=stp.tl.DeepSpotNetwork(n_hidden=4, n_phi=1, n_rho=1, n_networks=1),
        schedule=stp.tl.Schedule(max_epochs=1),
    )


def test_prepare_repeats_a_chain_of_steps(sdata):
    stp.pp.smooth(sdata)
    stp.pp.rank_expression(sdata, layer="smoothed", key_added="mine")
    model = fit(sdata, "mine", "spot_neighbors")
    new, by_hand = (stp.datasets.phantom(2, **SMALL, n_null=8, seed=1) for _ in range(2))
    stp.pp.prepare(new, model, encoder=colour)
    stp.pp.normalize(by_hand)
    stp.pp.neighbors(by_hand)
    stp.pp.smooth(by_hand)
    stp.pp.rank_expression(by_hand, layer="smoothed", key_added="mine")
    for layer in ("smoothed", "mine"):
        np.testing.assert_array_equal(
            dense(new.tables["table"].layers[layer]), dense(by_hand.tables["table"].layers[layer])
        )


def test_prepare_logs_that_it_cannot_smooth(sdata, monkeypatch, capsys):
    stp.pp.smooth(sdata)
    model = fit(sdata, "smoothed", "spot")  # which needs no graph
    monkeypatch.setattr(stp.settings, "verbosity", 1)
    new = stp.datasets.phantom(2, **SMALL, n_null=8, seed=1)
    stp.pp.prepare(new, model, encoder=colour)
    assert "no neighbourhood graph" in capsys.readouterr().out
    assert "smoothed" not in new.tables["table"].layers
    stp.pp.smooth(sdata, by="expression", n_neighbors=50)
    model = fit(sdata, "smoothed", "spot")
    table = new.tables["table"]
    new.tables["table"] = table[
        (np.arange(table.n_obs) < 40) | (table.obs["region"] == "S2")
    ].copy()
    stp.pp.prepare(new, model, encoder=colour)
    assert "'S1' has 40 spots, too few for 50 neighbours" in capsys.readouterr().out
