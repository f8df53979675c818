"""Attribution: planted effects are recovered, sums are complete, errors write nothing."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import spatialdata as sd
import torch

import stpredict as stp
from helpers import colour
from stpredict._sdata._pixels import stream_tiles
from stpredict._sdata._spot_table import copy_of, open_table
from stpredict.models import _attribution
from stpredict.training import pad_neighbors

EMBED = {"key_added": "X_colour", "tile_um": 40, "n_subtiles": 2}
DEEPSPOT = stp.tl.DeepSpotNetwork(n_hidden=16, n_phi=3, n_rho=3, n_networks=1)
#: As by default, but short.
DEEPCELL_SCHEDULE = stp.tl.Schedule(max_epochs=3, learning_rate=1e-4, batch_size=256, patch_size=64)
PIXELS = {
    "tile_um": 40.0,
    "schedule": stp.tl.Schedule(
        max_epochs=2, batch_size=32, learning_rate=3e-3, weight_decay=1e-4, monitor="loss"
    ),
    "device": "cpu",
}


def fit_deepspot(sdata, *, max_epochs=3, **options):
    return stp.tl.fit_deepspot(
        sdata,
        embedding="X_colour",
        network=DEEPSPOT,
        schedule=stp.tl.Schedule(max_epochs=max_epochs),
        device="cpu",
        **options,
    )


def fit_deepcell(sdata, *, aggregation):
    network = stp.tl.DeepCellNetwork(n_hidden=16, n_phi=3, n_rho=3, aggregation=aggregation)
    return stp.tl.fit_deepcell(
        sdata, embedding="X_colour", network=network, schedule=DEEPCELL_SCHEDULE, device="cpu"
    )


def fit_cnn(sdata, **options):
    return stp.tl.fit_cnn(sdata, network=stp.tl.CNNNetwork(tile_px=24), **PIXELS, **options)


@pytest.fixture(scope="module")
def sections():
    """Two sections with embeddings and graph; the genes and their kinds in var."""
    sdata = stp.datasets.phantom(
        2,
        size_px=800,
        mpp=0.5,
        pitch_um=40.0,
        n_morphology=3,
        n_neighborhood=3,
        n_null=2,
        counts_per_spot=20_000,
    )
    stp.pp.normalize(sdata)
    stp.pp.select_genes(sdata, list(sdata.tables["table"].var_names))
    stp.pp.embed(sdata, colour, **EMBED)
    stp.pp.neighbors(sdata)
    return sdata


@pytest.fixture
def sdata(sections):
    return copy_of(sections)


@pytest.fixture(scope="module")
def ridge(sections):
    return stp.tl.fit_ridge(sections, context="spot_subspot_neighbors", embedding="X_colour")


@pytest.fixture(scope="module")
def cnn(sections):
    return fit_cnn(sections)


def attributed(sdata, model, gene, **options):
    """Predict and attribute; return the attributions and their record."""
    stp.tl.predict(sdata, model, device="cpu")
    assert stp.tl.attribute(sdata, model, gene, device="cpu", **options) is None
    predicted = sdata.tables["predicted"]
    key = f"attribution_{gene}"
    return predicted.obsm[key], predicted.uns["stpredict"]["attribute"][key]


def predict_baseline(model, table, graph):
    """Predict from the mean training embedding in place of every input."""
    n, k = table.n_obs, graph.shape[1]
    inputs = {"center": np.tile(model.inputs.mean, (n, 1))}
    if model.uses_subtiles:
        inputs["subtiles"] = np.tile(model.subtiles.mean, (n, EMBED["n_subtiles"] ** 2, 1))
    if model.uses_neighbors:
        inputs |= {"neighbors": np.tile(model.inputs.mean, (n, k, 1)), "neighbor_mask": graph >= 0}
    return model.predict_array(**inputs, device="cpu")


# ---- oracles -------------------------------------------------------------------------------


def test_attributions_of_a_linear_model_are_coefficient_times_difference(sdata, ridge):
    gene = "neighborhood_002"
    shares, record = attributed(sdata, ridge, gene, n_steps=2)
    table, predicted = sdata.tables["table"], sdata.tables["predicted"]
    place = ridge.genes.index(gene)
    weight = (
        ridge.network.linear.weight.detach().numpy()[place] * ridge.targets.standard.scale[place]
    )
    of_center, of_subtiles, of_neighbors = np.split(weight, 3)
    center = ridge.inputs.transform(table.obsm["X_colour"])
    subtiles = ridge.subtiles.transform(table.obsm["X_colour_subtiles"])
    np.testing.assert_allclose(shares["spot"], center @ of_center, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        shares.filter(like="subtile"), subtiles @ of_subtiles, rtol=1e-4, atol=1e-6
    )
    graph = table.obsp["spatial_connectivities"]
    each = predicted.obsp[f"attribution_{gene}"]
    for row in (0, 17, table.n_obs - 1):
        near = graph[[row]].indices
        expected = center[near] @ of_neighbors / len(near)
        np.testing.assert_allclose(each[[row]].toarray()[0, near], expected, rtol=1e-4, atol=1e-6)
    assert record["gap"] < 1e-4
    assert record["units"] == ridge.units


def test_only_neighbours_in_the_graph_are_attributed(sdata, ridge):
    shares, _ = attributed(sdata, ridge, "morphology_001", n_steps=2)
    table, predicted = sdata.tables["table"], sdata.tables["predicted"]
    each = predicted.obsp["attribution_morphology_001"]
    assert sp.issparse(each)
    assert each.dtype == shares["spot"].dtype == np.float32
    graph = table.obsp["spatial_connectivities"]
    assert set(zip(*each.nonzero(), strict=True)) == set(zip(*graph.nonzero(), strict=True))
    summed = np.asarray(each.sum(axis=1)).ravel()
    np.testing.assert_allclose(summed, shares["neighbors"], rtol=1e-4, atol=1e-6)
    columns = ["spot", *(f"subtile_{i}" for i in range(1, 5)), "neighbors"]
    assert shares.columns.tolist() == columns


@pytest.mark.parametrize(
    ("fit", "options"),
    [
        (fit_deepspot, {"context": "spot_subspot_neighbors"}),
        (fit_deepspot, {"context": "spot", "targets": "svd", "n_factors": 2}),
        (fit_deepspot, {"context": "spot_neighbors", "targets": "nmf", "n_factors": 2}),
        (fit_deepspot, {"context": "spot_subspot", "targets": "autoencoder", "n_factors": 2}),
        (fit_deepspot, {"context": "spot_neighbors", "loss": "poisson", "layer": None}),
        (fit_deepcell, {"aggregation": "sum"}),
        (fit_deepcell, {"aggregation": "max"}),
    ],
)
def test_attributions_sum_to_the_difference_from_the_baseline(sdata, fit, options):
    model = fit(sdata, **options)
    gene = "morphology_001"
    shares, record = attributed(sdata, model, gene, n_steps=200)
    graph = pad_neighbors(sdata.tables["table"].obsp["spatial_connectivities"])
    place = model.genes.index(gene)
    predicted = np.asarray(sdata.tables["predicted"].X)[:, place]
    difference = predicted - predict_baseline(model, sdata.tables["table"], graph)[:, place]
    assert difference.std() > 1e-3
    miss = np.abs(shares.sum(axis=1) - difference).to_numpy()
    scale = np.maximum(np.abs(difference), predicted.std())
    assert (miss / scale).max() == pytest.approx(record["gap"], rel=0.05, abs=1e-4)
    assert record["gap"] < 0.05
    assert ("neighbors" in shares) == model.uses_neighbors
    assert (f"attribution_{gene}" in sdata.tables["predicted"].obsp) == model.uses_neighbors


def test_a_spot_without_neighbours_has_no_attribution_to_them(sdata):
    model = fit_deepspot(sdata, context="spot_neighbors")
    for key in ("spatial_connectivities", "spatial_distances"):
        graph = sdata.tables["table"].obsp[key].tolil()
        graph[3] = 0
        graph[:, 3] = 0
        sdata.tables["table"].obsp[key] = graph.tocsr()
    shares, _ = attributed(sdata, model, "morphology_001")
    assert shares["neighbors"].iloc[3] == 0
    assert sdata.tables["predicted"].obsp["attribution_morphology_001"][[3]].nnz == 0
    assert shares["spot"].iloc[3] != 0


@pytest.mark.parametrize("average", [False, True])
def test_attributions_of_pixels_sum_to_the_difference_from_glass(sdata, average):
    check_pixels(sdata, fit_cnn(sdata, average_symmetries=average))


def test_pixels_of_several_scales_are_attributed(sdata):
    network = stp.tl.MultiScaleNetwork(
        tile_px=24, widths=(4, 4, 8), n_tile=8, n_subtile=8, n_subtiles=2
    )
    schedule = replace(PIXELS["schedule"], weight_decay=1e-3, decay="cosine", monitor="spearman")
    options = PIXELS | {"network": network, "schedule": schedule}
    check_pixels(sdata, stp.tl.fit_multiscale(sdata, **options))


def check_pixels(sdata, model):
    table = sdata.tables["table"]
    spots = [table.obs_names[i] for i in (40, 3, table.n_obs - 2)]
    maps, record = attributed(sdata, model, "morphology_002", spots=spots)
    assert maps.shape == (table.n_obs, 24**2)
    assert np.flatnonzero(np.diff(maps.indptr)).tolist() == [3, 40, table.n_obs - 2]
    assert record["baseline"] == "white"
    assert record["gap"] < 0.05
    place = model.genes.index("morphology_002")
    glass = np.full((1, 3, 24, 24), 255, dtype=np.uint8)
    baseline = model.predict_array(glass, device="cpu")[0, place]
    rows = table.obs_names.get_indexer(spots)
    predicted = np.asarray(sdata.tables["predicted"].X)[:, place]
    difference = predicted[rows] - baseline
    total = np.asarray(maps[rows].sum(axis=1)).ravel()
    scale = np.maximum(np.abs(difference), predicted.std())
    assert (np.abs(total - difference) / scale).max() < 0.05


def test_maps_have_the_orientation_of_the_tiles(sdata, cnn):
    """Glass has no attribution, and the rows and columns of a map are those of the tile."""
    section = open_table(sdata).sections[0]
    tiles = np.empty((sdata.tables["table"].n_obs, 3, 24, 24), dtype=np.uint8)
    for rows, batch in stream_tiles([section], cnn.recipe.tiles, description=""):
        tiles[rows] = batch.numpy()
    half = tiles[section.rows[5:7]].copy()
    half[:, :, :10] = 255  # the upper rows
    place = cnn.genes.index("morphology_001")
    batches = [(np.arange(2), torch.from_numpy(half))]
    (part,) = _attribution.of_tiles(cnn, batches, place=place, n_steps=20, device="cpu")
    assert (part.shares[0][:, :10] == 0).all()
    assert (part.shares[0][:, 10:] != 0).any(axis=(1, 2)).all()
    # whole tiles are stored in the same order
    names = list(sdata.tables["table"].obs_names[section.rows[5:7]])
    maps, _ = attributed(sdata, cnn, "morphology_001", spots=names, n_steps=100)
    whole = [(np.arange(2), torch.from_numpy(tiles[section.rows[5:7]]))]
    (part,) = _attribution.of_tiles(cnn, whole, place=place, n_steps=100, device="cpu")
    stored = maps[section.rows[5:7]].toarray().reshape(2, 24, 24)
    np.testing.assert_allclose(stored, part.shares[0], rtol=1e-3, atol=1e-6)


def test_the_planted_neighbourhood_is_recovered():
    sdata = stp.datasets.phantom(
        3,
        size_px=1000,
        mpp=0.5,
        pitch_um=40.0,
        n_morphology=6,
        n_neighborhood=6,
        n_null=2,
        counts_per_spot=20_000,
    )
    stp.pp.normalize(sdata)
    stp.pp.select_genes(sdata, list(sdata.tables["table"].var_names))
    stp.pp.embed(sdata, "texture", tile_um=40, n_subtiles=1)
    stp.pp.neighbors(sdata)
    model = stp.tl.fit_deepspot(
        sdata,
        context="spot_neighbors",
        network=stp.tl.DeepSpotNetwork(n_hidden=32, n_phi=3, n_rho=3, n_networks=1),
        schedule=stp.tl.Schedule(learning_rate=3e-3, max_epochs=40),
        device="cpu",
    )
    share = {}
    stp.tl.predict(sdata, model, device="cpu")
    for kind in ("morphology", "neighborhood"):
        for gene in (f"{kind}_001", f"{kind}_002", f"{kind}_003"):
            stp.tl.attribute(sdata, model, gene, section="S2", device="cpu")
            size = sdata.tables["predicted"].obsm[f"attribution_{gene}"].abs().mean()
            share[gene] = size["neighbors"] / size.sum()
    of_neighborhood = [value for gene, value in share.items() if gene.startswith("neigh")]
    of_morphology = [value for gene, value in share.items() if gene.startswith("morph")]
    assert min(of_neighborhood) > max(of_morphology), share


# ---- contract ------------------------------------------------------------------------------


def test_only_the_requested_spots_are_attributed(sdata, ridge):
    shares, _ = attributed(sdata, ridge, "morphology_001", section="S2", n_steps=1)
    table = sdata.tables["table"]
    of_second = (table.obs["region"] == "S2").to_numpy()
    np.testing.assert_array_equal(shares.notna().all(axis=1), of_second)
    np.testing.assert_array_equal(shares.isna().all(axis=1), ~of_second)
    each = sdata.tables["predicted"].obsp["attribution_morphology_001"]
    assert (np.diff(each.indptr) > 0)[~of_second].sum() == 0
    spots = list(table.obs_names[[7, 2]])
    shares, _ = attributed(sdata, ridge, "morphology_001", spots=spots, n_steps=1)
    assert np.flatnonzero(shares["spot"].notna()).tolist() == [2, 7]


def test_small_batches_give_the_same_attributions(sdata, monkeypatch):
    model = fit_deepspot(sdata, context="spot_subspot_neighbors")
    some = {"spots": list(sdata.tables["table"].obs_names[:3]), "n_steps": 200}
    whole, _ = attributed(sdata, model, "morphology_001", **some)
    # fewer tiles at once than one spot has in all steps
    monkeypatch.setattr(_attribution, "_EMBEDDINGS", 100)
    parts, _ = attributed(sdata, model, "morphology_001", **some)
    np.testing.assert_allclose(parts, whole, rtol=1e-3, atol=1e-5)


def test_several_genes_are_attributed_in_one_table(sdata, ridge):
    attributed(sdata, ridge, "morphology_001", n_steps=1)
    stp.tl.attribute(sdata, ridge, "null_001", n_steps=1)
    predicted = sdata.tables["predicted"]
    stp.tl.attribute(sdata, ridge, "null_001", n_steps=1, key_added="mine")
    records = predicted.uns["stpredict"]["attribute"]
    for gene in ("morphology_001", "null_001"):
        assert records[f"attribution_{gene}"]["gene"] == gene
        assert f"attribution_{gene}" in predicted.obsm
    assert records["mine"]["gene"] == "null_001"
    pd.testing.assert_frame_equal(predicted.obsm["mine"], predicted.obsm["attribution_null_001"])
    assert "mine" in predicted.obsp


def test_each_model_is_attributed_in_its_own_table(sdata, ridge):
    other = stp.tl.fit_ridge(sdata, context="spot", embedding="X_colour")
    stp.tl.predict(sdata, ridge)
    stp.tl.predict(sdata, other, key_added="other")
    stp.tl.attribute(sdata, other, "null_001", n_steps=1, key="other")
    assert "attribution_null_001" in sdata.tables["other"].obsm
    assert "attribution_null_001" not in sdata.tables["predicted"].obsm
    refused(sdata, other, ValueError, "holds other predictions than this model's")


@pytest.mark.parametrize("kind", ["ridge", "cnn"])
def test_attributions_survive_writing_and_reading(sdata, kind, request, tmp_path):
    model = request.getfixturevalue(kind)
    spots = list(sdata.tables["table"].obs_names[:3])
    before, record = attributed(sdata, model, "morphology_001", spots=spots)
    sdata.write(tmp_path / "new.zarr")
    read = sd.read_zarr(tmp_path / "new.zarr").tables["predicted"]
    after = read.obsm["attribution_morphology_001"]
    if kind == "ridge":
        pd.testing.assert_frame_equal(after, before)
        each = sdata.tables["predicted"].obsp["attribution_morphology_001"]
        assert (read.obsp["attribution_morphology_001"] != each).nnz == 0
    else:
        np.testing.assert_array_equal(after.toarray(), before.toarray())
        np.testing.assert_array_equal(after.indptr, before.indptr)
    stored = read.uns["stpredict"]["attribute"]["attribution_morphology_001"]
    assert {name: stored[name] for name in record} == record
    one = sdata.subset(["S1", "S1_image"]).tables["predicted"]
    assert one.obsm["attribution_morphology_001"].shape == (one.n_obs, before.shape[1])


def test_characters_that_are_not_allowed_in_slots_are_replaced(sdata):
    table = sdata.tables["table"]
    gene = "HLA-A/B (1)"
    table.var_names = [gene, *table.var_names[1:]]
    model = stp.tl.fit_ridge(sdata, genes=[gene, "null_001"], context="spot", embedding="X_colour")
    stp.tl.predict(sdata, model)
    stp.tl.attribute(sdata, model, gene, n_steps=1)
    predicted = sdata.tables["predicted"]
    assert "attribution_HLA-A_B__1_" in predicted.obsm
    assert predicted.uns["stpredict"]["attribute"]["attribution_HLA-A_B__1_"]["gene"] == gene


def test_attributing_does_not_change_the_model(sdata, ridge):
    before = {name: value.clone() for name, value in ridge.network.state_dict().items()}
    flags = [p.requires_grad for p in ridge.network.parameters()]
    attributed(sdata, ridge, "morphology_001", n_steps=1)
    assert all(torch.equal(ridge.network.state_dict()[name], before[name]) for name in before)
    assert [p.requires_grad for p in ridge.network.parameters()] == flags
    assert all(p.grad is None for p in ridge.network.parameters())


# ---- bad input -----------------------------------------------------------------------------


def refused(sdata, model, error, message, *, gene="morphology_001", **options):
    table = sdata.tables.get("predicted")
    before = None if table is None else (list(table.obsm), list(table.obsp), repr(table.uns))
    with pytest.raises(error, match=message):
        stp.tl.attribute(sdata, model, gene, **options)
    table = sdata.tables.get("predicted")
    after = None if table is None else (list(table.obsm), list(table.obsp), repr(table.uns))
    assert after == before


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"gene": "ERBB2"}, KeyError, r"does not predict 'ERBB2'; genes: morph"),
        ({"n_steps": 0}, ValueError, "n_steps must be a whole number of at least 1: 0"),
        ({"n_steps": 2.5}, ValueError, r"n_steps must be .*2\.5"),
        ({"n_steps": True}, ValueError, "n_steps must be .*True"),
        ({"section": "S9"}, KeyError, "no section 'S9'; sections: S1, S2"),
        ({"spots": ["nowhere"]}, KeyError, "no spots 'nowhere'; spots: S1_"),
        ({"spots": []}, KeyError, "no spots none"),
        ({"section": "S1", "spots": ["x"]}, ValueError, "section= or spots=, not both"),
    ],
)
def test_bad_arguments_are_refused(sdata, ridge, options, error, message):
    stp.tl.predict(sdata, ridge)
    refused(sdata, ridge, error, message, **options)


def test_a_missing_captum_is_reported(sdata, ridge, monkeypatch):
    stp.tl.predict(sdata, ridge)
    for name in [name for name in sys.modules if name.split(".")[0] == "captum"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "captum", None)
    refused(sdata, ridge, ImportError, r'pip install "stpredict\[explain\]"')


def test_missing_predictions_are_refused(sdata, ridge):
    refused(sdata, ridge, KeyError, r"no 'predicted'.*stp\.tl\.predict")


def test_predictions_of_another_model_are_refused(sdata, ridge):
    other = stp.tl.fit_ridge(sdata, context="spot", embedding="X_colour")
    stp.tl.predict(sdata, other)
    refused(sdata, ridge, ValueError, r"than this model's \(ridge\).*stp\.tl\.predict")
    few = stp.tl.fit_ridge(sdata, genes=["null_001"], context="spot", embedding="X_colour")
    stp.tl.predict(sdata, few)
    refused(sdata, ridge, ValueError, r"has no gene 'morphology_001': run stp\.tl\.predict")


def test_predictions_of_other_spots_are_refused(sdata, ridge):
    stp.tl.predict(sdata, ridge)
    table = sdata.tables["table"]
    sdata.tables["table"] = table[: table.n_obs - 4].copy()
    refused(sdata, ridge, ValueError, r"other spots than the table.*stp\.tl\.predict")


def test_missing_inputs_are_refused(sdata, ridge):
    stp.tl.predict(sdata, ridge)
    del sdata.tables["table"].obsm["X_colour"]
    refused(sdata, ridge, KeyError, r"no embedding 'X_colour'.*stp\.pp\.prepare")


def test_trees_have_no_gradient(sdata):
    model = stp.tl.fit_trees(sdata, embedding="X_colour", context="spot", n_trees=2)
    stp.tl.predict(sdata, model)
    refused(sdata, model, ValueError, "'trees' have no gradient, those of deepspot, deepcell, cnn")


def test_stacks_are_attributed_base_by_base(sdata):
    bases = {
        context: lambda part, context=context: stp.tl.fit_ridge(
            part, context=context, embedding="X_colour"
        )
        for context in ("spot", "spot_neighbors")
    }
    stack = stp.tl.fit_stacking(sdata, bases, meta="mean")
    stp.tl.predict(sdata, stack)
    refused(sdata, stack, ValueError, r"model\.bases\[name\] \(spot, spot_neighbors\)")
    attributed(sdata, stack.bases["spot_neighbors"], "morphology_001", n_steps=1)


def test_a_constant_gene_is_refused(sdata):
    values = sdata.tables["table"].layers["log1p"].tolil()
    values[:, 0] = 0
    sdata.tables["table"].layers["log1p"] = values.tocsr()
    model = stp.tl.fit_ridge(sdata, context="spot", embedding="X_colour")
    stp.tl.predict(sdata, model)
    gene = sdata.tables["table"].var_names[0]
    refused(sdata, model, ValueError, f"'{gene}' was constant in training", gene=gene)


def test_models_on_pixels_require_a_choice_of_spots(sdata, cnn):
    stp.tl.predict(sdata, cnn)
    refused(sdata, cnn, ValueError, r"needs a choice of spots: spots=\['S1_.*', …\], or section=")


def test_too_few_steps_are_refused(sdata):
    model = fit_deepspot(sdata, context="spot_neighbors", max_epochs=20)
    stp.tl.predict(sdata, model, device="cpu")
    refused(sdata, model, ValueError, "with 1 steps, .*for example to 4", n_steps=1)
