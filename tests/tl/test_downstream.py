"""Tools of scanpy and squidpy run on predictions as they do on measured expression."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import squidpy as sq
import torch

import stpredict as stp
from helpers import colour
from stpredict._sdata._spot_table import copy_of

GENES = ["morphology_001", "null_001"]


@pytest.fixture(scope="module")
def predicted_section():
    sdata = stp.datasets.phantom(
        size_px=1000, mpp=0.5, pitch_um=40.0, n_morphology=6, n_neighborhood=3, n_null=3
    )
    stp.pp.normalize(sdata)
    stp.pp.embed(sdata, colour, key_added="X_colour", tile_um=40, n_subtiles=1)
    stp.pp.neighbors(sdata)
    model = stp.tl.fit_deepspot(
        sdata,
        embedding="X_colour",
        context="spot_neighbors",
        genes=list(sdata.tables["table"].var_names),
        network=stp.tl.DeepSpotNetwork(n_hidden=16, n_phi=2, n_rho=2, n_networks=1),
        schedule=stp.tl.Schedule(learning_rate=5e-3, max_epochs=10),
    )
    stp.tl.predict(sdata, model)
    return sdata


@pytest.fixture(params=["table", "predicted"])
def table(request, predicted_section):
    table = copy_of(predicted_section).tables[request.param]
    if request.param == "table":
        table.X = table.layers["log1p"].copy()
    return table


def test_principal_components_and_clusters_are_computed(table):
    sc.pp.pca(table, n_comps=5)
    sc.pp.neighbors(table, n_neighbors=10, n_pcs=5)
    sc.tl.leiden(table, flavor="igraph", n_iterations=2, directed=False)
    assert table.obsm["X_pca"].shape == (table.n_obs, 5)
    assert table.obs["leiden"].nunique() > 1


def test_predicted_marker_genes_are_ranked_without_nan(predicted_section):
    sdata = copy_of(predicted_section)
    model = stp.tl.fit_ridge(sdata, embedding="X_colour", genes=GENES, context="spot", alpha=1.0)
    stp.tl.predict(sdata, model)
    first = np.asarray(sdata.tables["predicted"].X)[:, 0]
    with torch.no_grad():  # half of the predictions of the first gene would be negative
        model.network.linear.bias[0] -= float(np.median(first) / model.targets.standard.scale[0])
    stp.tl.predict(sdata, model)
    table = sdata.tables["predicted"]
    half = np.where(first < np.median(first), "low", "high")
    table.obs["half"] = pd.Categorical(half)
    sc.tl.rank_genes_groups(table, "half", method="t-test")
    folds = table.uns["rank_genes_groups"]["logfoldchanges"]
    assert np.isfinite(np.array(folds.tolist())).all()


def test_spatial_autocorrelation_is_computed(table):
    sq.gr.spatial_autocorr(table, mode="moran", show_progress_bar=False)
    moran = table.uns["moranI"]["I"]
    assert set(moran.index) == set(table.var_names)
    assert np.isfinite(moran).all()
    assert moran["morphology_001"] > 0


def test_genes_are_drawn_as_a_scatter(table):
    sq.pl.spatial_scatter(table, color="morphology_001", shape=None)
    assert plt.gca().get_title() == "morphology_001"
    plt.close("all")
