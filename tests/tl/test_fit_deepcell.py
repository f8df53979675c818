"""DeepCell: patches train like shuffled cells; neighbours by number and radius; real cells."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.neighbors import KDTree

import stpredict as stp
from stpredict.nn import DeepCell
from stpredict.targets import Standard
from stpredict.training import Inputs, Measured, Schedule, fit_network

DATA = Path(__file__).parents[3] / "shared" / "data"
NETWORK = stp.tl.DeepCellNetwork(n_hidden=8, n_phi=2, n_rho=2)
#: As by default, but short.
SHORT = stp.tl.Schedule(max_epochs=2, learning_rate=1e-4, batch_size=256, patch_size=64)


# ---- patches -------------------------------------------------------------------------------


def cells(n=1200, k=10):
    """Cells at random in a plane; targets depend on a cell and on its neighbours."""
    random = np.random.default_rng(0)
    positions = random.random((n, 2)) * n**0.5
    tree = KDTree(positions)
    near = tree.query(positions, k + 1, return_distance=False)[:, 1:].astype(np.int64)
    center = random.normal(size=(n, 6)).astype(np.float32)
    center[:, 0] += np.sin(positions[:, 0] / 5)
    targets = np.stack([center[:, 1], center[near, 0].mean(axis=1) * 2], axis=1)
    targets += 0.1 * random.normal(size=targets.shape)
    order = np.asarray(tree.get_arrays()[1], dtype=np.int64)
    inputs = Inputs(center=center, scaler=Standard.fit(center), neighbors=near, order=order)
    return inputs, Measured(targets.astype(np.float32))


def test_patches_train_to_the_loss_of_shuffled_cells():
    inputs, measured = cells()
    held_out = np.zeros(len(inputs), dtype=bool)
    held_out[::5] = True
    losses = {}
    for patch_size in (1, 32):
        losses[patch_size] = []
        for seed in range(3):
            fitted = fit_network(
                lambda: DeepCell(6, 2, n_hidden=24, n_phi=3, n_rho=3, dropout=0.1),
                inputs,
                measured,
                training=np.flatnonzero(~held_out),
                validation=np.flatnonzero(held_out),
                loss=torch.nn.functional.mse_loss,
                schedule=Schedule(
                    max_epochs=12,
                    patience=12,
                    batch_size=64,
                    learning_rate=5e-3,
                    weight_decay=0,
                    monitor="loss",
                    patch_size=patch_size,
                ),
                seed=seed,
                device="cpu",
            )
            history = fitted.history
            losses[patch_size].append(history.loss[history.split == "validation"].min())
    shuffled, patched = (np.mean(losses[size]) for size in (1, 32))
    assert shuffled < 0.5 * measured.targets.var(axis=0).mean()  # the targets were learnt
    assert patched == pytest.approx(shuffled, rel=0.15)


# ---- neighbours, by number and by radius -----------------------------------------------------


@pytest.fixture(scope="module")
def sdata():
    sdata = stp.datasets.phantom(2, size_px=600, mpp=0.5, pitch_um=40)
    stp.pp.normalize(sdata)
    stp.pp.select_genes(sdata, n_top_genes=4, flavor="variance")
    stp.pp.embed(sdata, "texture", tile_um=40, n_subtiles=1)
    return sdata


@pytest.mark.parametrize("rule", [{"n_neighbors": 5}, {"radius_um": 70.0}])
@pytest.mark.parametrize("aggregation", ["max", "mean", "sum"])
def test_neighbours_are_linked_by_number_or_by_radius(sdata, rule, aggregation, tmp_path):
    stp.pp.neighbors(sdata, **rule)
    network = replace(NETWORK, aggregation=aggregation)
    model = stp.tl.fit_deepcell(sdata, network=network, schedule=SHORT)
    assert model.recipe.neighbors.rule == rule
    assert model.hyperparameters.network.aggregation == aggregation
    model.save(tmp_path / "model")
    loaded = stp.models.load(tmp_path / "model")
    first, second = (
        stp.tl.predict(sdata, m, copy=True).tables["predicted"].X for m in (model, loaded)
    )
    np.testing.assert_array_equal(first, second)
    assert np.isfinite(first).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"context": "spot"}, r"context='spot' is not one of 'cell', 'cell_neighbors'"),
        (
            {"network": replace(NETWORK, aggregation="median")},
            "aggregation='median' is not one of",
        ),
    ],
)
def test_bad_options_are_refused(sdata, options, message):
    stp.pp.neighbors(sdata, n_neighbors=5)
    with pytest.raises(ValueError, match=message):
        stp.tl.fit_deepcell(sdata, **{"network": NETWORK, "schedule": SHORT, **options})
    assert set(sdata.tables) == {"table"}


# ---- real cells ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def xenium():
    path = DATA / "xenium_ncbi858"
    if not path.is_dir():
        pytest.skip("real data is missing: ../shared/data/xenium_ncbi858")
    sdata = stp.io.read_h5ad(
        path / "NCBI858.h5ad",
        path / "NCBI858.jpg",
        x="y_pixel",  # in this file x_pixel is the row
        y="x_pixel",
        section="NCBI858",
        mpp=2.0,  # nuclei are about 3 px wide
        diameter_um=10.0,
    )
    stp.pp.normalize(sdata)
    stp.pp.select_genes(sdata, n_top_genes=20, flavor="variance")
    stp.pp.embed(sdata, "texture", tile_um=24, n_subtiles=1)
    return sdata


@pytest.mark.parametrize("rule", [{"n_neighbors": 15}, {"radius_um": 320.0}])
def test_real_cells_are_fitted_predicted_and_scored(xenium, rule):
    stp.pp.neighbors(xenium, **rule)
    schedule = replace(SHORT, max_epochs=4, learning_rate=3e-3)
    model = stp.tl.fit_deepcell(xenium, network=NETWORK, schedule=schedule)
    assert "block" in model.training.held_out  # a single section
    stp.tl.predict(xenium, model)
    predicted = xenium.tables["predicted"]
    assert predicted.shape == (200, 20)
    assert np.isfinite(predicted.X).all()
    assert set(predicted.layers) - {None} == {"std"}  # anndata 0.13: None is X
    scores = stp.tl.evaluate(xenium)
    assert np.isfinite(scores.values()["predicted"]).all()
    assert scores.leaky
    del xenium.tables["predicted"]
