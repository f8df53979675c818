"""A slide predicted in blocks gives what grid, prepare and predict give in memory."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

import stpredict as stp
from stpredict.tl._prediction import _blocks

SMALL = {"size_px": 800, "mpp": 0.5, "n_morphology": 3, "n_neighborhood": 3, "n_null": 2}
SHORT = stp.tl.Schedule(max_epochs=1)
SETS = {"network": stp.tl.DeepSpotNetwork(n_hidden=8, n_phi=2, n_rho=2), "schedule": SHORT}


def colour(tiles):
    return torch.cat([tiles.mean((-2, -1)), tiles.std((-2, -1))], dim=1)


def training_sections():
    sdata = stp.datasets.phantom(2, **SMALL, pitch_um=40.0)
    stp.pp.normalize_stain(sdata)
    stp.pp.normalize(sdata)
    stp.pp.select_genes(sdata, n_top_genes=5)
    stp.pp.embed(sdata, colour, tile_um=40, n_subtiles=2, key_added="X_colour")
    stp.pp.neighbors(sdata)
    return sdata


@pytest.fixture(scope="module")
def train():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stp.settings, "verbosity", 0)
        return training_sections()


def bare_slide(**options):
    """An image with known µm per pixel, without spots and table."""
    return stp.datasets.phantom(**{**SMALL, "pitch_um": 40.0, **options}, seed=3).subset(
        ["S1_image"]
    )


ridge = functools.partial(stp.tl.fit_ridge, embedding="X_colour", alpha=1.0)
deepspot = functools.partial(stp.tl.fit_deepspot, embedding="X_colour", **SETS)
cnn = functools.partial(
    stp.tl.fit_cnn,
    network=stp.tl.CNNNetwork(tile_px=16),
    tile_um=20.0,
    schedule=SHORT,
)
METHODS = {
    "ridge": functools.partial(ridge, context="spot"),
    "deepspot": functools.partial(deepspot, context="spot_subspot_neighbors"),
    "deepcell": functools.partial(
        stp.tl.fit_deepcell,
        embedding="X_colour",
        network=stp.tl.DeepCellNetwork(n_hidden=8, n_phi=2, n_rho=2),
        schedule=SHORT,
    ),
    "trees": functools.partial(stp.tl.fit_trees, embedding="X_colour", n_trees=5),
    "factors": functools.partial(ridge, context="spot_neighbors", targets="svd", n_factors=2),
    "cnn": cnn,
    "stack": lambda sdata: stp.tl.fit_stacking(
        sdata, {"ridge": functools.partial(ridge, context="spot_neighbors"), "cnn": cnn}
    ),
}


@pytest.mark.parametrize("name", METHODS)
def test_blocks_predict_what_the_slide_in_memory_does(name, train, monkeypatch):
    model = METHODS[name](train)
    encoder = None if model.uses_pixels else colour
    whole = bare_slide()
    stp.pp.grid(whole, "S1_image", pitch_um=40, diameter_um=22)
    stp.pp.prepare(whole, model, encoder=encoder)
    stp.tl.predict(whole, model)
    expected = whole.tables["predicted"]
    monkeypatch.setattr(_blocks, "BLOCK_SPOTS", 30)
    slide = bare_slide()
    assert stp.tl.predict_slide(slide, model, encoder=encoder) is slide
    predicted = slide.tables["predicted"]
    assert expected.n_obs > 60
    assert list(predicted.obs_names) == list(expected.obs_names)
    assert list(predicted.var_names) == list(expected.var_names)
    np.testing.assert_allclose(predicted.X, expected.X, atol=1e-6)
    assert predicted.layers.keys() == expected.layers.keys()
    for layer in expected.layers:
        if layer is not None:
            np.testing.assert_allclose(predicted.layers[layer], expected.layers[layer], atol=1e-6)
    few = [model.genes[3], model.genes[1]]
    some = stp.tl.predict_slide(bare_slide(), model, encoder=encoder, genes=few)
    assert list(some.tables["predicted"].var_names) == few
    np.testing.assert_allclose(some.tables["predicted"].X, expected[:, few].X, atol=1e-6)
    assert not [slot for slot in slide.tables["table"].obsm if slot.startswith("X_")]
